"""The grids that `bench_grid` has trained, and what training one of their models took."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from benchmarks.support.iemocap import BATCH, MEAN_FRAMES, MEAN_TOKENS
from fusion.experiment.experiment import Experiment
from fusion.experiment.fields import configure
from fusion.grid.combinations import FieldValues

HEAD, PROTOCOL = "rescmfa", "official"
ROLES = ("audio", "text")  # whose rows count
EPOCHS = 2  # of our arms, whose last one is measured: what models take once does not count
STEP_ROWS = BATCH * (MEAN_FRAMES + MEAN_TOKENS)  # of a batch of mean length


@dataclass(frozen=True, kw_only=True)
class Case:
    """A grid to train.

    Attributes:
        width: of features and head.
        combinations: how many.
        plain: without CTC and dropout.
        batches: of an epoch.
        device: where.
    """

    width: int
    combinations: int
    plain: bool
    batches: int
    device: str

    @property
    def fields(self) -> list[FieldValues]:
        """What each combination sets: rates, and how losses are weighed; all have the same structure."""
        lrs = [round(float(lr), 6) for lr in np.geomspace(1e-4, 1e-3, -(-self.combinations // 4))]
        fixed = {"epochs": EPOCHS, "batch_size": BATCH, "patience": EPOCHS}
        others: list[FieldValues] = [{"alpha": alpha, "dropout": rate} for alpha in (0.1, 0.3) for rate in (0.1, 0.3)]
        if self.plain:
            others = [{"alpha": 0.0, "dropout": 0.0, "weight_decay": decay} for decay in (0.0, 0.01, 0.03, 0.1)]
        every: list[FieldValues] = [{"lr": lr, **other, **fixed} for lr, other in itertools.product(lrs, others)]
        return every[: self.combinations]


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What an arm took.

    Attributes:
        models: that it trained.
        start_s: for each of them, beside its epochs: to read, to build, to keep.
        epoch_s: for an epoch of each.
        rows: of the batches of an epoch.
        losses: by model and epoch.
        peak_mb: greatest memory meanwhile.
    """

    models: int
    start_s: float
    epoch_s: float
    rows: int
    losses: Mapping[tuple[str, int], float] = field(default_factory=dict)
    peak_mb: float = 0.0

    @property
    def step_s(self) -> float:
        """For a step of one model on a batch of mean length."""
        return self.epoch_s * STEP_ROWS / self.rows


def experiment_of(fields: FieldValues) -> Experiment:
    """Gives the run that a combination would be alone."""
    head, training = configure(HEAD, fields)
    return Experiment(fusion=HEAD, head=head, training=training, protocol=PROTOCOL)
