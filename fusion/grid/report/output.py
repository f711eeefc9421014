"""Everything that a grid leaves beside its journal: tables, pictures, and one object for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cache.joined import AnyCache
from fusion.evaluation.statistics import Interval
from fusion.evaluation.task import Task
from fusion.experiment.streams import corpus_of
from fusion.fingerprint import digest_of
from fusion.grid.combinations import fields_text, skipped_by_reason
from fusion.grid.journal import Journal
from fusion.grid.report.ablation import Ablation, ablation, as_latex, write_ablation
from fusion.grid.report.export import grid_json, write_csv
from fusion.grid.report.tables import Table, counted, fold_table, grid_table, sentences
from fusion.grid.selection import Ranked, rank
from fusion.grid.session import GridResults
from fusion.run.folder import RESULTS, Folder

REPORTS = "grids"  # folder of the journal, with one folder for each set of combinations


@dataclass(frozen=True, kw_only=True, eq=False)
class GridReport:
    """What a grid says.

    Attributes:
        folder: where it is written.
        found: what the grid found.
        ranked: its combinations.
        axes: what they differ in, and what all of them set.
        ranking: header and rows of the combinations.
        folds: header and rows of the folds.
        lines: to print below the tables.
        json: what ``mmer-grid --json`` prints.
        ablation: the combinations beside the first of them.
    """

    folder: Folder
    found: GridResults
    ranked: Sequence[Ranked]
    axes: Sequence[str]
    ranking: Table
    folds: Table
    lines: Sequence[str]
    json: dict[str, Any]
    ablation: Ablation

    @property
    def latex(self) -> str:
        """The ablation table in LaTeX."""
        return as_latex(self.ablation)

    def write(self) -> None:
        """Writes tables and pictures.

        Raises:
            MmerError: if they cannot be written.
        """
        from fusion.grid.report.plots import plot_grid  # here: matplotlib takes a second to import

        found, folder = self.found, self.folder
        task = task_of_grid(found)
        write_csv(folder, self.ranked, found.results, self.axes, found.winners, task=task)
        write_ablation(folder, self.ablation)
        plot_grid(folder, self.ranked, self.axes, monitor_of(found), task)
        folder.write(RESULTS, self.json)


def grid_report(found: GridResults, journal: Journal, cache: AnyCache, *, engine: str) -> GridReport:
    """Tells what a grid found.

    Args:
        found: by the grid.
        journal: below which the report goes.
        cache: that was read.
        engine: that trained the models.
    """
    plan, task = found.combinations[0].plan, task_of_grid(found)
    every = [one.fields for one in found.combinations]
    folds = [fold.name for fold in plan.split.folds]
    ranked = rank(every, found.results, monitor_of(found), folds=folds, task=task)
    axes = list(dict.fromkeys(name for fields in every for name in fields))
    folder = Folder(journal.path / REPORTS / _digest(found))
    seconds = round(found.seconds, 3)
    plain = grid_json(ranked, found.results, found.winners, engine=engine, seconds=seconds, task=task)
    return GridReport(
        folder=folder,
        found=found,
        ranked=ranked,
        axes=axes,
        ranking=grid_table(ranked, axes, found.winners, task),
        folds=fold_table(ranked, found.results, found.winners, task),
        lines=[
            *sentences(ranked, found.results, found.winners, task),
            _interval_text(found.interval, task),
            *plan.notes,
            *found.notes,
            *skipped_by_reason(found.skipped),
            f"{folder.path}: tables and pictures; {engine}; {found.seconds:.1f} s",
        ],
        json=plain | _beside(found, cache, folder),
        ablation=ablation(ranked, _title(found, cache), task=task),
    )


def monitor_of(found: GridResults) -> str:
    """Names the dev score that a grid chose by: that of its first combination."""
    return found.combinations[0].plan.experiment.training.monitor


def task_of_grid(found: GridResults) -> Task:
    """Returns the task that all combinations of a grid share."""
    return found.combinations[0].plan.task


def _beside(found: GridResults, cache: AnyCache, folder: Folder) -> dict[str, Any]:
    plan = found.combinations[0].plan
    return {
        "fusion": plan.experiment.fusion,
        "cache": str(cache.path),
        "protocol": plan.split.protocol,
        "labels": list(plan.inputs.classes),
        "seeds": list(plan.experiment.seeds),
        "monitor": monitor_of(found),
        "nested_interval": {name: None if ends is None else list(ends) for name, ends in found.interval.items()},
        "skipped": [{"config": dict(one.fields), "reason": one.reason} for one in found.skipped],
        "run": str(folder.path),
    }


def _title(found: GridResults, cache: AnyCache) -> str:
    plan = found.combinations[0].plan
    counts = [
        f"{len(plan.inputs.classes)} classes",
        counted(len(plan.split.folds), "fold"),
        counted(len(plan.experiment.seeds), "seed"),
    ]
    return f"{plan.experiment.fusion} on {corpus_of(cache)}, {plan.split.protocol}, {', '.join(counts)}"


def _digest(found: GridResults) -> str:
    """Names the set of combinations and seeds, so that the report of another set does not take its place."""
    plan = found.combinations[0].plan
    texts = [fields_text(one.fields) for one in found.combinations]
    return digest_of([plan.identity["fusion"], plan.split.protocol, texts, list(plan.experiment.seeds)])[:8]


def _interval_text(interval: Mapping[str, Interval | None], task: Task) -> str:
    known = [(score, ends) for score in task.scores if (ends := interval[score.name])]
    ranges = [f"{score.title} {score.text(ends[0])}-{score.text(ends[1])}" for score, ends in known]
    return f"95% interval of the nested score, pooled over folds: {', '.join(ranges) or 'none, of a single cluster'}"
