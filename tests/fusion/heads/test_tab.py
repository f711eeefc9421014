import pytest
import torch
from torch import Tensor, nn

from fusion.head import HeadInputs
from fusion.heads.catalog import build_head, count_parameters
from fusion.heads.tab import MulTAB, MulTABConfig, TemporalAwareBlock
from fusion.nn.attention import Attention, TransformerLayer
from tests.support.heads import batch_of, collate, head_inputs, replaced, samples

BASE = HeadInputs(classes=("ang", "hap", "neu", "sad"), shapes={"audio": (768,), "text": (768,)})
ADAPTERS = 2_365_440


def block(*, channels: int = 4, **values: object) -> TemporalAwareBlock:
    torch.manual_seed(0)
    return TemporalAwareBlock(MulTABConfig(dropout=0.0, **values), channels).eval()  # type: ignore[arg-type]


def head(*, seed: int = 0, **values: object) -> MulTAB:
    built = build_head("tab", MulTABConfig(**values), head_inputs(), seed=seed)  # type: ignore[arg-type]
    assert isinstance(built, MulTAB)
    return built.eval()


def full(rows: Tensor) -> Tensor:
    return torch.ones(rows.shape[:2], dtype=torch.bool)


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ({}, 39_581_956 + ADAPTERS),
        ({"adapter": False}, 39_581_956),
        ({"adapter": False, "axis": "channel"}, 48_436_228),
        ({"adapter": False, "tab": False}, 39_581_956 - 5_315_328),
        ({"adapter": False, "self_attention": False}, 39_581_956 - 28_351_488),
        ({"adapter": False, "modalities": "audio"}, 14_175_744 + 590_592 + 5_315_328 + 3_076),
    ],
)
def test_parameters_are_as_many_as_the_closed_form_says(values: dict[str, object], count: int) -> None:
    with torch.device("meta"):
        assert count_parameters(MulTAB(MulTABConfig(**values), BASE)) == count  # type: ignore[arg-type]


def test_self_attention_is_two_post_norm_layers_of_four_times_the_width() -> None:  # M-2
    with torch.device("meta"):
        layers = [layer for layer in MulTAB(MulTABConfig(), BASE).modules() if isinstance(layer, TransformerLayer)]
    shapes = [(layer.norm_first, layer.linear1.out_features, layer.self_attn.heads) for layer in layers]
    assert shapes == [(False, 3072, 8)] * 4


def test_without_weights_the_map_is_one_half() -> None:
    silent = block()
    for conv in [module for module in silent.modules() if isinstance(module, nn.Conv1d)]:
        nn.init.zeros_(conv.weight)
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    rows = torch.randn(2, 9, 4)
    assert torch.equal(silent(rows, full(rows)), 0.5 * rows)


@pytest.mark.parametrize("causal", [False, True])
def test_the_map_lies_between_one_half_and_one(causal: bool) -> None:
    rows = torch.randn(3, 20, 4) * 5
    ratio = block(causal=causal)(rows, full(rows)) / rows
    assert (ratio >= 0.5 - 1e-6).all()
    assert (ratio <= 1 + 1e-6).all()


@pytest.mark.parametrize(
    ("values", "before", "after"),
    [({}, 3, 3), ({"causal": True}, 0, 3), ({"causal": True, "tab_kernel": 3}, 0, 6), ({"tab_kernel": 5}, 6, 6)],
)
def test_three_sub_blocks_see_so_far(values: dict[str, object], before: int, after: int) -> None:
    aware, rows = block(channels=16, **values), torch.randn(1, 30, 16)
    assert len(aware.blocks) == 3
    changed = rows.clone()
    changed[0, 12] += 5
    differs = (aware(changed, full(rows)) != aware(rows, full(rows))).any(dim=-1)[0]
    assert differs.nonzero()[:, 0].tolist() == list(range(12 - before, 12 + after + 1))


def test_the_stream_that_asks_is_the_one_that_is_added_to() -> None:
    model, batch = head(), batch_of(3)
    streams = (batch.features["audio"], batch.features["text"])
    masks = (batch.masks["audio"], batch.masks["text"])
    for attention in [module for module in model.crossings.modules() if isinstance(module, Attention)]:
        nn.init.zeros_(attention.out_proj.weight)
    speech, text = model.cross(streams, masks)
    torch.testing.assert_close(speech, nn.functional.layer_norm(streams[0], (24,)))
    torch.testing.assert_close(text, nn.functional.layer_norm(streams[1], (24,)))


