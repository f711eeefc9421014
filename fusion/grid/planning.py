"""From fields to combinations that can be trained; those that cannot are left out with their reason."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cache.errors import MmerError
from cache.joined import AnyCache
from fusion.experiment import Experiment
from fusion.grid.models import Combination, Fields, Model, told
from fusion.plan import plan_run


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A combination that cannot be trained.

    Attributes:
        fields: what it sets, by axis.
        reason: why it cannot.
    """

    fields: Fields
    reason: str

    def __str__(self) -> str:
        return f"{told(self.fields)}: {self.reason}"


def plan_combinations(
    every: Sequence[Fields], experiment_of: Callable[[Fields], Experiment], cache: AnyCache
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


def told_by_reason(skipped: Sequence[Skipped]) -> list[str]:
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
        f"skipped: {told(alike[0].fields)}{f' and {len(alike) - 1} more' if alike[1:] else ''}: {reason}"
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
