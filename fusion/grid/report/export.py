"""What a grid says to machines: CSV files and one JSON object."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fusion.evaluation.task import CLASSIFICATION, LOSS, Task
from fusion.grid.combinations import ModelScores
from fusion.grid.report.tables import wins_of
from fusion.grid.selection import Ranked, Spread, fold_winners, nested, shows_unchosen, single_best
from fusion.run.folder import Folder

GRID_CSV, MODELS_CSV = "grid.csv", "models.csv"


def grid_json(
    ranked: Sequence[Ranked],
    results: Sequence[ModelScores],
    winners: Mapping[str, int],
    *,
    engine: str,
    seconds: float,
    task: Task = CLASSIFICATION,
) -> dict[str, Any]:
    """Gives what ``mmer-grid --json`` prints; the caller may add keys.

    Args:
        ranked: the combinations.
        results: of their models.
        winners: the place of the winning combination, by fold.
        engine: that trained them.
        seconds: that the grid took.
        task: task of the grid.
    """
    score, best = nested(results, winners, task), single_best(ranked)
    fields = {one.combination: dict(one.fields) for one in ranked}
    return {
        "rows": [_json_row(one, winners, task) for one in ranked],
        "nested": dict(score.mean),
        "nested_std": dict(score.std),
        "folds": [
            {
                "fold": one.fold,
                "config": fields[one.combination],
                "dev": _plain(one.dev, task),
                "test": _plain(one.test, task),
            }
            for one in fold_winners(results, winners)
        ],
        "winner": dict(best.fields) if best else None,
        "winner_nested": False,
        "shows_unchosen_tests": shows_unchosen(results, winners),
        "engine": engine,
        "seconds": seconds,
    }


def write_csv(
    folder: Folder,
    ranked: Sequence[Ranked],
    results: Sequence[ModelScores],
    axes: Sequence[str],
    winners: Mapping[str, int],
    *,
    task: Task = CLASSIFICATION,
) -> None:
    """Writes a file with a row for each combination, and one with a row for each of its models.

    Both count combinations from 1, in the order of the grid.

    Args:
        folder: where `GRID_CSV` and `MODELS_CSV` go.
        ranked: the combinations.
        results: of their models.
        axes: of the grid.
        winners: the place of the winning combination, by fold.
        task: task of the grid.

    Raises:
        MmerError: if they cannot be written.
    """
    columns = [*(("dev", name) for name in (*task.names, LOSS)), *(("test", name) for name in task.names)]
    names = [f"{part}_{name}" for part, name in columns]
    spread_names = [f"{name}{end}" for name in names for end in ("", "_std")]
    header = ["rank", "combination", *axes, *spread_names, "models", "of", "failures", "failure", "wins", "seconds"]
    folder.write_rows(GRID_CSV, header, (_csv_row(one, axes, winners, columns) for one in ranked))
    header = ["combination", *axes, "fold", "seed", "chosen", "epoch", "seconds", *names, "failure"]
    by_place = {one.combination: one for one in ranked}
    rows = (_model_row(one, by_place[one.combination], axes, winners, columns) for one in results)
    folder.write_rows(MODELS_CSV, header, rows)


def _plain(scores: Mapping[str, float | None] | None, task: Task) -> dict[str, float | None] | None:
    return None if scores is None else {name: scores.get(name) for name in task.names}


def _json_row(one: Ranked, winners: Mapping[str, int], task: Task) -> dict[str, Any]:
    """Gives one combination; `dev` keeps its keys where nothing was trained, JSON knows no infinite loss."""
    lacking = dict.fromkeys(task.names)
    loss = one.dev.mean[LOSS] if one.dev else math.nan
    return {
        "rank": one.rank,
        "config": dict(one.fields),
        "dev": _plain(one.dev.mean, task) if one.dev else lacking,
        "dev_std": _plain(one.dev.std, task) if one.dev else lacking,
        "dev_loss": loss if math.isfinite(loss) else None,
        "test": dict(one.test.mean) if one.test else None,
        "test_std": dict(one.test.std) if one.test else None,
        "wins": wins_of(one.combination, winners),
        "models": one.models,
        "of": one.of,
        "failures": one.failures,
        "failure": one.failure,
        "seconds": one.seconds,
    }


def _csv_row(
    one: Ranked, axes: Sequence[str], winners: Mapping[str, int], columns: Sequence[tuple[str, str]]
) -> list[object]:
    cells: list[object] = [one.rank or "", one.combination + 1, *map(one.text, axes)]
    for part, name in columns:
        scores: Spread | None = getattr(one, part)
        cells += ["", ""] if scores is None else [scores.mean.get(name, ""), scores.std.get(name, "")]
    wins = ", ".join(wins_of(one.combination, winners))
    return [*cells, one.models, one.of, one.failures, one.failure, wins, one.seconds]


def _model_row(
    one: ModelScores, of: Ranked, axes: Sequence[str], winners: Mapping[str, int], columns: Sequence[tuple[str, str]]
) -> list[object]:
    return [
        one.combination + 1,
        *map(of.text, axes),
        one.fold,
        one.seed,
        "yes" if winners.get(one.fold) == one.combination else "no",
        one.epoch,
        one.seconds,
        *((getattr(one, part) or {}).get(name, "") for part, name in columns),
        one.failure,
    ]
