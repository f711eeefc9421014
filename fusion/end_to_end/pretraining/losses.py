"""Losses of wav2vec 2.0: contrastive and diversity loss, and the masks and negatives that they are computed over.

Source: Baevski et al., 2020, arXiv:2006.11477, section 3.2. Masks and negatives are those of Hugging Face's functions,
and the losses equal those of ``Wav2Vec2ForPreTraining`` for the same mask and negatives. Only masked frames enter the
losses: similarities are computed once for each pair of masked frames instead of once for each negative.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices


@dataclass(frozen=True, kw_only=True)
class PretrainingLosses:
    """The losses of a batch, as sums over its masked frames.

    Attributes:
        loss: contrastive loss plus the weighted diversity loss.
        contrastive: contrastive loss.
        diversity: diversity loss, not weighted.
        perplexity: perplexity of the code vectors over the masked frames, summed over groups.
        accuracy: share of masked frames that are nearest to their own code vector.
        frames: number of masked frames.
    """

    loss: Tensor
    contrastive: Tensor
    diversity: Tensor
    perplexity: Tensor
    accuracy: Tensor
    frames: int


def draw_mask(frames: Sequence[int], *, share: float, span: int, spans: int) -> Tensor:
    """Draws the masked frames of a batch by Hugging Face's function; padding is never masked.

    Args:
        frames: number of frames of each utterance, each at least `span`.
        share: expected share of masked frames before spans overlap.
        span: number of frames in a span.
        spans: least number of spans in an utterance.

    Returns:
        True where a frame is masked, bool ``(batch, frames)``.
    """
    width = max(frames)
    valid = torch.arange(width) < torch.tensor(frames)[:, None]
    attention: Any = valid.long()
    drawn = _compute_mask_indices((len(frames), width), share, span, attention_mask=attention, min_masks=spans)
    # Hugging Face fills up the spans of a short utterance with a frame of the padding.
    return torch.from_numpy(drawn) & valid


def draw_negatives(masked: Tensor, count: int) -> Tensor:
    """Draws the distractors of each masked frame from the other masked frames of its utterance.

    Args:
        masked: True where a frame is masked, bool ``(batch, frames)``; at least two in each utterance.
        count: number of distractors.

    Returns:
        Positions in the flattened batch, int64 ``(batch, frames, count)``; meaningless where a frame is not masked.
    """
    shape = (int(masked.shape[0]), int(masked.shape[1]))
    return torch.from_numpy(_sample_negative_indices(shape, count, mask_time_indices=masked.numpy())).long()


def pretraining_losses(
    model: Any,
    hidden: Tensor,
    normed: Tensor,
    masked: Tensor,
    negatives: Tensor,
    *,
    diversity_weight: float | None = None,
) -> PretrainingLosses:
    """Computes the losses of a batch in float32.

    In training mode the code vectors are drawn by the Gumbel softmax, and the perplexity is of the probabilities; in
    eval mode the nearest code vector counts for both.

    Args:
        model: Hugging Face's model for pre-training.
        hidden: output of its Transformer for masked input, ``(batch, frames, dim)``.
        normed: layer-normed convolutional features, ``(batch, frames, conv_dim)``.
        masked: True where a frame is masked, bool ``(batch, frames)``.
        negatives: distractors of each frame as positions in the flattened batch, int64 ``(batch, frames, count)``.
        diversity_weight: weight of the diversity loss; None for the weight of the model's configuration.
    """
    predicted = model.project_hid(hidden[masked].float())  # (masked, dim)
    codes, distribution = _code_probabilities(model.quantizer, model.dropout_features(normed), masked)
    groups, size = model.quantizer.num_groups, model.quantizer.num_vars
    vectors = model.quantizer.codevectors.view(groups, size, -1)
    quantized = model.project_q(torch.einsum("ngv,gvd->ngd", codes, vectors).flatten(1))  # (masked, dim)
    rows = (masked.flatten().cumsum(dim=0) - 1)[negatives[masked]]  # (masked, count), among masked frames
    same = (codes.argmax(dim=-1)[rows] == codes.argmax(dim=-1)[:, None]).all(dim=-1)
    logits = _similarities(predicted, quantized, rows, same) / model.config.contrastive_logits_temperature
    targets = torch.zeros(len(logits), dtype=torch.long, device=logits.device)  # the frame itself comes first
    contrastive = functional.cross_entropy(logits, targets, reduction="sum")
    mean = distribution.mean(dim=0)  # (groups, codes)
    perplexity = torch.exp(-torch.xlogy(mean, mean).sum(dim=-1)).sum()
    diversity = (groups * size - perplexity) / (groups * size) * len(logits)
    weight = model.config.diversity_loss_weight if diversity_weight is None else diversity_weight
    return PretrainingLosses(
        loss=contrastive + weight * diversity,
        contrastive=contrastive.detach(),
        diversity=diversity.detach(),
        perplexity=perplexity.detach(),
        accuracy=(logits.detach().argmax(dim=1) == 0).float().mean(),
        frames=len(logits),
    )


def _code_probabilities(quantizer: Any, features: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
    """Computes the selected code vectors and their distribution at masked frames, each ``(masked, groups, codes)``."""
    scores = quantizer.weight_proj(features).float()  # (batch, frames, groups * codes)
    shape = (*scores.shape[:2], quantizer.num_groups, quantizer.num_vars)
    if not quantizer.training:
        chosen = scores.view(shape)[masked].argmax(dim=-1)
        hard = functional.one_hot(chosen, quantizer.num_vars).float()
        return hard, hard
    # Noise of every frame is drawn, as in Hugging Face's model, so that equal seeds give equal losses.
    drawn = functional.gumbel_softmax(scores.view(-1, quantizer.num_vars), tau=quantizer.temperature, hard=True)
    return drawn.view(shape)[masked], scores.view(shape)[masked].softmax(dim=-1)


def _similarities(predicted: Tensor, quantized: Tensor, rows: Tensor, same: Tensor) -> Tensor:
    """Computes the similarity of each masked frame to its own code vector and to its distractors.

    Args:
        predicted: projected output of the Transformer, ``(masked, dim)``.
        quantized: projected code vectors, ``(masked, dim)``.
        rows: distractors of each masked frame, among the masked frames, int64 ``(masked, count)``.
        same: True for distractors with the code vector of the frame itself, which do not count.

    Returns:
        Cosines, the own first, ``(masked, 1 + count)``; minus infinity for distractors that do not count.
    """
    similarity = functional.normalize(predicted, dim=-1) @ functional.normalize(quantized, dim=-1).T
    others = similarity.gather(1, rows).masked_fill(same, float("-inf"))
    return torch.cat([similarity.diagonal()[:, None], others], dim=1)
