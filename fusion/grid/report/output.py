"""Report of a grid: tables, plots, and a JSON object for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cache.joined import AnyCache
from fusion.evaluation.statistics import Interval
from fusion.evaluation.task import Task
from fusion.experiment.featurize_commands import corpus_of
from fusion.fingerprint import Plain, digest_of
from fusion.grid.combinations import fields_text, models_of, skipped_by_reason
from fusion.grid.journal import Journal
from fusion.grid.reference import kept_grid_reference
from fusion.grid.report.ablation import Ablation, ablation_table, as_latex, write_ablation
from fusion.grid.report.export import grid_json, write_csv
from fusion.grid.report.reference import fold_rows, ranking_row, write_reference
from fusion.grid.report.tables import (
    Entries,
    Table,
    count_text,
    fold_table,
    grid_table,
    legend,
    nested_latex,
    summary_lines,
)
from fusion.grid.selection import Ranked, nested_scores, rank
from fusion.grid.session import GridResults
from fusion.protocols.catalog import protocol_words
from fusion.run.folder import RESULTS, Folder
from fusion.run.latex import latex_row
from fusion.run.names import stream_names
from fusion.run.notes import arrange, limits
from fusion.run.results import NO_REFERENCE
from fusion.run.score_table import REFERENCE

NESTED_TEX = "nested.tex"
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
        legend: definitions of the scores.
        lines: lines to print below the tables.
        nested_latex: row of LaTeX with the nested scores.
        entries: combination, fold and seed -> name of the model's entry in the journal.
        json: the object that ``mmer-grid --json`` prints.
        ablation: table of the combinations in comparison with the first one.
    """

    folder: Folder
    results: GridResults
    ranked: Sequence[Ranked]
    axes: Sequence[str]
    ranking: Table
    folds: Table
    legend: str
    lines: Sequence[str]
    nested_latex: str
    entries: Entries
    json: dict[str, Any]
    ablation: Ablation

    @property
    def reference(self) -> dict[str, Any]:
        """Scores of the probe on the same folds; empty without them."""
        return dict(self.json.get(REFERENCE, {}))

    @property
    def latex(self) -> str:
        """The ablation table in LaTeX, and the rows of the nested scores and of the probe, for a table of runs."""
        rows = [self.nested_latex]
        if reference := self.reference:
            rows.append(latex_row({**self.json, **reference}))
        return as_latex(self.ablation) + "\n".join(rows)

    @property
    def limits(self) -> list[str]:
        """The lines that limit what the scores mean, such as leaks and utterances that are left out."""
        return [line for line in self.lines if limits(line)]

    def write(self, pictures: str = "png") -> None:
        """Writes tables and plots.

        Args:
            pictures: format of the plots: ``png``, ``svg`` or ``pdf``.

        Raises:
            MmerError: if a file cannot be written.
        """
        from fusion.grid.report.plots import plot_grid

        results, folder, task = self.results, self.folder, self.results.task
        write_csv(folder, self.ranked, results.scores, self.axes, results.winners, task=task, entries=self.entries)
        write_ablation(folder, self.ablation)
        with folder.replacing(NESTED_TEX) as path:
            path.write_text(f"{self.nested_latex}\n", encoding="utf-8")
        if reference := self.reference:
            write_reference(folder, reference, task)
        plot_grid(folder, self.ranked, self.axes, results.monitor, task, scores=results.scores, kind=pictures)
        folder.write(RESULTS, self.json)


