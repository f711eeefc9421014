"""The losses equal Hugging Face's for the same mask, negatives and random draws; padding changes none of them."""

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from transformers import Wav2Vec2ConformerConfig, Wav2Vec2ConformerForPreTraining

from featurize.encoders.padding import valid_mask
from fusion.end_to_end.learning.encoder import drawn_from
from fusion.end_to_end.pretraining.losses import (
    PretrainingLosses,
    draw_mask,
    draw_negatives,
    pretraining_losses,
)
from fusion.end_to_end.pretraining.model import PretrainingModel, SpeechBatch
from tests.support.models import CPU
from tests.support.pretraining import small_model

LONG, SHORT = 16_000, 9_000  # samples: 49 and 27 frames
LAYER_NORM = {"feat_extract_norm": "layer", "conv_bias": True}
STABLE = {**LAYER_NORM, "do_stable_layer_norm": True}
CONFORMER: dict[str, Any] = {"kind": Wav2Vec2ConformerForPreTraining, "config": Wav2Vec2ConformerConfig}
CONFORMER |= {"conv_depthwise_kernel_size": 3, "conformer_conv_dropout": 0.1}


def waveforms(*samples: int) -> SpeechBatch:
    random = np.random.default_rng(1)
    values = torch.zeros(len(samples), max(samples))
    for row, count in zip(values, samples, strict=True):
        row[:count] = torch.from_numpy(random.standard_normal(count).astype(np.float32))
    frames = [(count - 400) // 320 + 1 for count in samples]
    return SpeechBatch(values=values, lengths=list(samples), frames=frames)


def draws(frames: list[int], count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    with drawn_from(3, device=CPU):
        masked = draw_mask(frames, share=0.65, span=10, spans=2)
        return masked, draw_negatives(masked, count)


def losses_of(
    model: PretrainingModel, batch: SpeechBatch, masked: torch.Tensor, negatives: torch.Tensor
) -> PretrainingLosses:
    valid = valid_mask(batch.frames, CPU)
    normed = model.convolved(batch)
    hidden = model.transformed(normed, masked, valid, torch.float32)
    return pretraining_losses(model.model, hidden, normed, masked, negatives)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    ("changes", "samples"),
    [
        ({}, (LONG, LONG)),
        (LAYER_NORM, (LONG, SHORT)),
        (STABLE, (LONG, SHORT)),
        (CONFORMER, (LONG, LONG)),
        ({"num_codevectors_per_group": 2, "codevector_dim": 8}, (LONG, LONG)),  # most negatives are positives
    ],
    ids=["group norm", "layer norm, padded", "stable layer norm, padded", "conformer", "few codes"],
)
def test_losses_and_gradients_are_those_of_hugging_face(
    changes: dict[str, Any], samples: tuple[int, int], training: bool
) -> None:
    model = PretrainingModel(small_model(**changes), wave=True).train(training)
    batch = waveforms(*samples)
    masked, negatives = draws(list(batch.frames))
    found, gradients = {}, {}
    for name in ("ours", "theirs"):
        model.zero_grad()
        with drawn_from(5, device=CPU):
            if name == "ours":
                losses: Any = losses_of(model, batch, masked, negatives)
                found[name] = [losses.loss, losses.contrastive, losses.diversity, losses.perplexity]
            else:
                attention = torch.arange(max(samples)) < torch.tensor(samples)[:, None]
                losses = model.model(
                    batch.values,
                    attention_mask=attention.long() if samples[0] != samples[1] else None,
                    mask_time_indices=masked,
                    sampled_negative_indices=negatives,
                )
                found[name] = [
                    losses.loss,
                    losses.contrastive_loss,
                    losses.diversity_loss,
                    losses.codevector_perplexity,
                ]
        losses.loss.backward()
        gradients[name] = {
            key: weight.grad.clone() for key, weight in model.named_parameters() if weight.grad is not None
        }
    for ours, theirs in zip(found["ours"], found["theirs"], strict=True):
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert gradients["ours"].keys() == gradients["theirs"].keys()
    for name, gradient in gradients["theirs"].items():
        torch.testing.assert_close(
            gradients["ours"][name], gradient, rtol=1e-4, atol=1e-5 + 1e-5 * float(gradient.abs().max())
        )


def test_the_contrastive_loss_of_a_batch_is_the_sum_of_its_utterances() -> None:
    model = PretrainingModel(small_model(), wave=True).eval()  # group norm: Hugging Face's batch would differ
    batch = waveforms(LONG, SHORT)
    masked, negatives = draws(list(batch.frames))
    together = losses_of(model, batch, masked, negatives)
    alone, width = [], masked.shape[1]
    for index, (samples, frames) in enumerate(zip(batch.lengths, batch.frames, strict=True)):
        own = SpeechBatch(values=batch.values[index : index + 1, :samples], lengths=[samples], frames=[frames])
        rows = slice(index, index + 1)
        alone.append(losses_of(model, own, masked[rows, :frames], negatives[rows, :frames] - index * width))
    assert float(together.contrastive) == pytest.approx(sum(float(losses.contrastive) for losses in alone), rel=1e-5)
    assert together.frames == sum(losses.frames for losses in alone)


@pytest.mark.parametrize("changes", [{}, CONFORMER], ids=["wav2vec2", "conformer"])
def test_padded_frames_influence_neither_losses_nor_gradients(changes: dict[str, Any]) -> None:
    model = PretrainingModel(small_model(**changes), wave=False).train()
    frames = [40, 22]
    masked, negatives = draws(frames)
    valid = valid_mask(frames, CPU)
    assert valid is not None
    found = []
    for filling in (0.0, 50.0):
        normed = torch.randn(2, 40, 16, generator=torch.Generator().manual_seed(0))
        normed[1, 22:] = filling
        model.zero_grad()
        with drawn_from(5, device=CPU):
            hidden = model.transformed(normed, masked, valid, torch.float32)
            losses = pretraining_losses(model.model, hidden, normed, masked, negatives)
        torch.autograd.backward(losses.loss)
        gradients = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
        found.append((losses, {name: gradient.clone() for name, gradient in gradients.items()}))
    (first, first_gradients), (second, second_gradients) = found
    assert first.loss.item() == pytest.approx(second.loss.item(), rel=1e-6)
    assert float(first.perplexity) == pytest.approx(float(second.perplexity), rel=1e-6)
    assert len(first_gradients) > 20
    for name, gradient in first_gradients.items():
        torch.testing.assert_close(gradient, second_gradients[name], rtol=1e-4, atol=1e-5)


@settings(max_examples=30)
@given(st.lists(st.integers(10, 90), min_size=1, max_size=6), st.integers(0, 1000))
def test_masks_lie_in_the_utterance_and_negatives_among_its_other_masked_frames(frames: list[int], seed: int) -> None:
    with drawn_from(seed, device=CPU):
        masked = draw_mask(frames, share=0.3, span=10, spans=1)
        negatives = draw_negatives(masked, 5)
    width = max(frames)
    assert masked.shape == (len(frames), width)
    for index, count in enumerate(frames):
        assert not masked[index, count:].any()
        positions = masked[index].nonzero()[:, 0]
        assert len(positions) >= 10
        drawn = negatives[index][masked[index]] - index * width
        assert set(drawn.flatten().tolist()) <= set(positions.tolist())
        assert not (drawn == positions[:, None]).any()


def test_draws_depend_on_the_seed_only_and_leave_global_generators_alone() -> None:
    def drawn(*seed: int) -> tuple[list[float], list[float]]:
        with drawn_from(*seed, device=CPU):
            return torch.rand(3).tolist(), np.random.rand(3).tolist()  # noqa: NPY002

    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = torch.rand(2).tolist(), np.random.rand(2).tolist()  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    first = drawn(0, 7)
    assert (torch.rand(2).tolist(), np.random.rand(2).tolist()) == expected  # noqa: NPY002
    assert drawn(0, 7) == first
    assert drawn(0, 8) != first
    assert drawn(1, 7) != first


def test_accuracy_is_the_share_of_frames_nearest_to_their_own_code() -> None:
    model = small_model(proj_codevector_dim=16, codevector_dim=16).eval()
    masked = torch.ones(1, 12, dtype=torch.bool)
    with drawn_from(0, device=CPU):
        negatives = draw_negatives(masked, 11)
    normed = torch.randn(1, 12, 16, generator=torch.Generator().manual_seed(2)) * 5
    codes = model.quantizer(normed)[0]
    wanted = model.project_q(codes)  # the output of the Transformer that would be right for every frame
    model.project_hid = torch.nn.Identity()
    assert float(pretraining_losses(model, wanted, normed, masked, negatives).accuracy) == 1.0
    assert float(pretraining_losses(model, -wanted, normed, masked, negatives).accuracy) < 0.5
