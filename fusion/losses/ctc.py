"""Connectionist temporal classification (CTC) of characters (Graves et al., 2006, doi:10.1145/1143844.1143891).

CTC as an auxiliary task of emotion recognition: GCF2-Net (2023, doi:10.3389/fnins.2023.1183132), section 3.4. The paper
does not state the reduction; `mean` is the default here, and MMER, its ancestor, sums over the batch (G-10).
"""

import torch
from torch import Tensor
from torch.nn import functional

from fusion.losses.precision import in_float32

BLANK = 0  # the padding symbol of wav2vec 2.0's characters
REDUCTIONS = ("mean", "sum")


def feasible(targets: Tensor, target_mask: Tensor, frames: Tensor) -> Tensor:
    """Returns True for each utterance whose characters fit into its frames.

    An utterance needs at least one character, a frame for each character, and a frame for the blank between two equal
    characters.

    Args:
        targets: symbols, int64 ``(batch, characters)``.
        target_mask: True where a character is valid, bool ``(batch, characters)``.
        frames: number of valid frames of each utterance, int64 ``(batch,)``.

    Returns:
        Bool ``(batch,)``.

    Example:
        >>> targets = torch.tensor([[5, 5], [5, 6], [5, 6]])
        >>> feasible(targets, torch.tensor([[True, True], [True, True], [False, False]]), torch.tensor([2, 2, 2]))
        tensor([False,  True, False])
    """
    characters = target_mask.sum(dim=1)
    repeats = ((targets[:, 1:] == targets[:, :-1]) & target_mask[:, 1:]).sum(dim=1)
    return (characters > 0) & (frames >= characters + repeats)


@in_float32
def ctc_loss(logits: Tensor, mask: Tensor, targets: Tensor, target_mask: Tensor, *, reduction: str = "mean") -> Tensor:
    """Computes the negative log-likelihood of the characters.

    Utterances that are not `feasible` do not take part.

    Args:
        logits: logits of all symbols including `BLANK`, ``(batch, frames, symbols)``.
        mask: True where a frame is valid, bool ``(batch, frames)``.
        targets: symbols without blanks, int64 ``(batch, characters)``.
        target_mask: True where a character is valid, bool ``(batch, characters)``.
        reduction: ``mean`` divides each loss by its number of characters and averages over the feasible utterances;
            ``sum`` adds the losses.

    Returns:
        A scalar, 0 if no utterance is feasible.

    Raises:
        ValueError: if the reduction is unknown.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if not logits.shape[1]:
        return logits.sum()  # torch raises an error for a batch without frames
    kept = feasible(targets, target_mask, mask.sum(dim=1))
    losses = torch.where(kept, _per_utterance(logits, mask, targets, target_mask), 0)
    if reduction == "sum":
        return losses.sum()
    return (losses / target_mask.sum(dim=1).clamp(min=1)).sum() / kept.sum().clamp(min=1)


def _per_utterance(logits: Tensor, mask: Tensor, targets: Tensor, target_mask: Tensor) -> Tensor:
    losses: Tensor = functional.ctc_loss(
        logits.log_softmax(dim=-1).transpose(0, 1),
        targets.masked_fill(~target_mask, BLANK),
        mask.sum(dim=1).clamp(min=1),  # torch needs a frame; an utterance without frames is infeasible anyway
        target_mask.sum(dim=1),
        blank=BLANK,
        reduction="none",
        zero_infinity=True,
    )
    return losses
