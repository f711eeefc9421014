"""What a grid trains: combinations of fields, each on every fold and with every seed, and what came of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from fusion.experiment import digest_of
from fusion.members import Fold
from fusion.plan import Plan
from fusion.train_config import TrainConfig
from fusion.trainer import TrainedFold

Fields = Mapping[str, object]


@dataclass(frozen=True, kw_only=True, eq=False)
class Combination:
    """One combination of a grid.

    Attributes:
        fields: what it sets, by axis.
        plan: of the run that it alone would be.
    """

    fields: Fields
    plan: Plan


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A combination on one fold, with one seed."""

    combination: Combination
    fold: Fold
    seed: int

    @cached_property
    def key(self) -> str:
        """What decides its weights and scores, as a digest: no two grids train it twice."""
        described = {**self.combination.plan.decides, "seeds": [self.seed]}
        described.pop("recipe")  # sets fields, and decides nothing else
        described["folds"] = described["folds"][self.fold.name]
        return digest_of(described)

    @property
    def training(self) -> TrainConfig:
        """How it is trained."""
        return replace(self.combination.plan.experiment.training, seed=self.seed)

    @property
    def name(self) -> str:
        """Tells it apart for people."""
        return f"{told(self.combination.fields)}, fold {self.fold.name}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What came of training a model.

    Attributes:
        model: that was trained.
        trained: what training gave; None where it failed.
        failure: why it failed, empty where it did not.
        notes: of the head on this fold.
    """

    model: Model
    trained: TrainedFold | None = None
    failure: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the journal holds of a model, as selection and tables see it.

    Attributes:
        combination: place among those of the grid.
        fold: its name.
        seed: of the model.
        dev: scores of the chosen epoch by metric (``wa``, ``ua``, ``wf1``, ``loss``); empty where training failed.
        epoch: the chosen one, counted from 1; 0 where training failed.
        seconds: of training.
        failure: why training failed, empty where it did not.
        test: scores by metric; None while the test part is closed to this model.
    """

    combination: int
    fold: str
    seed: int
    dev: Mapping[str, float]
    epoch: int
    seconds: float
    failure: str = ""
    test: Mapping[str, float] | None = None


def told(fields: Fields) -> str:
    """Writes fields as on the command line.

    Example:
        >>> told({"lr": 0.001, "global_aware": False}), told({})
        ('lr=0.001 global_aware=false', 'defaults')
    """
    return " ".join(f"{name}={value_text(value)}" for name, value in fields.items()) or "defaults"


def value_text(value: object) -> str:
    """Writes a value as on the command line.

    Example:
        >>> value_text(True), value_text(3e-4), value_text(None)
        ('true', '0.0003', 'none')
    """
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
