"""Small heads and batches for the tests of GCF2-Net."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fusion.head import Batch
from fusion.head_config import AUDIO, TEXT, HeadInputs
from fusion.heads.configs.rescmfa import ResCMFAConfig
from fusion.heads.rescmfa import ResCMFA

INPUTS = HeadInputs(classes=("ang", "hap", "neu", "sad"), shapes={AUDIO: (16,), TEXT: (12,), "chars": (1,)})
SLOTS: dict[str, Any] = {"text_slots": 40, "audio_slots": 90}


def rows(generator: torch.Generator, lengths: list[int], dim: int) -> tuple[Tensor, Tensor]:
    values = torch.randn(len(lengths), max(lengths), dim, generator=generator)
    return values, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def batch_of(frames: list[int], tokens: list[int], characters: list[int]) -> Batch:
    generator = torch.Generator().manual_seed(3)
    (audio, audio_mask), (text, text_mask) = rows(generator, frames, 16), rows(generator, tokens, 12)
    chars, chars_mask = rows(generator, characters, 1)
    return Batch(
        features={AUDIO: audio, TEXT: text, "chars": (chars.abs() * 10).long() % 27 + 5},
        masks={AUDIO: audio_mask, TEXT: text_mask, "chars": chars_mask},
        labels=torch.arange(len(frames)) % 4,
        indices=torch.arange(len(frames)),
    )


def example() -> Batch:
    """Five utterances; the fourth has no transcript, the fifth more characters than frames."""
    return batch_of([30, 9, 21, 17, 8], [4, 9, 6, 2, 5], [8, 4, 6, 0, 9])


def double(batch: Batch) -> Batch:
    return replace(
        batch, features={role: x.double() if x.is_floating_point() else x for role, x in batch.features.items()}
    )


def head_of(**fields: Any) -> ResCMFA:
    """A head whose zero-initialized layers are random and whose spatial weights matter."""
    torch.manual_seed(0)
    head = ResCMFA(ResCMFAConfig(**{**SLOTS, "dropout": 0.0, **fields}), INPUTS)
    for name, parameter in head.named_parameters():
        if "outer" in name or "gate.weight" in name or "convolution.weight" in name:
            nn.init.normal_(parameter, std=0.1)
    return head


def part(batch: Batch, order: list[int]) -> Batch:
    return Batch(
        features={role: x[order] for role, x in batch.features.items()},
        masks={role: mask[order] for role, mask in batch.masks.items()},
        labels=batch.labels[order],
        indices=batch.indices[order],
    )


def alone(batch: Batch, row: int) -> Batch:
    """One utterance without its padding."""
    kept = {role: mask[row].nonzero()[:, 0] for role, mask in batch.masks.items()}
    one = part(batch, [row])
    return replace(
        one,
        features={role: x[:, kept[role]] for role, x in one.features.items()},
        masks={role: mask[:, kept[role]] for role, mask in one.masks.items()},
    )


def padded(batch: Batch) -> Batch:
    """The batch with 60 more frames, 25 more tokens and 7 more characters, and 1e3 wherever no row is valid."""
    features, masks = {}, {}
    for role, more in {AUDIO: 60, TEXT: 25, "chars": 7}.items():
        mask = nn.functional.pad(batch.masks[role], (0, more))
        signs = 1 if role == "chars" else torch.randn(mask.shape).sign()[..., None]
        longer = nn.functional.pad(batch.features[role], (0, 0, 0, more))
        features[role] = torch.where(mask[..., None], longer, 1000 * signs)
        masks[role] = mask
    return replace(batch, features=features, masks=masks)


def gradients(loss: Tensor, head: nn.Module) -> dict[str, Tensor | None]:
    named = dict(head.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values()), allow_unused=True), strict=True))
