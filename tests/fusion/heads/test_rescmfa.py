from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fusion.head_config import AUDIO, TEXT, HeadInputs
from fusion.heads.configs.rescmfa import ResCMFAConfig
from fusion.heads.rescmfa import CrossModalBlock, ResCMFA
from tests.support.rescmfa_examples import alone, batch_of, example, gradients, head_of, padded, part


def test_the_ctc_loss_alone_reaches_the_adapter_of_the_audio_and_nothing_of_the_text() -> None:
    head = head_of()
    reached = {name for name, x in gradients(head(example()).losses["ctc"], head).items() if x is not None and x.any()}
    assert {name.split(".")[0] for name in reached} == {"fronts", "ctc"}
    assert {name.split(".")[2] for name in reached if "fronts.audio" in name} == {"adapter"}
    assert not any("text" in name for name in reached)
    assert {f"fronts.audio.adapter.{layer}.weight" for layer in ("norm", "inner", "outer")} <= reached


def test_without_alpha_the_ctc_head_stays_as_it_is() -> None:
    head = head_of(alpha=0)
    assert head.ctc is not None
    before = head.ctc.weight.clone()
    output = head(example())
    assert output.losses == {}
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.1)
    nn.functional.cross_entropy(output.logits, example().labels).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert torch.equal(head.ctc.weight, before)


def test_utterances_without_a_feasible_transcript_drop_out_of_the_ctc_loss_only() -> None:
    head, batch = head_of(), example()
    output, feasible = head(batch), part(batch, [0, 1, 2])
    torch.testing.assert_close(output.losses["ctc"], head(feasible).losses["ctc"])
    torch.testing.assert_close(output.logits[:3], head(feasible).logits)
    torch.testing.assert_close(output.losses["ctc"], head(padded(batch)).losses["ctc"])
    summed = head_of(ctc_reduction="sum")(batch).losses["ctc"]
    characters = batch.masks["chars"].sum(dim=1)
    each = [head(part(batch, [row])).losses["ctc"] * characters[row] for row in range(3)]
    torch.testing.assert_close(summed, torch.stack(each).sum())


@pytest.mark.parametrize("residual", ["block", "module"])
def test_every_layer_attends_to_the_initial_features(residual: str) -> None:
    head, seen = head_of(layers=3, residual=residual).eval(), []
    for name, module in head.named_modules():
        if isinstance(module, CrossModalBlock):
            module.register_forward_hook(lambda _, given, out, name=name: seen.append((name, *given, out)))
    with torch.no_grad():
        head(example())
    audio, text = ([call for call in seen if call[0].endswith(name)] for name in ("audio_text", "text_audio"))
    for stream, other in ((audio, text), (text, audio)):
        assert [call[2] is other[0][1] for call in stream] == [True] * 3
        assert [call[1] is previous[-1] for call, previous in zip(stream[1:], stream, strict=False)] == [True] * 2
        assert not any(torch.equal(call[2], previous[-1]) for call, previous in zip(stream[1:], other, strict=False))
        assert [call[4] is stream[0][1] for call in stream] == [True, residual == "module", residual == "module"]


@pytest.mark.parametrize(("role", "other"), [(TEXT, AUDIO), (AUDIO, TEXT)])
def test_padding_of_one_stream_changes_nothing_in_the_other(role: str, other: str) -> None:
    head, batch, seen = head_of().eval(), example(), []
    head.layers[-1].register_forward_hook(lambda _, given, out: seen.append(out[other]))
    noisy = padded(batch)
    features = {**batch.features, role: noisy.features[role]}
    head(batch)
    head(replace(batch, features=features, masks={**batch.masks, role: noisy.masks[role]}))
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=1e-5)


def test_a_block_whose_linear_gives_0_returns_its_query() -> None:
    block = CrossModalBlock(dim=8, heads=2, dropout=0.5)
    nn.init.zeros_(block.linear.weight)
    nn.init.zeros_(block.linear.bias)
    query, memory = torch.randn(2, 5, 8), torch.randn(2, 3, 8)
    assert torch.equal(block(query, memory, torch.ones(2, 3, dtype=torch.bool), query), query)