def grid_report(
    results: GridResults, journal: Journal, cache: AnyCache, *, engine: str, reference: Plain = NO_REFERENCE
) -> GridReport:
    """Builds the report of a grid; writes nothing.

    Args:
        results: results of the grid.
        journal: journal of the grid; the report belongs below its folder.
        cache: the cache of the grid.
        engine: name of the engine that trained the models.
        reference: scores of the probe; by default those that the report has, if they still belong to the grid.
    """
    plan, task, scores, winners = results.plan, results.task, results.scores, results.winners
    combinations = [combination.fields for combination in results.combinations]
    folds = [fold.name for fold in plan.split.folds]
    ranked = rank(combinations, scores, results.monitor, folds=folds, task=task)
    axes = list(dict.fromkeys(name for fields in combinations for name in fields))
    folder = Folder(journal.path / REPORTS / _digest(results))
    reference = reference or kept_grid_reference(folder, results, cache)
    entries, nested = _entries(results), nested_scores(scores, winners, task)
    seconds = round(results.seconds, 3)
    scores_json = grid_json(ranked, scores, winners, engine=engine, seconds=seconds, task=task, monitor=results.monitor)
    described = scores_json | _provenance(results, cache, folder)
    _add_origins(described, results, ranked, entries)
    ranking = grid_table(ranked, axes, winners, task)
    of_folds = fold_table(ranked, scores, winners, task, entries)
    if reference:
        described[REFERENCE] = reference
        tests = any(combination.test for combination in ranked)
        ranking[1].append(ranking_row(reference, axes, task, tests=tests))
        of_folds[1].extend(fold_rows(reference, task, len(of_folds[0])))
    return GridReport(
        folder=folder,
        results=results,
        ranked=ranked,
        axes=axes,
        ranking=ranking,
        folds=of_folds,
        legend=legend(nested, task),
        lines=[
            *summary_lines(ranked, scores, winners, task, results.monitor),
            _interval_text(results.interval, task),
            *described["notes"],
            *skipped_by_reason(results.skipped),
            *([f"{reference['run']}: {reference['fusion']}, as a run"] if reference else []),
            f"{folder.path}: tables and pictures; {engine}; {results.seconds:.1f} s",
        ],
        nested_latex=nested_latex({**described, "task": task.name, "interval": described["nested_interval"]}, nested),
        entries=entries,
        json=described,
        ablation=ablation_table(ranked, _title(results, cache), task=task),
    )


def _provenance(results: GridResults, cache: AnyCache, folder: Folder) -> dict[str, Any]:
    """Returns the keys of the JSON object that describe the experiment."""
    plan = results.plan
    return {
        "fusion": plan.experiment.fusion,
        "cache": str(cache.path),
        "corpus": corpus_of(cache),
        "streams": _joined_streams([_streams(results, index) for index in dict.fromkeys(results.winners.values())]),
        "protocol": plan.split.protocol,
        "protocol_name": protocol_words(plan.split.protocol, plan.notes),
        **({} if results.task.is_classification else {"task": results.task.name, "target": plan.experiment.target}),
        "labels": list(plan.inputs.classes),
        "seeds": list(plan.experiment.seeds),
        "monitor": results.monitor,
        "nested_interval": {name: None if ends is None else list(ends) for name, ends in results.interval.items()},
        "skipped": [{"config": dict(skipped.fields), "reason": skipped.reason} for skipped in results.skipped],
        "notes": arrange([*_winner_notes(results), *results.notes]),
        "run": str(folder.path),
    }


def _add_origins(described: dict[str, Any], results: GridResults, ranked: Sequence[Ranked], entries: Entries) -> None:
    """Adds the streams and the journal's entries to the rows and folds of the JSON object."""
    for row, combination in zip(described["rows"], ranked, strict=True):
        row["streams"] = _streams(results, combination.combination)
        row["journal"] = {}
        for (index, fold, seed), entry in entries.items():
            if index == combination.combination:
                row["journal"].setdefault(fold, {})[str(seed)] = entry
    for fold in described["folds"]:
        winner = results.winners[fold["fold"]]
        fold["streams"] = _streams(results, winner)
        fold["journal"] = {
            str(seed): entry
            for (index, name, seed), entry in entries.items()
            if (index, name) == (winner, fold["fold"])
        }


def _entries(results: GridResults) -> Entries:
    """Returns the name of the folder of each model in the journal."""
    return {
        (index, model.fold.name, model.seed): model.key
        for index, combination in enumerate(results.combinations)
        for model in models_of(combination)
    }


def _streams(results: GridResults, combination: int) -> dict[str, str]:
    return stream_names(results.combinations[combination].plan.identity)


def _joined_streams(every: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Returns role -> names of its streams in all combinations, joined by commas."""
    roles = dict.fromkeys(role for streams in every for role in streams)
    return {role: ", ".join(dict.fromkeys(held[role] for held in every if role in held)) for role in roles}


def _winner_notes(results: GridResults) -> list[str]:
    """Returns the notes of the winners' plans; one that only some winners have names their folds."""
    folds_of: dict[str, list[str]] = {}
    for fold, combination in results.winners.items():
        for note in results.combinations[combination].plan.notes:
            folds_of.setdefault(note, []).append(fold)
    return [
        note if len(folds) == len(results.winners) else f"{note} (winner on fold {', '.join(folds)})"
        for note, folds in folds_of.items()
    ]


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
