"""Adam over a stack of models, each with a learning rate and a weight decay of its own."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

CLIP_EPSILON = 1e-6  # that of torch's `clip_grad_norm_`


class StackedAdam:
    """``adamw`` or ``adam`` over parameters with a row per model.

    The moments are torch's own: its AdamW, at rate 1, leaves the step that each parameter is to take, and the rates
    of the models scale it.

    Args:
        rows: parameters, ``(models, columns)``; changed in place.
        name: ``adamw`` decays weights apart from their gradient, ``adam`` adds L2 to it.
        weight_decay: of each model, ``(models,)``.
    """

    def __init__(self, rows: Tensor, *, name: str, weight_decay: Tensor) -> None:
        self.rows, self.name, self.weight_decay = rows, name, weight_decay
        self._decays = bool((weight_decay > 0).any())
        self._start(torch.zeros_like(rows))

    def step(self, gradient: Tensor, rates: Tensor, decayed: Iterable[slice]) -> None:
        """Takes one step.

        Args:
            gradient: by row, ``(models, columns)``; may be changed.
            rates: learning rate of each model, ``(models,)``.
            decayed: columns whose weights decay.
        """
        spans = list(decayed) if self._decays else []
        if self.name == "adam":
            for span in spans:
                gradient[:, span].addcmul_(self.rows[:, span], self.weight_decay[:, None])
        self._taken.grad = gradient
        self._adam.step()
        if self.name == "adamw":
            for span in spans:
                weights = self.rows[:, span]
                weights.addcmul_(weights, -(rates * self.weight_decay)[:, None])
        self.rows.addcmul_(self._taken, rates[:, None])

    def keep(self, rows: Tensor, places: Sequence[int]) -> None:
        """Goes on with some of the models; `rows` are their parameters."""
        kept = torch.tensor(places, device=rows.device)
        state = self._adam.state[self._taken]
        self.rows, self.weight_decay = rows, self.weight_decay[kept]
        self._start(torch.zeros_like(rows))
        self._adam.state[self._taken] = {name: one[kept] if one.ndim else one for name, one in state.items()}

    def _start(self, taken: Tensor) -> None:
        self._taken = taken
        fused = taken.device.type in {"cpu", "cuda"}
        # rate 1 and decay 1 leave nothing of the step before
        self._adam = torch.optim.AdamW([taken], lr=1.0, weight_decay=1.0, fused=fused)


def clip_rows(gradient: Tensor, clip: Tensor) -> None:
    """Scales each row down to a norm of at most `clip`, ``(models,)``, in place; 0 for no clipping."""
    norms = torch.linalg.vector_norm(gradient, dim=1)
    scale = (clip / (norms + CLIP_EPSILON)).clamp(max=1)
    gradient.mul_(torch.where(clip > 0, scale, 1)[:, None])
