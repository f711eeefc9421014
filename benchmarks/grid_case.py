"""The grids that `bench_grid` has trained, and what training one of their models took."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean

import numpy as np

from benchmarks.iemocap import BATCH, MEAN_FRAMES, MEAN_TOKENS
from fusion.configure import configure
from fusion.experiment import Experiment
from fusion.grid.models import Fields

HEAD, PROTOCOL = "rescmfa", "official"
ROLES = ("audio", "text")  # whose rows count
STEP_ROWS = BATCH * (MEAN_FRAMES + MEAN_TOKENS)  # of a batch of mean length


@dataclass(frozen=True, kw_only=True)
class Case:
    """A grid to train.

    Attributes:
        width: of features and head.
        combinations: how many.
        plain: without CTC and dropout.
        alone: models that arms without threads or stacks train; each takes as long as any other.
        batches: of an epoch.
        epochs: of each model.
        device: where.
    """

    width: int
    combinations: int
    plain: bool
    alone: int
    batches: int
    epochs: int
    device: str

    @property
    def fields(self) -> list[Fields]:
        """What each combination sets: rates, and how losses are weighed; all have the same structure."""
        lrs = [round(float(lr), 6) for lr in np.geomspace(1e-4, 1e-3, -(-self.combinations // 4))]
        fixed = {"epochs": self.epochs, "batch_size": BATCH, "patience": self.epochs}
        if self.plain:
            others = [{"alpha": 0.0, "dropout": 0.0, "weight_decay": decay} for decay in (0.0, 0.01, 0.03, 0.1)]
        else:
            others = [{"alpha": alpha, "dropout": rate} for alpha in (0.1, 0.3) for rate in (0.1, 0.3)]
        every = [{"lr": lr, **other, **fixed} for lr, other in itertools.product(lrs, others)]
        return every[: self.combinations]


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What an arm took.

    Attributes:
        models: that it trained.
        start_s: before its first step, for each of them.
        train_s: for each of them.
        rows: of the batches that each was trained on.
        losses: of the last epoch, by what the model sets.
        peak_mb: greatest memory meanwhile.
    """

    models: int
    start_s: float
    train_s: float
    rows: int
    losses: Mapping[str, float] = field(default_factory=dict)
    peak_mb: float = 0.0

    @property
    def step_s(self) -> float:
        """For a step of one model on a batch of mean length."""
        return self.train_s * STEP_ROWS / self.rows


def experiment_of(fields: Fields) -> Experiment:
    """Gives the run that a combination would be alone."""
    head, training = configure(HEAD, fields)
    return Experiment(fusion=HEAD, head=head, training=training, protocol=PROTOCOL)


def mean_of(every: Sequence[Taken]) -> Taken:
    """Sums up what models took one after another."""
    return replace(
        every[0],
        models=len(every),
        start_s=mean(one.start_s for one in every),
        train_s=mean(one.train_s for one in every),
        losses={name: loss for one in every for name, loss in one.losses.items()},
    )
