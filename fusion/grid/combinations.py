"""From fields to combinations that can be trained; those that cannot are left out with their reason.

What a grid trains: combinations of fields, each on every fold and with every seed, and what came of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from cache.errors import MmerError
from cache.joined import AnyCache
from fusion.experiment.experiment import Experiment
from fusion.experiment.plan import RunPlan, plan_run
from fusion.fingerprint import digest_of
from fusion.protocols.folds import Fold
from fusion.training.config import TrainConfig
from fusion.training.loop import TrainedModel

FieldValues = Mapping[str, object]


@dataclass(frozen=True, kw_only=True, eq=False)
class Combination:
    """One combination of a grid.

    Attributes:
        fields: what it sets, by axis.
        plan: of the run that it alone would be.
    """

    fields: FieldValues
    plan: RunPlan


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A combination on one fold, with one seed."""

    combination: Combination
    fold: Fold
    seed: int

    @cached_property
    def key(self) -> str:
        """What decides its weights and scores, as a digest: no two grids train it twice."""
        described = {**self.combination.plan.identity_without_defaults, "seeds": [self.seed]}
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
        return f"{fields_text(self.combination.fields)}, fold {self.fold.name}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelOutcome:
    """What came of training a model.

    Attributes:
        model: that was trained.
        trained: what training gave; None where it failed.
        failure: why it failed, empty where it did not.
        notes: of the head on this fold.
    """

    model: Model
    trained: TrainedModel | None = None
    failure: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelScores:
    """What the journal holds of a model, as selection and tables see it.

    Attributes:
        combination: place among those of the grid.
        fold: its name.
        seed: of the model.
        dev: scores of the chosen epoch by metric (``wa``, ``ua``, ``wf1``, ``mf1``, ``loss``); empty where training
            failed. An older version knew no ``mf1``.
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


def fields_text(fields: FieldValues) -> str:
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


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A combination that cannot be trained.

    Attributes:
        fields: what it sets, by axis.
        reason: why it cannot.
    """

    fields: FieldValues
    reason: str

    def __str__(self) -> str:
        return f"{fields_text(self.fields)}: {self.reason}"


def plan_combinations(
    every: Sequence[FieldValues], experiment_of: Callable[[FieldValues], Experiment], cache: AnyCache
) -> tuple[list[Combination], list[Skipped]]:
    """Plans each combination as a run of its own.

    Args:
        every: what each sets.
        experiment_of: gives the run that a combination would be alone.
        cache: what they read.

    Returns:
        Those that can be trained, and those that cannot.
    """
    planned, skipped = [], []
    for fields in every:
        try:
            planned.append(Combination(fields=fields, plan=plan_run(experiment_of(fields), cache)))
        except MmerError as error:
            skipped.append(Skipped(fields=fields, reason=str(error)))
    return planned, skipped


def check_any(planned: Sequence[Combination], skipped: Sequence[Skipped]) -> None:
    """Checks that something is left to train.

    Raises:
        MmerError: if no combination can be trained, with the reason of the first.
    """
    if not planned:
        raise MmerError(f"none of the {len(skipped)} combinations can be trained; the first: {skipped[0]}")


def skipped_by_reason(skipped: Sequence[Skipped]) -> list[str]:
    """Tells what was left out, a line for each reason.

    Example:
        >>> lines = told_by_reason([Skipped(fields={"lr": lr}, reason="no") for lr in (-1, -2)])
        >>> lines
        ['skipped: lr=-1 and 1 more: no']
    """
    by_reason: dict[str, list[Skipped]] = {}
    for one in skipped:
        by_reason.setdefault(one.reason, []).append(one)
    return [
        f"skipped: {fields_text(alike[0].fields)}{f' and {len(alike) - 1} more' if alike[1:] else ''}: {reason}"
        for reason, alike in by_reason.items()
    ]


def models_of(combination: Combination, *, folds: Sequence[str] = ()) -> list[Model]:
    """Gives the models of a combination: one for each fold and seed.

    Args:
        combination: that was planned.
        folds: names of those wanted; all if empty.
    """
    plan = combination.plan
    return [
        Model(combination=combination, fold=fold, seed=seed)
        for fold in plan.split.folds
        if not folds or fold.name in folds
        for seed in plan.experiment.seeds
    ]
