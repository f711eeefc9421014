"""Paired comparison of the runs of a report with the first of them."""

from collections.abc import Sequence
from pathlib import Path

from cache.errors import MmerError
from fusion.report.finished import FinishedRun
from fusion.report.page import Block, Code, Lines, Section, Table
from fusion.run.compare import RunComparison, compare_runs


def comparison_section(runs: Sequence[FinishedRun], cache: Path | None) -> tuple[Section | None, list[str]]:
    """Returns differences with intervals and tests, or the reason why the runs cannot be compared.

    Args:
        runs: two or more runs.
        cache: cache with the speakers; that of the first run by default.
    """
    try:
        found = compare_runs([run.folder.path for run in runs], cache=cache)
    except MmerError as error:
        return None, [f"no paired tests: {error}"]
    names = {str(run.folder.path): run.name for run in runs}
    blocks: list[Block] = []
    for pair in found.pairs:
        header, rows = found.table(pair)
        plain = [[str(cell) for cell in row] for row in rows]
        caption = f"{names[str(pair.run.path)]} minus {names[str(found.reference.path)]}"
        strong = [index for index, row in enumerate(rows) if _is_significant(found, pair.run.path, row[0])]
        columns = [header[0], *(names.get(cell, cell) for cell in header[1:])]
        blocks += [Table(header=columns, rows=plain, caption=caption, strong=strong)]
        blocks.append(Lines(lines=[_named(found.mcnemar_line(pair), names).replace("p = 0.0000", "p < 0.0001")]))
    blocks.append(Lines(lines=[_named(f"{note[0].upper()}{note[1:]}.", names) for note in found.notes]))
    blocks.append(Code(text=found.latex, label="Rows for LaTeX, a star for p < 0.05"))
    lead = "Over the same test utterances. Bold: p of the permutation test below 0.05."
    return Section(name="comparison", heading="Paired tests", lead=lead, blocks=blocks), []


def _is_significant(found: RunComparison, path: Path, title: str) -> bool:
    pair = next(pair for pair in found.pairs if pair.run.path == path)
    names = {"WA": "wa", "UA": "ua", "W-F1": "wf1", "M-F1": "mf1"}
    return title in names and pair.significant(names[title])


def _named(text: str, names: dict[str, str]) -> str:
    for path in sorted(names, key=len, reverse=True):
        text = text.replace(path, names[path])
    return text
