"""Combinations of a grid and their models: one for each combination, fold and seed.

A combination is planned as a run of its own; one that cannot be trained is skipped with the reason.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from cache.errors import MmerError
from cache.joined import AnyCache
from fusion.experiment.experiment import Experiment
from fusion.experiment.plan import RunPlan, Splits, check_data, plan_run
from fusion.fingerprint import digest_of
from fusion.protocols.folds import Fold
from fusion.training.config import TrainConfig

if TYPE_CHECKING:
    from fusion.training.model import TrainedModel

REFIT = (
    "refit=true: a grid selects by the dev scores of models that have not seen dev; leave it out, and pass it to "
    "mmer-train with the fields of the winner"
)
FieldValues = Mapping[str, object]  # values by axis


@dataclass(frozen=True, kw_only=True, eq=False)
class Combination:
    """A combination of a grid.

    Attributes:
        fields: the values that it sets, by axis.
        plan: plan of the run that trains this combination only.
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
        """Digest of everything that determines weights and scores; all grids of a journal share equal models."""
        identity = {**self.combination.plan.identity_without_defaults, "seeds": [self.seed]}
        identity.pop("recipe")  # a recipe only sets fields
        identity["folds"] = identity["folds"][self.fold.name]
        return digest_of(identity)

    @property
    def training(self) -> TrainConfig:
        """Training configuration with the seed of the model."""
        return replace(self.combination.plan.experiment.training, seed=self.seed)

    @property
    def name(self) -> str:
        """Name for users: fields, fold and seed."""
        return f"{fields_text(self.combination.fields)}, fold {self.fold.name}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelOutcome:
    """The outcome of training one model; it holds no plan and no cache, so that a worker can send it.

    Attributes:
        trained: weights, curves and cost; None where training failed.
        failure: why training failed, empty where it did not.
        notes: notes of the head on the fold.
    """

    trained: "TrainedModel | None" = None
    failure: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ModelScores:
    """The scores of one model, as selection and tables read them.

    Attributes:
        combination: index of the combination in the grid.
        fold: name of the fold.
        seed: seed of the model.
        dev: scores of the best epoch by metric (``wa``, ``ua``, ``wf1``, ``mf1``, ``loss``); empty where training
            failed. Version 0.1 did not write ``mf1``.
        epoch: the best epoch, counted from 1; 0 where training failed.
        seconds: training time.
        failure: why training failed, empty where it did not.
        test: scores by metric; None while the test subset is closed to this model.
    """

    combination: int
    fold: str
    seed: int
    dev: Mapping[str, float]
    epoch: int
    seconds: float
    failure: str = ""
    test: Mapping[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A combination that cannot be trained.

    Attributes:
        fields: the values that it sets, by axis.
        reason: why it cannot be trained.
    """

    fields: FieldValues
    reason: str

    def __str__(self) -> str:
        return f"{fields_text(self.fields)}: {self.reason}"


def fields_text(fields: FieldValues) -> str:
    """Formats fields as on the command line.

    Example:
        >>> fields_text({"lr": 0.001, "global_aware": False}), fields_text({})
        ('lr=0.001 global_aware=false', 'defaults')
    """
    return " ".join(f"{name}={value_text(value)}" for name, value in fields.items()) or "defaults"


def value_text(value: object) -> str:
    """Formats a value as on the command line.

    Example:
        >>> value_text(True), value_text(3e-4), value_text(None)
        ('true', '0.0003', 'none')
    """
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def plan_combinations(
    requested: Sequence[FieldValues],
    experiment_of: Callable[[FieldValues], Experiment],
    cache: AnyCache,
    splits: Splits | None = None,
) -> tuple[list[Combination], list[Skipped]]:
    """Plans each combination as a run of its own.

    Args:
        requested: the fields of each combination.
        experiment_of: returns the experiment that trains one combination only.
        cache: the cache to read.
        splits: splits of the cache that are known already.

    Returns:
        The combinations that can be trained, and those that cannot.
    """
    planned, skipped = [], []
    splits = splits or Splits(cache)
    for fields in requested:
        try:
            experiment = _without_refit(experiment_of(fields))
            planned.append(Combination(fields=fields, plan=plan_run(experiment, cache, splits)))
        except MmerError as error:
            skipped.append(Skipped(fields=fields, reason=str(error)))
    return planned, skipped


def check_trainable(
    requested: Sequence[FieldValues], experiment_of: Callable[[FieldValues], Experiment], cache: AnyCache
) -> Splits:
    """Checks that the streams, labels and folds of one combination suit the cache, before torch is imported.

    Args:
        requested: the fields of each combination.
        experiment_of: returns the experiment that trains one combination only.
        cache: the cache to read.

    Returns:
        The splits of the cache, for `plan_combinations`.

    Raises:
        MmerError: if no combination suits the cache, with the reason of the first.
    """
    skipped, splits = [], Splits(cache)
    for fields in requested:
        try:
            return check_data(_without_refit(experiment_of(fields)), cache, splits)
        except MmerError as error:
            skipped.append(Skipped(fields=fields, reason=str(error)))
    check_any([], skipped)
    return splits


def _without_refit(experiment: Experiment) -> Experiment:
    """Returns an experiment unchanged, if a grid can train it.

    Raises:
        MmerError: if it is trained twice.
    """
    if experiment.training.refit:
        raise MmerError(REFIT)
    return experiment


def check_any(planned: Sequence[Combination], skipped: Sequence[Skipped]) -> None:
    """Checks that at least one combination can be trained.

    Raises:
        MmerError: if no combination can be trained, with the reason of the first.
    """
    if not planned:
        raise MmerError(f"none of the {len(skipped)} combinations can be trained; the first: {skipped[0]}")


def skipped_by_reason(skipped: Sequence[Skipped]) -> list[str]:
    """Formats the skipped combinations, one line for each reason.

    Example:
        >>> skipped_by_reason([Skipped(fields={"lr": lr}, reason="no") for lr in (-1, -2)])
        ['skipped: lr=-1 and 1 more: no']
    """
    by_reason: dict[str, list[Skipped]] = {}
    for combination in skipped:
        by_reason.setdefault(combination.reason, []).append(combination)
    return [
        f"skipped: {fields_text(alike[0].fields)}{f' and {len(alike) - 1} more' if alike[1:] else ''}: {reason}"
        for reason, alike in by_reason.items()
    ]


def models_of(combination: Combination, *, folds: Sequence[str] = ()) -> list[Model]:
    """Returns the models of a combination, one for each fold and seed.

    Args:
        combination: a planned combination.
        folds: names of the folds; all folds if empty.
    """
    plan = combination.plan
    return [
        Model(combination=combination, fold=fold, seed=seed)
        for fold in plan.split.folds
        if not folds or fold.name in folds
        for seed in plan.experiment.seeds
    ]
