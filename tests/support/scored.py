"""Results of a grid, without anything trained."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fusion.grid.combinations import FieldValues, ModelScores
from fusion.grid.selection import Ranked, rank

FOLDS = ("1", "2")
AXES = ("lr", "global_aware")
COMBINATIONS: Sequence[FieldValues] = (
    {"lr": 1e-4, "global_aware": True},
    {"lr": 1e-3, "global_aware": True},
    {"lr": 1e-3},
    {"lr": 0.5, "global_aware": False},
    {"lr": 1.0, "global_aware": False},
)
# By combination, on each fold; 1 wins the first fold and 0 the second.
DEV: Mapping[int, Sequence[float | None]] = {
    0: (0.5, 0.6),
    1: (0.7, 0.55),
    2: (0.6, 0.58),
    3: (0.9, None),
    4: (None, None),
}


def result(
    combination: int, fold: str, dev: float | None, test: float | None = None, *, seed: int = 0, failure: str = ""
) -> ModelScores:
    """One model; the loss is what its other scores lack."""
    return ModelScores(
        combination=combination,
        fold=fold,
        seed=seed,
        dev={} if dev is None else {"wa": dev, "ua": dev / 2, "wf1": dev, "mf1": dev / 4, "loss": 1 - dev},
        epoch=0 if dev is None else 3,
        seconds=1.5,
        failure=failure,
        test=None if test is None else {"wa": test, "ua": test / 2, "wf1": test, "mf1": test / 4},
    )


def diverged(combination: int, fold: str, *, seed: int = 0) -> ModelScores:
    failure = f"the loss total is nan in batch 7 of epoch {combination}"
    return result(combination, fold, None, seed=seed, failure=failure)


def grid(dev: Mapping[int, Sequence[float | None]] = DEV, folds: Sequence[str] = FOLDS) -> list[ModelScores]:
    """Results with one seed, by combination and fold; None where training diverged."""
    return [
        diverged(place, fold) if score is None else result(place, fold, score)
        for place, scores in dev.items()
        for fold, score in zip(folds, scores, strict=True)
    ]


def opened(results: Sequence[ModelScores], winners: Mapping[str, int] | None = None) -> list[ModelScores]:
    """Opens the tests of the winners, or all of them; a test score is ten points below that of dev."""
    return [
        replace(one, test=result(0, "", 0, one.dev["wa"] - 0.1).test)
        if one.dev and (winners is None or winners[one.fold] == one.combination)
        else one
        for one in results
    ]


def ranked(results: Sequence[ModelScores], monitor: str = "wf1") -> list[Ranked]:
    places = {one.combination for one in results}
    return rank([COMBINATIONS[place] for place in sorted(places)], results, monitor)