def test_a_block_is_attention_linear_norm_gelu_and_residual_in_this_order() -> None:
    block = CrossModalBlock(dim=8, heads=2, dropout=0.5).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in block.parameters():
        nn.init.normal_(parameter, generator=generator)
    query, memory, residual = torch.randn(2, 5, 8), torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    mask = torch.ones(2, 3, dtype=torch.bool)
    linear = block.attention(query, memory, mask) @ block.linear.weight.T + block.linear.bias
    normed = (linear - linear.mean(-1, keepdim=True)) / (linear.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    scaled = normed * block.norm.weight + block.norm.bias
    gelu = scaled * (1 + torch.erf(scaled / 2**0.5)) / 2
    torch.testing.assert_close(block(query, memory, mask, residual), residual + gelu)


@pytest.mark.parametrize(("layers", "classes", "size"), [(4, 4, 32_230_032), (2, 4, 20_412_048), (2, 7, 20_414_355)])
def test_the_size_is_the_closed_form(layers: int, classes: int, size: int) -> None:
    inputs = HeadInputs(classes=tuple("abcdefg"[:classes]), shapes={AUDIO: (768,), TEXT: (768,)})
    with torch.device("meta"):
        head = ResCMFA(ResCMFAConfig(layers=layers), inputs)
    assert sum(parameter.numel() for parameter in head.parameters()) == size
    assert {module.heads for module in head.modules() if hasattr(module, "in_proj_weight")} == {12}


def test_a_width_that_12_does_not_divide_gets_fewer_heads_and_a_wrong_number_is_told() -> None:
    assert {block.attention.heads for block in head_of().modules() if isinstance(block, CrossModalBlock)} == {8}
    with pytest.raises(ValueError, match="heads must divide the width 16: one of 1, 2, 4, 8, 16, got 12"):
        head_of(heads=12)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"residual": "none"}, "residual must be one of block, module, got 'none'"),
        ({"gate": "relu"}, "gate must be one of identity, tanh, got 'relu'"),
        ({"sgu": "sparse"}, "sgu must be one of dense, dwconv, got 'sparse'"),
        ({"ctc_reduction": "max"}, "ctc_reduction must be one of mean, sum, got 'max'"),
        ({"audio_slots": 0}, "audio_slots must be at least 1, got 0"),
        ({"alpha": float("nan")}, "alpha must be at least 0, got nan"),
        ({"dropout": 1.0}, "dropout must lie in"),
    ],
)
def test_a_bad_choice_is_told(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResCMFAConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "needed"),
    [({}, ("chars",)), ({"alpha": 0}, ()), ({"modalities": TEXT}, ()), ({"modalities": AUDIO}, ("chars",))],
)
def test_characters_are_read_where_there_is_a_ctc_loss(fields: dict[str, Any], needed: tuple[str, ...]) -> None:
    config = ResCMFAConfig(**fields)
    assert config.training_roles == needed
    assert dict(config.loss_weights) == ({"ctc": 0.1} if needed else {})
    assert head_of(**fields).eval()(example()).losses == {}


class Rows:
    labels = np.zeros(5, np.int64)

    def __len__(self) -> int:
        return 5

    def text(self, index: int) -> str:
        raise AssertionError(index)

    def length(self, role: str, index: int) -> int:
        return len(self.rows(role, index))

    def rows(self, role: str, index: int) -> np.ndarray[Any, Any]:
        values = alone(example(), index).features[role][0].numpy()
        return values.astype(np.uint8 if role == "chars" else np.float16)


def test_preparing_counts_what_the_ctc_loss_leaves_out() -> None:
    expected = "2 of 5 training utterances are left out of the CTC loss: no transcript, or more characters than frames"
    assert [note.startswith(expected) for note in head_of().prepare(Rows())] == [True]
    assert head_of(alpha=0).prepare(Rows()) == []


def test_the_dense_gate_has_the_slots_of_text_before_those_of_audio() -> None:  # G-8
    head, gates = head_of().eval(), []
    assert head.global_aware is not None
    head.global_aware.gate.register_forward_hook(lambda module, given, gate: gates.append(gate))
    head(batch_of([95], [45], [3]))
    text, audio = gates[0][0].split([45, 95])
    beyond = [(rows == 1).all(dim=-1).nonzero()[:, 0].tolist() for rows in (text, audio)]
    assert beyond == [list(range(40, 45)), list(range(90, 95))]


def test_utterances_beyond_the_slots_are_told() -> None:
    lengths = {AUDIO: np.array([90, 91, 5, 5]), TEXT: np.array([40, 2, 41, 40]), "chars": np.array([400, 0, 0, 0])}
    assert head_of().over_limits(lengths).tolist() == [False, True, True, False]
    assert head_of(modalities=TEXT).over_limits(lengths).tolist() == [False, False, True, False]
    assert not head_of(sgu="dwconv").over_limits(lengths).any()
    assert not head_of(global_aware=False).over_limits(lengths).any()
