"""Everything that a grid leaves beside its journal: tables, pictures, and one object for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cache.joined import AnyCache
from fusion.evaluation.statistics import Interval
from fusion.experiment.streams import corpus_of
from fusion.fingerprint import digest_of
from fusion.grid.combinations import told, told_by_reason
from fusion.grid.journal import Journal
from fusion.grid.report.ablation import Ablation, ablation, as_latex, write_ablation
from fusion.grid.report.export import grid_json, write_csv
from fusion.grid.report.tables import NAMES, Table, counted, fold_table, grid_table, sentences
from fusion.grid.selection import Ranked, rank
from fusion.grid.session import Found
from fusion.run.folder import RESULTS, RunFolder
from fusion.run.results import percent

REPORTS = "grids"  # folder of the journal, with one folder for each set of combinations


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
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

    folder: RunFolder
    found: Found
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
        write_csv(folder, self.ranked, found.results, self.axes, found.winners)
        write_ablation(folder, self.ablation)
        plot_grid(folder, self.ranked, self.axes, monitor_of(found))
        folder.write(RESULTS, self.json)


def report_of(found: Found, journal: Journal, cache: AnyCache, *, engine: str) -> Report:
    """Tells what a grid found.

    Args:
        found: by the grid.
        journal: below which the report goes.
        cache: that was read.
        engine: that trained the models.
    """
    plan = found.combinations[0].plan
    every = [one.fields for one in found.combinations]
    ranked = rank(every, found.results, monitor_of(found), folds=[fold.name for fold in plan.split.folds])
    axes = list(dict.fromkeys(name for fields in every for name in fields))
    folder = RunFolder(journal.path / REPORTS / _digest(found))
    plain = grid_json(ranked, found.results, found.winners, engine=engine, seconds=round(found.seconds, 3))
    return Report(
        folder=folder,
        found=found,
        ranked=ranked,
        axes=axes,
        ranking=grid_table(ranked, axes, found.winners),
        folds=fold_table(ranked, found.results, found.winners),
        lines=[
            *sentences(ranked, found.results, found.winners),
            _interval_text(found.interval),
            *plan.notes,
            *found.notes,
            *told_by_reason(found.skipped),
            f"{folder.path}: tables and pictures; {engine}; {found.seconds:.1f} s",
        ],
        json=plain | _beside(found, cache, folder),
        ablation=ablation(ranked, _title(found, cache)),
    )


def monitor_of(found: Found) -> str:
    """Names the dev score that a grid chose by: that of its first combination."""
    return found.combinations[0].plan.experiment.training.monitor


def _beside(found: Found, cache: AnyCache, folder: RunFolder) -> dict[str, Any]:
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


def _title(found: Found, cache: AnyCache) -> str:
    plan = found.combinations[0].plan
    counts = [
        f"{len(plan.inputs.classes)} classes",
        counted(len(plan.split.folds), "fold"),
        counted(len(plan.experiment.seeds), "seed"),
    ]
    return f"{plan.experiment.fusion} on {corpus_of(cache)}, {plan.split.protocol}, {', '.join(counts)}"


def _digest(found: Found) -> str:
    """Names the set of combinations and seeds, so that the report of another set does not take its place."""
    plan = found.combinations[0].plan
    texts = [told(one.fields) for one in found.combinations]
    return digest_of([plan.described["fusion"], plan.split.protocol, texts, list(plan.experiment.seeds)])[:8]


def _interval_text(interval: Mapping[str, Interval | None]) -> str:
    ranges = [f"{NAMES[name]} {percent(ends[0])}-{percent(ends[1])}" for name, ends in interval.items() if ends]
    return f"95% interval of the nested score, pooled over folds: {', '.join(ranges) or 'none, of a single cluster'}"
