"""A report as one call: reads finished runs or a grid, builds the page, and writes one HTML file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.errors import MmerError
from cache.files import replacing, writable
from fusion.report.comparison import comparison_section
from fusion.report.complexity import Complexity, measure, median_lengths
from fusion.report.finished import FinishedRun, open_runs
from fusion.report.given import DEFAULT, check_given
from fusion.report.grids import grid_page, read_grid
from fusion.report.mistakes import HARDEST, calibration_section, confusion_section, hardest_section, values_section
from fusion.report.page import Facts, Page, Pen, Section, render
from fusion.report.protocol import protocol_section, sentence
from fusion.report.scores import score_section, tiles_of
from fusion.report.sounds import Sounds
from fusion.report.training import training_section
from fusion.report.vectors import LoadedModel, load_test_model, vectors_section

LABEL_GUIDED = "label-guided"


@dataclass(frozen=True, kw_only=True)
class Report:
    """A written report.

    Attributes:
        path: the HTML file.
        size_bytes: its size.
        notes: what the report lacks and why.
        complexity: name of a run -> what one utterance takes; empty unless it was requested.
    """

    path: Path
    size_bytes: int
    notes: tuple[str, ...]
    complexity: dict[str, Complexity]


def write_report(
    paths: Sequence[Path],
    *,
    out: Path | None = None,
    cache: Path | None = None,
    sounds: int = 0,
    complexity: bool = False,
) -> Report:
    """Writes the report of finished runs, or of one grid, as a single HTML file.

    Args:
        paths: run folders, or one folder of a grid.
        out: file to write; by default ``report.html`` in the first folder.
        cache: cache of the runs; by default the one that each run records.
        sounds: greatest number of recordings in the page.
        complexity: also measure what one utterance takes.

    Raises:
        MmerError: if a folder is not that of a finished run or grid, `out` is a file but not a report, or the file
            cannot be written.
    """
    grid = check_given(paths, out=out)
    measured: dict[str, Complexity] = {}
    if grid:
        page = grid_page(read_grid(grid))
    else:
        runs, notes = open_runs(paths, cache)
        _check_tasks(runs)
        page, measured = _run_page(runs, notes, cache, Sounds(sounds), complexity=complexity)
    path = out or (grid or paths[0]) / DEFAULT
    text = render(page)
    with writable(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    size_bytes = path.stat().st_size
    return Report(path=path, size_bytes=size_bytes, notes=tuple(page.notes), complexity=measured)


def _run_page(
    runs: Sequence[FinishedRun], notes: Sequence[str], cache: Path | None, sounds: Sounds, *, complexity: bool
) -> tuple[Page, dict[str, Complexity]]:
    pen, notes = Pen(), list(notes)
    classes = runs[0].task.has_classes
    sections: list[Section | None] = [score_section(runs, pen)]
    if len(runs) > 1:
        compared, reasons = comparison_section(runs, cache)
        sections.append(compared)
        notes += reasons
    sections.append(protocol_section(runs))
    models: list[LoadedModel | None] = [None] * len(runs)
    if not classes:
        sections.append(values_section(runs, pen))
    else:
        sections += [
            confusion_section(runs, pen),
            hardest_section(runs, sounds, HARDEST if len(runs) == 1 else HARDEST // 2),
        ]
    sections.append(training_section(runs, pen))
    if classes:
        sections.append(calibration_section(runs, pen))
        models, reasons = _models(runs)
        mapped, more = vectors_section(runs, models, pen)
        notes += [*reasons, *more]
        sections += [mapped, *_attention(runs, models, pen, sounds)]
    measured = _measured(runs, models) if complexity else {}
    if measured:
        sections.append(_complexity_section(measured))
    heads, corpora = (
        " and ".join(dict.fromkeys(names))
        for names in ((str(run.identity["fusion"]) for run in runs), (run.corpus for run in runs))
    )
    page = Page(
        title=f"{heads} on {corpora}" if len(runs) == 1 else f"{len(runs)} runs of {heads} on {corpora}",
        sentence=" ".join(dict.fromkeys(sentence(run) for run in runs)),
        tiles=tiles_of(runs[0]) if len(runs) == 1 else [],
        sections=[section for section in sections if section],
        notes=[*notes, *sounds.notes],
    )
    return page, measured


def _check_tasks(runs: Sequence[FinishedRun]) -> None:
    first = runs[0]
    for run in runs[1:]:
        if run.task.name != first.task.name or run.labels != first.labels:
            raise MmerError(
                f"{first.folder.path} and {run.folder.path} have different targets ({', '.join(first.labels)}; "
                f"{', '.join(run.labels)}); write a report of each"
            )


def _models(runs: Sequence[FinishedRun]) -> tuple[list[LoadedModel | None], list[str]]:
    """Loads the first model of each run; returns notes on runs whose model cannot be loaded."""
    models: list[LoadedModel | None] = []
    notes = []
    for run in runs:
        try:
            models.append(load_test_model(run))
        except MmerError as error:
            models.append(None)
            if run.cache is not None:
                notes.append(f"no map of vectors: {error}")
    return models, notes


def _attention(
    runs: Sequence[FinishedRun], models: Sequence[LoadedModel | None], pen: Pen, sounds: Sounds
) -> list[Section | None]:
    """Returns the attention of the first label-guided run."""
    for run, model in zip(runs, models, strict=True):
        if run.identity["fusion"] == LABEL_GUIDED and model is not None:
            from fusion.report.attention import attention_section

            return [attention_section(run, model, pen, sounds)]
    return []


def _measured(runs: Sequence[FinishedRun], models: Sequence[LoadedModel | None]) -> dict[str, Complexity]:
    return {
        run.name: measure(model.head, median_lengths(run.cache, run.streams))
        for run, model in zip(runs, models, strict=True)
        if model is not None
    }


def _complexity_section(measured: dict[str, Complexity]) -> Section:
    blocks = [
        Facts(rows=[(term, text, False) for term, text in found.rows], caption=name if len(measured) > 1 else "")
        for name, found in measured.items()
    ]
    lead = "For one utterance of 245 frames and 22 tokens, on this machine. MB are 2^20 bytes."
    return Section(name="complexity", heading="Complexity", lead=lead, blocks=blocks)
