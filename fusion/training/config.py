"""How a head is trained.

The learning rate of every step: it rises in a line during the warm-up, and then takes a course.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from fusion.evaluation.task import MONITORS
from fusion.training.steps import OPTIMIZERS

# Course -> share of the rate that is left when a share of the steps after the warm-up is done.
SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: (1.0 + math.cos(math.pi * done)) / 2,  # Loshchilov and Hutter, 2017, arXiv:1608.03983
}
PRECISIONS: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
SEEDS = 2**32  # scikit-learn draws by no greater ones


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The rates of one training.

    Attributes:
        lr: the greatest rate.
        shape: what the rate does after the warm-up, of `SCHEDULES`.
        warmup_steps: of the warm-up.
        steps: of the whole training, if nothing stops it early.
    """

    lr: float
    shape: str
    warmup_steps: int
    steps: int

    def rate(self, step: int) -> float:
        """Gives the rate of a step, counted from 0.

        Example:
            >>> linear = Schedule(lr=0.4, course="linear", warmup_steps=2, steps=6)
            >>> [round(linear.rate(step), 3) for step in range(6)]
            [0.2, 0.4, 0.4, 0.3, 0.2, 0.1]
        """
        if step < self.warmup_steps:
            return self.lr * ((step + 1) / self.warmup_steps)
        return self.lr * SCHEDULES[self.shape]((step - self.warmup_steps) / (self.steps - self.warmup_steps))


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a head is trained; the defaults are those of systems.md 1.6.

    Attributes:
        epochs: at most.
        batch_size: utterances of a batch.
        lr: greatest learning rate, reached by the warm-up.
        schedule: ``constant`` after the warm-up, or down to 0 by the last of all epochs, ``linear`` or ``cosine``.
        optimizer: ``adamw`` or ``adam``.
        weight_decay: of matrices; norms, biases and other vectors do not decay. ``adam`` adds it as L2 to the gradient.
        warmup: share of all steps over which the rate rises in a line.
        clip: greatest norm of the gradient; 0 for none.
        patience: epochs without a better dev score after which training stops.
        monitor: the dev score that decides: ``wf1``, ``ua``, ``wa``, ``mf1`` or ``loss``.
        class_weights: whether rare classes of the training part weigh more.
        label_smoothing: of the cross entropy.
        precision: ``float32``, or ``bfloat16`` or ``float16`` for what may be computed so; scoring is float32.
        seed: of the model: dropout, modality dropout.
        data_seed: of random folds, of dev parts and of the order of batches.
    """

    epochs: int = 100
    batch_size: int = 32
    lr: float = 3e-4
    schedule: str = "constant"
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    warmup: float = 0.05
    clip: float = 1.0
    patience: int = 10
    monitor: str = "wf1"
    class_weights: bool = False
    label_smoothing: float = 0.0
    precision: str = "float32"
    seed: int = 0
    data_seed: int = 0

    def __post_init__(self) -> None:
        choices = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "monitor": MONITORS, "precision": PRECISIONS}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name, least in {"epochs": 1, "batch_size": 1, "patience": 1, "seed": 0, "data_seed": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("seed", "data_seed"):
            if getattr(self, name) >= SEEDS:
                raise ValueError(f"{name} must be below {SEEDS}, got {getattr(self, name)}")
        for name in ("weight_decay", "clip"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name, below in {"warmup": 1, "label_smoothing": 1}.items():
            if not 0 <= getattr(self, name) < below:
                raise ValueError(f"{name} must lie in [0, {below}), got {getattr(self, name)}")
        if not self.lr > 0:
            raise ValueError(f"lr must be positive, got {self.lr}")
