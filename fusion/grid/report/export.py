"""Results of a grid for programs: CSV files and a JSON object."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fusion.evaluation.classes import CLASSIFICATION
from fusion.evaluation.task import LOSS, Task
from fusion.grid.combinations import ModelScores
from fusion.grid.report.tables import NO_ENTRIES, Entries, folds_won
from fusion.grid.selection import (
    Ranked,
    Spread,
    fold_winners,
    nested_scores,
    shows_unselected_tests,
    single_best,
    tied_with_best,
    tied_with_winners,
)
from fusion.run.folder import Folder
from fusion.run.listing import GRID_CSV

MODELS_CSV = "models.csv"


def grid_json(
    ranked: Sequence[Ranked],
    scores: Sequence[ModelScores],
    winners: Mapping[str, int],
    *,
    engine: str,
    seconds: float,
    task: Task = CLASSIFICATION,
    monitor: str = "",
) -> dict[str, Any]:
    """Builds the scores that ``mmer-grid --json`` prints; `fusion.grid.report.output` adds further keys.

    Args:
        ranked: the combinations.
        scores: scores of their models.
        winners: index of the winning combination, by fold.
        engine: name of the engine that trained the models.
        seconds: duration of the grid.
        task: task of the grid.
        monitor: name of the dev score that selects; that of the task by default.
    """
    monitor = monitor or task.monitors[0]
    nested, best = nested_scores(scores, winners, task), single_best(ranked)
    fields = {combination.combination: dict(combination.fields) for combination in ranked}
    return {
        "rows": [_json_row(combination, winners, task) for combination in ranked],
        "nested": dict(nested.mean),
        "nested_std": dict(nested.std),
        "nested_std_seeds": dict(nested.std_seeds),
        "folds": [
            {
                "fold": winner.fold,
                "config": fields[winner.combination],
                "dev": _task_scores(winner.dev, task),
                "test": _task_scores(winner.test, task),
            }
            for winner in fold_winners(scores, winners)
        ],
        "winner": dict(best.fields) if best else None,
        "winner_nested": False,
        "ties": {
            "best": [dict(row.fields) for row in tied_with_best(ranked, monitor, task)],
            "folds": {
                fold: [fields[index] for index in equal]
                for fold, equal in tied_with_winners(scores, winners, monitor, task).items()
            },
        },
        "shows_unchosen_tests": shows_unselected_tests(scores, winners),
        "engine": engine,
        "seconds": seconds,
    }


def write_csv(
    folder: Folder,
    ranked: Sequence[Ranked],
    scores: Sequence[ModelScores],
    axes: Sequence[str],
    winners: Mapping[str, int],
    *,
    task: Task = CLASSIFICATION,
    entries: Entries = NO_ENTRIES,
) -> None:
    """Writes `GRID_CSV` with a row for each combination and `MODELS_CSV` with a row for each model.

    Both number the combinations from 1, in the order of the grid.

    Args:
        folder: folder of the files.
        ranked: the combinations.
        scores: scores of their models.
        axes: names of the axes of the grid.
        winners: index of the winning combination, by fold.
        task: task of the grid.
        entries: combination, fold and seed -> name of the model's entry in the journal.

    Raises:
        MmerError: if a file cannot be written.
    """
    columns = [*(("dev", name) for name in (*task.names, LOSS)), *(("test", name) for name in task.names)]
    names = [f"{subset}_{name}" for subset, name in columns]
    spread_names = [f"{name}{end}" for name in names for end in ("", "_std")]
    header = ["rank", "combination", *axes, *spread_names, "models", "of", "failures", "failure", "wins", "seconds"]
    folder.write_rows(GRID_CSV, header, (_combination_row(row, axes, winners, columns) for row in ranked))
    header = ["combination", *axes, "fold", "seed", "chosen", "epoch", "seconds", *names, "failure", "journal"]
    by_index = {combination.combination: combination for combination in ranked}
    rows = (
        [
            *_model_row(model, by_index[model.combination], axes, winners, columns),
            entries.get((model.combination, model.fold, model.seed), ""),
        ]
        for model in scores
    )
    folder.write_rows(MODELS_CSV, header, rows)


def _task_scores(scores: Mapping[str, float | None] | None, task: Task) -> dict[str, float | None] | None:
    return None if scores is None else {name: scores.get(name) for name in task.names}


def _json_row(row: Ranked, winners: Mapping[str, int], task: Task) -> dict[str, Any]:
    """Returns a combination as JSON: `dev` has its keys without a trained model too, an infinite loss is null."""
    missing = dict.fromkeys(task.names)
    loss = row.dev.mean[LOSS] if row.dev else math.nan
    return {
        "rank": row.rank,
        "config": dict(row.fields),
        "dev": _task_scores(row.dev.mean, task) if row.dev else missing,
        "dev_std": _task_scores(row.dev.std, task) if row.dev else missing,
        "dev_std_seeds": _task_scores(row.dev.std_seeds, task) if row.dev else missing,
        "dev_loss": loss if math.isfinite(loss) else None,
        "test": dict(row.test.mean) if row.test else None,
        "test_std": dict(row.test.std) if row.test else None,
        "test_std_seeds": dict(row.test.std_seeds) if row.test else None,
        "wins": folds_won(row.combination, winners),
        "models": row.models,
        "of": row.expected,
        "failures": row.failures,
        "failure": row.failure,
        "seconds": row.seconds,
    }


def _combination_row(
    row: Ranked, axes: Sequence[str], winners: Mapping[str, int], columns: Sequence[tuple[str, str]]
) -> list[object]:
    cells: list[object] = [row.rank or "", row.combination + 1, *map(row.text, axes)]
    for subset, name in columns:
        scores: Spread | None = getattr(row, subset)
        cells += ["", ""] if scores is None else [scores.mean.get(name, ""), scores.std.get(name, "")]
    wins = ", ".join(folds_won(row.combination, winners))
    return [*cells, row.models, row.expected, row.failures, row.failure, wins, row.seconds]


def _model_row(
    model: ModelScores,
    combination: Ranked,
    axes: Sequence[str],
    winners: Mapping[str, int],
    columns: Sequence[tuple[str, str]],
) -> list[object]:
    return [
        model.combination + 1,
        *map(combination.text, axes),
        model.fold,
        model.seed,
        "yes" if winners.get(model.fold) == model.combination else "no",
        model.epoch,
        model.seconds,
        *((getattr(model, subset) or {}).get(name, "") for subset, name in columns),
        model.failure,
    ]
