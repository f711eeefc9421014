"""The ragged GRU sees the valid rows of its streams, in order and with nothing between them."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor

from fusion.nn.sequences import RaggedGRU, ragged

LENGTHS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=4)


def streams_of(lengths: list[tuple[int, int]], *, extra: int = 2) -> list[tuple[Tensor, Tensor]]:
    streams = []
    for own in zip(*lengths, strict=True):
        mask = torch.arange(max(own) + extra) < torch.tensor(own)[:, None]
        rows = torch.randn(*mask.shape, 4, generator=torch.Generator().manual_seed(sum(own)))
        streams.append((rows.masked_fill(~mask[..., None], 1e3), mask))
    return streams


@given(LENGTHS)
def test_the_valid_rows_follow_one_another(lengths: list[tuple[int, int]]) -> None:
    streams = streams_of(lengths)
    rows, mask = ragged(streams)
    for i, count in enumerate(lengths):
        assert mask[i].tolist() == [True] * sum(count) + [False] * (mask.shape[1] - sum(count))
        torch.testing.assert_close(rows[i][mask[i]], torch.cat([x[i][valid[i]] for x, valid in streams]))


@given(LENGTHS)
def test_states_are_those_of_torch_over_each_utterance_alone(lengths: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    network, streams = RaggedGRU(4, 3), streams_of(lengths)
    states, mask = network(streams)
    for i, count in enumerate(lengths):
        if sum(count):
            whole = torch.cat([x[i][valid[i]] for x, valid in streams])
            torch.testing.assert_close(states[i][mask[i]], network.gru(whole)[0])


def test_padding_between_the_streams_would_change_the_states() -> None:
    torch.manual_seed(0)
    network, streams = RaggedGRU(4, 3), streams_of([(2, 2), (4, 3)], extra=0)
    padded = network.gru(torch.cat([x for x, _ in streams], dim=1))[0]
    states, mask = network(streams)
    torch.testing.assert_close(states[1], padded[1])
    with pytest.raises(AssertionError):
        torch.testing.assert_close(states[0][mask[0]], padded[0][torch.cat([valid[0] for _, valid in streams])])
