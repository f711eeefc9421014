"""Report of a grid: tables, plots, and a JSON object for programs."""

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
from fusion.grid.report.ablation import Ablation, ablation_table, as_latex, write_ablation
from fusion.grid.report.export import grid_json, write_csv
from fusion.grid.report.tables import Table, count_text, fold_table, grid_table, summary_lines
from fusion.grid.selection import Ranked, rank
from fusion.grid.session import GridResults
from fusion.run.folder import RESULTS, Folder

REPORTS = "grids"  # below the journal: a folder for each set of combinations


@dataclass(frozen=True, kw_only=True, eq=False)
class GridReport:
    """The report of a grid.

    Attributes:
        folder: folder of the files.
        results: results of the grid.
        ranked: the combinations in the order of their rank.
        axes: names of all fields that a combination sets.
        ranking: table of the combinations.
        folds: table of the folds.
        lines: lines to print below the tables.
        json: the object that ``mmer-grid --json`` prints.
        ablation: table of the combinations in comparison with the first one.
    """

    folder: Folder
    results: GridResults
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

    def write(self, pictures: str = "png") -> None:
        """Writes tables and plots.

        Args:
            pictures: format of the plots: ``png``, ``svg`` or ``pdf``.

        Raises:
            MmerError: if a file cannot be written.
        """
        from fusion.grid.report.plots import plot_grid

        results, folder, task = self.results, self.folder, self.results.task
        write_csv(folder, self.ranked, results.scores, self.axes, results.winners, task=task)
        write_ablation(folder, self.ablation)
        plot_grid(folder, self.ranked, self.axes, results.monitor, task, scores=results.scores, kind=pictures)
        folder.write(RESULTS, self.json)


def grid_report(results: GridResults, journal: Journal, cache: AnyCache, *, engine: str) -> GridReport:
    """Builds the report of a grid; writes nothing.

    Args:
        results: results of the grid.
        journal: journal of the grid; the report belongs below its folder.
        cache: the cache of the grid.
        engine: name of the engine that trained the models.
    """
    plan, task, scores, winners = results.plan, results.task, results.scores, results.winners
    combinations = [combination.fields for combination in results.combinations]
    folds = [fold.name for fold in plan.split.folds]
    ranked = rank(combinations, scores, results.monitor, folds=folds, task=task)
    axes = list(dict.fromkeys(name for fields in combinations for name in fields))
    folder = Folder(journal.path / REPORTS / _digest(results))
    seconds = round(results.seconds, 3)
    scores_json = grid_json(ranked, scores, winners, engine=engine, seconds=seconds, task=task)
    return GridReport(
        folder=folder,
        results=results,
        ranked=ranked,
        axes=axes,
        ranking=grid_table(ranked, axes, winners, task),
        folds=fold_table(ranked, scores, winners, task),
        lines=[
            *summary_lines(ranked, scores, winners, task),
            _interval_text(results.interval, task),
            *plan.notes,
            *results.notes,
            *skipped_by_reason(results.skipped),
            f"{folder.path}: tables and pictures; {engine}; {results.seconds:.1f} s",
        ],
        json=scores_json | _provenance(results, cache, folder),
        ablation=ablation_table(ranked, _title(results, cache), task=task),
    )


def _provenance(results: GridResults, cache: AnyCache, folder: Folder) -> dict[str, Any]:
    """Returns the keys of the JSON object that describe the experiment."""
    plan = results.plan
    return {
        "fusion": plan.experiment.fusion,
        "cache": str(cache.path),
        "protocol": plan.split.protocol,
        "labels": list(plan.inputs.classes),
        "seeds": list(plan.experiment.seeds),
        "monitor": results.monitor,
        "nested_interval": {name: None if ends is None else list(ends) for name, ends in results.interval.items()},
        "skipped": [{"config": dict(skipped.fields), "reason": skipped.reason} for skipped in results.skipped],
        "run": str(folder.path),
    }


def _title(results: GridResults, cache: AnyCache) -> str:
    plan = results.plan
    counts = [
        f"{len(plan.inputs.classes)} classes",
        count_text(len(plan.split.folds), "fold"),
        count_text(len(plan.experiment.seeds), "seed"),
    ]
    return f"{plan.experiment.fusion} on {corpus_of(cache)}, {plan.split.protocol}, {', '.join(counts)}"


def _digest(results: GridResults) -> str:
    """Returns a digest of the combinations and seeds, so that each set has a report folder of its own."""
    plan = results.plan
    texts = [fields_text(combination.fields) for combination in results.combinations]
    return digest_of([plan.identity["fusion"], plan.split.protocol, texts, list(plan.experiment.seeds)])[:8]


def _interval_text(interval: Mapping[str, Interval | None], task: Task) -> str:
    known = [(score, ends) for score in task.scores if (ends := interval[score.name])]
    ranges = [f"{score.title} {score.text(ends[0])}-{score.text(ends[1])}" for score, ends in known]
    return f"95% interval of the nested score, pooled over folds: {', '.join(ranges) or 'none, of a single cluster'}"
