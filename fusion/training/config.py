"""Training configuration, and the learning-rate schedule: linear warm-up, then a constant, linear or cosine shape."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fusion.evaluation.catalog import AUTO_LOSS, LOSSES, MONITORS

# Shape -> factor of the learning rate, from the share of the steps after the warm-up that are done.
SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: (1.0 + math.cos(math.pi * done)) / 2,  # Loshchilov and Hutter, 2017, arXiv:1608.03983
}
OPTIMIZERS = ("adamw", "adam")  # names of `fusion.training.optimizer.Adam`
PRECISIONS = ("float32", "bfloat16", "float16")  # keys of `fusion.training.steps.PRECISIONS`
POSITIVE = ("epochs", "batch_size", "patience", "accumulate")  # counts of at least 1
TUNING = ("audio_lr", "text_lr", "layer_decay", "accumulate", "checkpointing")  # fields of tuned encoders only
SEEDS = 2**32  # seeds are smaller: scikit-learn accepts no greater ones


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning-rate schedule of one training.

    Attributes:
        lr: maximum learning rate.
        shape: shape of the schedule after the warm-up, a key of `SCHEDULES`.
        warmup_steps: number of steps of the linear warm-up.
        steps: number of steps of the whole training without early stopping.
    """

    lr: float
    shape: str
    warmup_steps: int
    steps: int

    def rate(self, step: int) -> float:
        """Returns the learning rate of a step, counted from 0.

        Example:
            >>> linear = Schedule(lr=0.4, shape="linear", warmup_steps=2, steps=6)
            >>> [round(linear.rate(step), 3) for step in range(6)]
            [0.2, 0.4, 0.4, 0.3, 0.2, 0.1]
        """
        if step < self.warmup_steps:
            return self.lr * ((step + 1) / self.warmup_steps)
        return self.lr * SCHEDULES[self.shape]((step - self.warmup_steps) / (self.steps - self.warmup_steps))


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The configuration of a training; docs/decisions.md#training-of-frozen-heads gives the reasons of the defaults.

    Attributes:
        epochs: maximum number of epochs; early stopping may end sooner.
        batch_size: number of utterances in a batch.
        lr: maximum learning rate, reached at the end of the warm-up.
        schedule: learning-rate schedule after the warm-up: ``constant``, or ``linear`` or ``cosine`` down to 0 at the
            maximum number of epochs.
        optimizer: ``adamw`` or ``adam``.
        weight_decay: weight decay of matrices; norms, biases and other vectors do not decay. ``adam`` adds it as L2 to
            the gradient.
        warmup: share of all steps in which the learning rate rises linearly, in [0, 1).
        warmup_steps: number of steps in which the learning rate rises linearly, instead of the share; 0 for the share.
        clip: maximum norm of the gradient; 0 for no clipping.
        patience: number of epochs without a better development score before early stopping.
        monitor: development score that selects the epoch: ``wf1``, ``ua``, ``wa``, ``mf1`` or ``loss``; of dimensions,
            ``ccc`` (their default), ``mae``, ``pearson`` or ``loss``.
        loss: main loss: ``auto`` for ``cross_entropy`` of classes and ``ccc`` (1 - CCC of the batch) of dimensions; of
            dimensions also ``mse``.
        class_weights: weight each class in the loss by its inverse frequency in the training subset.
        balanced_batches: fill each batch with equally many utterances of each class; an epoch has as many batches as
            without it, so that it repeats utterances of rare classes and leaves out some of frequent ones.
        focal_gamma: exponent of the focal loss, which lowers the weight of utterances that are classified well; 0 for
            the cross entropy.
        label_smoothing: label smoothing of the cross entropy, in [0, 1).
        precision: precision of training: ``float32``, or mixed with ``bfloat16`` or ``float16``; scoring is in float32.
        seed: random seed of the model: dropout and modality dropout.
        data_seed: random seed of folds, development subsets and the order of batches.
        audio_lr: maximum learning rate of a tuned encoder of speech; 0 keeps it as it is.
        text_lr: maximum learning rate of a tuned encoder of text; 0 keeps it as it is.
        layer_decay: factor, in (0, 1], between the learning rates of neighboring layers of a tuned encoder, top to
            bottom.
        accumulate: number of pieces in which a batch goes through tuned encoders; memory holds the activations of one
            piece, while the head and its losses see the whole batch.
        checkpointing: compute the activations of a tuned encoder again in the backward pass instead of keeping them.
        refit: train each fold once more on train and dev, for the median best epoch of the folds of its seed; the
            second model is scored. Of `mmer-train` and `mmer-finetune` only.
    """

    epochs: int = 100
    batch_size: int = 32
    lr: float = 3e-4
    schedule: str = "constant"
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    warmup: float = 0.05
    warmup_steps: int = 0
    clip: float = 1.0
    patience: int = 10
    monitor: str = "wf1"
    class_weights: bool = False
    label_smoothing: float = 0.0
    precision: str = "float32"
    seed: int = 0
    data_seed: int = 0
    audio_lr: float = 1e-5
    text_lr: float = 1e-5
    layer_decay: float = 1.0
    accumulate: int = 1
    checkpointing: bool = False
    loss: str = AUTO_LOSS
    focal_gamma: float = 0.0
    balanced_batches: bool = False
    refit: bool = False

    def __post_init__(self) -> None:
        choices = {
            "optimizer": OPTIMIZERS,
            "schedule": SCHEDULES,
            "monitor": MONITORS,
            "precision": PRECISIONS,
            "loss": LOSSES,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name, least in {**dict.fromkeys(POSITIVE, 1), "seed": 0, "data_seed": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("seed", "data_seed"):
            if getattr(self, name) >= SEEDS:
                raise ValueError(f"{name} must be below {SEEDS}, got {getattr(self, name)}")
        for name in ("weight_decay", "clip", "warmup_steps", "audio_lr", "text_lr", "focal_gamma"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name, below in {"warmup": 1, "label_smoothing": 1}.items():
            if not 0 <= getattr(self, name) < below:
                raise ValueError(f"{name} must lie in [0, {below}), got {getattr(self, name)}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must lie in (0, 1], got {self.layer_decay}")
        if not self.lr > 0:
            raise ValueError(f"lr must be positive, got {self.lr}")
