import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from fusion.nn.sequences import join_in_channels, join_in_time, resampled
from tests.support.heads import batch_of


def test_streams_follow_one_another_without_padding_between_them() -> None:
    batch = batch_of(4)
    streams = (batch.features["audio"], batch.features["text"])
    masks = (batch.masks["audio"], batch.masks["text"])
    rows, segments = join_in_time(streams, masks)
    for place in range(4):
        own = [stream[place, mask[place]] for stream, mask in zip(streams, masks, strict=True)]
        assert torch.equal(rows[place, : sum(map(len, own))], torch.cat(own))
        for segment, part in zip(segments, own, strict=True):
            assert torch.equal(rows[place, segment[place]], part)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 5), st.integers(0, 5))
def test_stretching_is_that_of_torch_whatever_the_padding(valid: int, wanted: int, more: int, padding: int) -> None:
    x = torch.randn(1, valid, 3, generator=torch.Generator().manual_seed(valid))
    padded = torch.cat([x, torch.full((1, padding, 3), 1e3)], dim=1)
    ours = resampled(padded, torch.tensor([valid]), torch.tensor([wanted]), wanted + more)[:, :wanted]
    theirs = functional.interpolate(x.transpose(1, 2), size=wanted, mode="linear").transpose(1, 2)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("absent", [0, 1])
def test_in_channels_an_absent_stream_is_zero_and_has_no_rows(absent: int) -> None:
    batch = batch_of(2)
    streams = (batch.features["audio"], batch.features["text"])
    masks = [batch.masks["audio"].clone(), batch.masks["text"].clone()]
    masks[absent][1] = False
    rows, segments = join_in_channels(streams, (masks[0], masks[1]))
    there = 1 - absent
    assert rows.shape[-1] == 48
    assert segments[there][1].sum() == masks[there][1].sum()
    assert not segments[absent][1].any()
    assert not rows[1, segments[there][1]].chunk(2, dim=-1)[absent].any()
    assert torch.equal(segments[0][0], segments[1][0])
    assert segments[0][0].sum() == masks[0][0].sum()
