"""A grid as a page: its result, its axes or the changes of an ablation, its combinations, the winner of each fold."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import MmerError
from fusion.evaluation.catalog import task_of
from fusion.evaluation.task import LOSS, Score, Task
from fusion.fingerprint import Plain
from fusion.grid.combinations import ModelScores, fields_text
from fusion.grid.report.ablation import ABLATION_TEX
from fusion.grid.report.export import MODELS_CSV
from fusion.grid.report.plots import ABLATION, PARALLEL, grid_figures
from fusion.grid.report.reference import spreads
from fusion.grid.selection import Ranked, Spread
from fusion.report.page import Block, Code, Page, Pen, Pictures, Section, Table, Tile
from fusion.run.folder import RESULTS, Folder
from fusion.run.listing import GRID_CSV
from fusion.run.score_table import REFERENCE, protocol_text

MOST = 40  # combinations in the table


@dataclass(frozen=True, kw_only=True, eq=False)
class FinishedGrid:
    """A finished grid, read from its files.

    Attributes:
        folder: folder of tables and pictures.
        results: content of ``results.json``.
        ranked: combinations, the best first.
        scores: scores of their models.
    """

    folder: Folder
    results: Plain
    ranked: tuple[Ranked, ...]
    scores: tuple[ModelScores, ...]

    @property
    def task(self) -> Task:
        """Task of the grid."""
        return task_of(self.results)

    @property
    def axes(self) -> list[str]:
        """The fields that a combination sets, by name."""
        return list(dict.fromkeys(name for row in self.ranked for name in row.fields))


def read_grid(path: Path) -> FinishedGrid:
    """Reads a finished grid.

    Args:
        path: folder that `fusion.report.given.find_grid` returns.

    Raises:
        MmerError: if a file is missing or is not that of a grid.
    """
    folder = Folder(path)
    results, numbers = folder.read(RESULTS), folder.read_rows(GRID_CSV)
    try:
        positions = [int(row["combination"]) - 1 for row in numbers]
        ranked = [_ranked(row, position) for row, position in zip(results["rows"], positions, strict=True)]
        scores = [_model(row) for row in folder.read_rows(MODELS_CSV)]
    except (KeyError, TypeError, ValueError) as error:
        raise MmerError(
            f"{path} is not the folder of a grid ({error}); expected the one that mmer-grid printed"
        ) from error
    return FinishedGrid(folder=folder, results=results, ranked=tuple(ranked), scores=tuple(scores))


def grid_page(grid: FinishedGrid) -> Page:
    """Returns the report of a grid."""
    results, pen, task = grid.results, Pen(), grid.task
    corpus = Path(str(results["cache"])).stem
    models = sum(row.models for row in grid.ranked)
    sentence = (
        f"{len(grid.ranked):,} combinations of {', '.join(grid.axes) or 'no field'} of the head {results['fusion']} on "
        f"{corpus}, {models:,} models over the folds of protocol {protocol_text(results)}. The winner of each fold is "
        f"selected on its development subset by {task.score(str(results['monitor'])).title}; only winners are tested."
    )
    if results.get("shows_unchosen_tests"):
        sentence = sentence.replace("; only winners are tested.", "; all combinations are tested.")
    sections = [_figures(grid, pen), _combinations(grid), _winners(grid), _latex(grid)]
    skipped = [f"left out: {fields_text(row['config'])} ({row['reason']})" for row in results.get("skipped", ())]
    return Page(
        title=f"Grid of {results['fusion']} on {corpus}",
        sentence=sentence,
        tiles=_tiles(grid),
        sections=[section for section in sections if section],
        notes=skipped,
    )


def _tiles(grid: FinishedGrid) -> list[Tile]:
    tiles = []
    for score in sorted(grid.task.scores, key=lambda score: score.name not in {"ua", "ccc"}):
        value, ends = grid.results["nested"].get(score.name), grid.results.get("nested_interval", {}).get(score.name)
        interval = f"nested, 95% from {score.text(ends[0])} to {score.text(ends[1])}" if ends else "nested"
        tiles.append(Tile(title=score.title, value=score.text(value), note=interval))
    return tiles


def _figures(grid: FinishedGrid, pen: Pen) -> Section | None:
    figures = grid_figures(grid.ranked, grid.axes, str(grid.results["monitor"]), grid.task, grid.scores)
    if not figures:
        return None
    captions = {
        ABLATION: "Dev score of the base and of each change; a bar that misses the dashed line is a difference",
        PARALLEL: "Each line is a combination, through its values to its dev score",
    }
    items = [
        pen.picture(figure, captions.get(name, f"Dev score by {name.removeprefix('axis-')}"))
        for name, figure in figures.items()
    ]
    heading = "Changes" if ABLATION in figures else "Axes"
    return Section(name="axes", heading=heading, blocks=[Pictures(items=items)])


def _combinations(grid: FinishedGrid) -> Section:
    scores = grid.task.scores
    shows_tests = any(row.test for row in grid.ranked)
    header = ["rank", *grid.axes, *(f"dev {score.title}" for score in scores)]
    header += [f"test {score.title}" for score in scores] if shows_tests else []
    rows = []
    for row in grid.ranked[:MOST]:
        cells = [str(row.rank or "-"), *(row.text(axis) for axis in grid.axes), *_cells(row.dev, scores)]
        rows.append([*cells, *(_cells(row.test, scores) if shows_tests else [])])
    if reference := grid.results.get(REFERENCE):
        dev, test = spreads(reference, grid.task)
        cells = [str(reference["fusion"]), *["-"] * len(grid.axes), *_cells(dev, scores)]
        rows.append([*cells, *(_cells(test, scores) if shows_tests else [])])
    more = f"; the first {MOST} of {len(grid.ranked)}" if len(grid.ranked) > MOST else ""
    caption = f"Mean over folds, deviation in brackets{more}"
    return Section(
        name="combinations",
        heading="Combinations",
        blocks=[Table(header=header, rows=rows, caption=caption, strong=[0])],
    )


def _winners(grid: FinishedGrid) -> Section:
    scores = grid.task.scores
    rows = []
    for fold in grid.results["folds"]:
        dev, test = fold.get("dev") or {}, fold.get("test") or {}
        cells = [values.get(score.name) for values in (dev, test) for score in scores]
        texts = [score.text(value) for score, value in zip([*scores, *scores], cells, strict=True)]
        rows.append([str(fold["fold"]), fields_text(fold["config"]), *texts])
    header = ["fold", "selected", *(f"{subset} {score.title}" for subset in ("dev", "test") for score in scores)]
    lead = "The combination that the development subset of each fold selects, and its score on the test subset."
    return Section(name="winners", heading="Winners", lead=lead, blocks=[Table(header=header, rows=rows)])


def _latex(grid: FinishedGrid) -> Section | None:
    path = grid.folder.path / ABLATION_TEX
    if not path.exists():
        return None
    blocks: list[Block] = [Code(text=path.read_text(encoding="utf-8"), label="Table for LaTeX")]
    return Section(name="latex", heading="LaTeX", blocks=blocks)


def _cells(spread: Spread | None, scores: Sequence[Score]) -> list[str]:
    if spread is None:
        return ["-"] * len(scores)
    cells = []
    for score in scores:
        deviation = spread.std.get(score.name)
        more = "" if deviation is None else f" ({score.text(deviation)})"
        cells.append(f"{score.text(spread.mean.get(score.name))}{more}")
    return cells


def _ranked(row: Plain, position: int) -> Ranked:
    dev_loss = row.get("dev_loss")
    dev = None
    if row["dev"] and any(value is not None for value in row["dev"].values()):
        means = {name: value for name, value in row["dev"].items() if value is not None}
        dev = Spread(
            mean={**means, LOSS: math.nan if dev_loss is None else dev_loss}, std={**row["dev_std"], LOSS: None}
        )
    return Ranked(
        rank=row["rank"],
        combination=position,
        fields=row["config"],
        dev=dev,
        test=Spread(mean=row["test"], std=row["test_std"]) if row.get("test") else None,
        models=int(row["models"]),
        expected=int(row["of"]),
        failures=int(row["failures"]),
        failure=str(row.get("failure") or ""),
        seconds=float(row["seconds"]),
    )


def _model(row: dict[str, str]) -> ModelScores:
    def of(subset: str) -> dict[str, float]:
        start = f"{subset}_"
        return {name.removeprefix(start): float(cell) for name, cell in row.items() if name.startswith(start) and cell}

    numbers: dict[str, Any] = {"epoch": int(row["epoch"] or 0), "seconds": float(row["seconds"] or 0)}
    return ModelScores(
        combination=int(row["combination"]) - 1,
        fold=row["fold"],
        seed=int(row["seed"]),
        dev=of("dev"),
        failure=row.get("failure", ""),
        test=of("test") or None,
        **numbers,
    )
