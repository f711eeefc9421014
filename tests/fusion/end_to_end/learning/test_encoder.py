"""Encoders that learn: outputs and gradients of padded batches are those of plain Hugging Face, one by one."""

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from featurize.encoders.layers import parse_layers
from fusion.end_to_end.learning.encoder import LearningEncoder, drawn_from
from fusion.end_to_end.learning.image import LearningPatches
from fusion.end_to_end.learning.speech import LearningSpeech
from fusion.end_to_end.learning.text import LearningText
from tests.support.models import (
    ALIKE,
    CONVOLVING,
    SPEECH_FAMILIES,
    SPEECH_LAYERS,
    TEXT_FAMILIES,
    TEXT_LAYERS,
    speech_model,
    text_model,
    waveforms,
)

TOLERANCE = 1e-5
MIX = (400, 401, 719, 720, 8000, 3000)  # samples: one frame, nearly two, two, and far more
IDS = ([2, 5, 6, 3], [2, 3], [2, 5, 7, 8, 9, 10, 3])
SPEECH = [
    fields
    for fields in product(SPEECH_FAMILIES, ("group", "layer"), (False, True))
    if fields[0] not in CONVOLVING or fields[1:] == ("layer", False)
    if fields[0] not in ALIKE or fields[1:] == ("layer", True)
]
CPU = torch.device("cpu")


def fresh_speech(family: str, norm: str, stable: bool) -> Any:
    """Builds a model that no other test has changed."""
    return speech_model.__wrapped__(family, norm, stable)


def padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pads with large numbers, since the values in the padding are undefined."""
    lengths = torch.tensor([len(row) for row in rows])
    batch = nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=7)
    return batch, torch.arange(int(lengths.max())) < lengths[:, None]


def weighting(rows: int, dim: int) -> Tensor:
    """Returns fixed weights, so that every value of the output counts differently in the gradient."""
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(rows))


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def compare(encoder: LearningEncoder, rows: Sequence[Tensor], expected: Sequence[Tensor]) -> dict[str, Tensor]:
    """Checks the outputs of a batch against those of each utterance; returns the gradients of the batch."""
    encoder.model.zero_grad()
    batch, mask = padded(rows)
    found, _ = encoder(batch, mask)
    for index, wanted in enumerate(expected):
        torch.testing.assert_close(found[index, : len(wanted)], wanted.detach(), rtol=TOLERANCE, atol=TOLERANCE)
    loss = sum((found[index, : len(row)] * weighting(*row.shape)).sum() for index, row in enumerate(expected))
    loss.backward()
    return gradients(encoder.model)


def gradients_alone(model: nn.Module, expected: Sequence[Tensor]) -> dict[str, Tensor]:
    """Sums the gradients of each utterance."""
    model.zero_grad()
    sum((row * weighting(*row.shape)).sum() for row in expected).backward()  # type: ignore[union-attr]
    return gradients(model)


def compare_gradients(found: dict[str, Tensor], alone: dict[str, Tensor]) -> None:
    """Checks gradients of a batch against the sum of those of each utterance, where the batch has them."""
    assert found
    for name, gradient in found.items():
        scale = max(1.0, float(alone[name].abs().max()))
        assert float((gradient - alone[name]).abs().max()) <= TOLERANCE * scale, name


def speech_states(model: Any, waves: Sequence[Any]) -> tuple[list[tuple[Tensor, ...]], list[Tensor]]:
    """Runs Hugging Face on each waveform: hidden states, output."""
    outputs = [model(torch.from_numpy(wave)[None], output_hidden_states=True) for wave in waves]
    return [output.hidden_states for output in outputs], [output.last_hidden_state[0] for output in outputs]


@torch.no_grad()
def convolved(model: Any, waves: Sequence[Any]) -> list[Tensor]:
    """Runs the convolutions of Hugging Face on each waveform."""
    features = [model.feature_extractor(torch.from_numpy(wave)[None]).transpose(1, 2) for wave in waves]
    return [model.feature_projection.layer_norm(rows)[0] for rows in features]


@dataclass(frozen=True, kw_only=True)
class OneByOne:
    """A speech model, and the values that Hugging Face computes with it for each waveform of `MIX` alone."""

    model: Any
    conv: list[Tensor]
    hidden: list[tuple[Tensor, ...]]
    last: list[Tensor]
    gradients: dict[str, Tensor]


def one_by_one(fields: tuple[str, str, bool]) -> OneByOne:
    """Returns the values of a family with a model that no other test has changed."""
    computed = _one_by_one(fields)
    return replace(computed, model=copy.deepcopy(computed.model))


@functools.cache
def _one_by_one(fields: tuple[str, str, bool]) -> OneByOne:
    model, waves = fresh_speech(*fields), waveforms(MIX)
    conv, (hidden, last) = convolved(model, waves), speech_states(model, waves)
    alone = gradients_alone(model, last)
    model.zero_grad()
    return OneByOne(
        model=model,
        conv=conv,
        hidden=[tuple(state.detach() for state in states) for states in hidden],
        last=[row.detach() for row in last],
        gradients=alone,
    )


@pytest.mark.parametrize("fields", SPEECH, ids=str)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_speech_from_convolutions_is_hugging_face_one_by_one(
    fields: tuple[str, str, bool], checkpointing: bool
) -> None:
    expected = one_by_one(fields)
    choice = parse_layers("last", layers=SPEECH_LAYERS, encoder="enc")
    silence(expected.model)
    encoder = LearningSpeech(expected.model, choice, first=None, checkpointing=checkpointing).train(checkpointing)
    found = compare(encoder, expected.conv, expected.last)
    assert not any(name.startswith("feature_extractor") or "projection.layer_norm" in name for name in found)
    assert {name.split(".")[2] for name in found if name.startswith("encoder.layers")} == {"0", "1", "2"}
    compare_gradients(found, expected.gradients)


@pytest.mark.parametrize("fields", SPEECH, ids=str)
@pytest.mark.parametrize("first", [0, 1, 2])
def test_speech_from_a_lower_layer_is_hugging_face_one_by_one(fields: tuple[str, str, bool], first: int) -> None:
    expected = one_by_one(fields)
    choice = parse_layers("last", layers=SPEECH_LAYERS, encoder="enc")
    encoder = LearningSpeech(expected.model, choice, first=first).eval()
    found = compare(encoder, [states[first][0] for states in expected.hidden], expected.last)
    learned = {int(name.split(".")[2]) for name in found if name.startswith("encoder.layers")}
    assert learned == set(range(first, SPEECH_LAYERS))
    compare_gradients(found, expected.gradients)


@pytest.mark.parametrize("fields", SPEECH, ids=str)
def test_speech_from_waveforms_is_hugging_face_one_by_one(fields: tuple[str, str, bool]) -> None:
    expected = one_by_one(fields)
    choice = parse_layers("last", layers=SPEECH_LAYERS, encoder="enc")
    encoder = LearningSpeech(expected.model, choice, first=None, wave=True).eval()
    found = compare(encoder, [torch.from_numpy(wave) for wave in waveforms(MIX)], expected.last)
    assert any(name.startswith("feature_extractor") for name in found)
    compare_gradients(found, expected.gradients)


@pytest.mark.parametrize("layers", ["2", "mean1-2", "1,3"])
def test_a_head_may_read_hidden_layers(layers: str) -> None:
    model = fresh_speech("wav2vec2", "layer", True)
    waves = waveforms((5000, 16_000))
    conv, (hidden, last) = convolved(model, waves), speech_states(model, waves)
    choice = parse_layers(layers, layers=SPEECH_LAYERS, encoder="enc")
    encoder = LearningSpeech(model, choice, first=None).eval()
    batch, mask = padded(conv)
    expected = [choice.select(dict(enumerate(states)), last[0]) for states in hidden]
    found, _ = encoder(batch, mask)
    for index, wanted in enumerate(expected):
        torch.testing.assert_close(found[index, : wanted.shape[1]], wanted[0], rtol=TOLERANCE, atol=TOLERANCE)
    assert len(encoder.layers) == max(choice.indices)


@pytest.mark.parametrize("family", TEXT_FAMILIES)
@pytest.mark.parametrize("first", [None, 0, 1])
def test_text_is_hugging_face_one_by_one(family: str, first: int | None) -> None:
    model = text_model.__wrapped__(family)
    outputs = [model(torch.tensor([ids]), output_hidden_states=True) for ids in IDS]
    last = [output.last_hidden_state[0] for output in outputs]
    choice = parse_layers("last", layers=TEXT_LAYERS, encoder="enc")
    encoder = LearningText(model, choice, first=first).eval()
    if first is None:
        rows = [torch.tensor([[token, 0, 0] for token in ids]) for ids in IDS]
    else:
        rows = [output.hidden_states[first][0].detach() for output in outputs]
    found = compare(encoder, rows, last)
    assert any("word_embeddings" in name for name in found) == (first is None)
    compare_gradients(found, gradients_alone(model, last))


@pytest.mark.parametrize("first", [0, 2])
def test_patches_go_through_the_layers_of_a_vit(first: int) -> None:
    from featurize.encoders.tiny import build_vit_mel_tiny

    model = build_vit_mel_tiny()
    rows = [torch.randn(count, 64, generator=torch.Generator().manual_seed(count)) for count in (6, 11, 1)]

    def alone(states: Tensor) -> Tensor:
        for layer in model.layers[first:]:
            states = layer(states, None)
        return model.layernorm(states)[0]  # type: ignore[no-any-return]

    choice = parse_layers("last", layers=6, encoder="enc")
    expected = [alone(row[None]) for row in rows]
    found = compare(LearningPatches(model, choice, first=first).eval(), rows, expected)
    compare_gradients(found, gradients_alone(model, expected))


@pytest.mark.parametrize("pieces", [2, 3, 9])
def test_pieces_of_a_batch_give_its_outputs_and_gradients(pieces: int) -> None:
    expected = one_by_one(("wav2vec2", "layer", True))
    silence(expected.model)
    choice = parse_layers("last", layers=SPEECH_LAYERS, encoder="enc")
    whole = compare(LearningSpeech(expected.model, choice, first=None).train(), expected.conv, expected.last)
    encoder = LearningSpeech(expected.model, choice, first=None, pieces=pieces).train()
    whole = {name: gradient.clone() for name, gradient in whole.items()}
    found = compare(encoder, expected.conv, expected.last)
    for name, gradient in whole.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-4)


def test_an_utterance_without_rows_is_zero_and_changes_nothing() -> None:
    model = fresh_speech("hubert", "group", False)
    waves = waveforms((5000, 16_000))
    conv, (_, last) = convolved(model, waves), speech_states(model, waves)
    choice = parse_layers("last", layers=SPEECH_LAYERS, encoder="enc")
    encoder = LearningSpeech(model, choice, first=None).eval()
    batch, mask = padded([conv[0], conv[1], conv[1]])
    mask[1] = False
    found, _ = encoder(batch, mask)
    assert not found[1].any()
    torch.testing.assert_close(found[2, : len(last[1])], last[1], rtol=TOLERANCE, atol=TOLERANCE)
    assert not encoder(batch, torch.zeros_like(mask))[0].any()


def test_draws_depend_on_seed_and_step_and_leave_the_generators_alone() -> None:
    model = fresh_speech("wav2vec2", "layer", False)
    model.config.mask_time_prob, model.config.mask_time_length = 0.5, 2
    choice = parse_layers("last", layers=SPEECH_LAYERS, encoder="enc")
    encoder = LearningSpeech(model, choice, first=None).train()
    rows = torch.randn(2, 20, 16)
    mask = torch.ones(2, 20, dtype=torch.bool)

    def at(step: int) -> Tensor:
        encoder.draws.step.fill_(step)
        found: Tensor = encoder(rows, mask)[0]
        return found.detach()

    torch.manual_seed(3)
    before = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002 - the generator of Hugging Face
    first, second, again = at(1), at(2), at(1)
    assert torch.equal(first, again)
    assert not torch.allclose(first, second)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == repr(np.random.get_state())  # noqa: NPY002
    with drawn_from(1, 2, device=CPU):
        one = torch.rand(3)
    with drawn_from(1, 3, device=CPU):
        assert not torch.equal(one, torch.rand(3))


def silence(model: Any) -> None:
    """Switches off everything that is drawn in training."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    config = model.config
    for name in ("layerdrop", "attention_dropout", "hidden_dropout", "activation_dropout"):
        setattr(config, name, 0.0)
    config.apply_spec_augment = False
    for module in model.modules():
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