def test_segments_are_pooled_apart() -> None:
    model, batch = head(tab=False), collate(samples(1))
    speech, text = batch.features["audio"], batch.features["text"]
    masks = (batch.masks["audio"], batch.masks["text"])
    pooled = model.fuse((speech, text), masks)
    assert model.classifier.in_features == pooled.shape[1] == 2 * 24
    torch.testing.assert_close(model.fuse((speech, text.flip(1)), masks), pooled)
    exchanged = (torch.cat([text[:, :1], speech[:, 1:]], dim=1), torch.cat([speech[:, :1], text[:, 1:]], dim=1))
    assert (model.fuse(exchanged, masks) - pooled).abs().max() > 1e-3


def test_the_block_sees_the_first_token_beside_the_last_frame() -> None:
    model, batch = head(self_attention=False), collate(samples(3))
    short = int(batch.masks["audio"].sum(dim=1).argmin())
    streams = (batch.features["audio"], batch.features["text"])
    masks = (batch.masks["audio"], batch.masks["text"])
    assert not masks[0][short].all()
    changed = streams[1].clone()
    changed[short, 0] += 1
    differs = model.fuse(streams, masks) != model.fuse((streams[0], changed), masks)
    assert differs[short, :24].any()
    assert differs.any(dim=1).sum() == 1


def test_running_statistics_take_no_notice_of_padding() -> None:
    chosen, seen = samples(6), []
    for extra, noise in ((0, 0.0), (60, 1e3)):
        model = head(dropout=0.0)
        model.train()(collate(chosen, extra=extra, noise=noise))
        seen.append([buffer.clone() for name, buffer in model.named_buffers() if "running" in name])
    assert len(seen[0]) == 6
    assert all(buffer.std() > 1e-4 for buffer in seen[0])
    for tight, loose in zip(*seen, strict=True):
        torch.testing.assert_close(loose, tight, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("role", ["audio", "text"])
def test_over_channels_an_absent_modality_leaves_the_other_heard(role: str) -> None:
    model, batch = head(axis="channel"), batch_of(4)
    other = "text" if role == "audio" else "audio"
    lacking = batch.without(role, torch.ones(4, dtype=torch.bool))
    louder = replaced(lacking, other, lacking.features[other] * 2)
    assert (model(louder).logits - model(lacking).logits).abs().min(dim=0).values.max() > 1e-4
    noisier = replaced(lacking, role, lacking.features[role] + 1e3)
    assert torch.equal(model(noisier).logits, model(lacking).logits)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"axis": "both"}, "axis must be time or channel, got 'both'"),
        ({"pooling": "sum"}, "pooling must be one of mean, max, got 'sum'"),
        ({"tab_kernel": 2}, "tab_kernel must be odd unless causal, got 2"),
        ({"tab_kernel": -1}, "tab_kernel must be a number of rows, or 0"),
        ({"kernel_text": 2}, "kernel_text must be an odd number of rows, got 2"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"feedforward": -1}, "feedforward must be a width"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
    ],
)
def test_what_is_not_allowed_is_said(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MulTABConfig(**values)  # type: ignore[arg-type]


def test_an_even_kernel_goes_over_channels_and_causally() -> None:
    assert MulTABConfig(axis="channel").block_kernel == 2
    assert MulTABConfig(causal=True).block_kernel == 2
    assert MulTABConfig().block_kernel == 3
    assert MulTABConfig(axis="channel", tab_kernel=4).block_kernel == 4


def test_pooling_by_the_greatest_row_takes_no_notice_of_padding_either() -> None:
    model, chosen = head(pooling="max").eval(), samples(3)
    with torch.no_grad():
        padded = model(collate(chosen, extra=60, noise=1e3)).logits
        alone, mean = model(collate(chosen)).logits, head(pooling="mean").eval()(collate(chosen)).logits
    torch.testing.assert_close(alone, padded, atol=1e-5, rtol=0)
    assert float((mean - padded).abs().max()) > 1e-3
    assert count_parameters(model) == count_parameters(head())
