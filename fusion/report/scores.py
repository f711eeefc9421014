"""Scores of runs: those that the page opens with, their intervals, their folds, and published figures."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fusion.evaluation.task import Score
from fusion.fingerprint import Plain
from fusion.pictures.scores import draw_folds, draw_scores
from fusion.report.finished import FinishedRun
from fusion.report.page import Block, Code, Pen, Pictures, Section, Table, Tile
from fusion.report.protocol import differences_table
from fusion.run.latex import latex_rows
from fusion.run.score_table import REFERENCE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIRST = ("ua", "ccc")  # score of the bars of folds


def tiles_of(run: FinishedRun) -> list[Tile]:
    """Returns the pooled scores of a run with their intervals."""
    tiles = []
    for score in sorted(run.task.scores, key=lambda score: score.name not in FIRST):
        value, ends = run.results["pooled"].get(score.name), run.results["interval"].get(score.name)
        interval = f"{_short(score, ends[0])} to {_short(score, ends[1])} (95%)" if ends else "no interval: one cluster"
        tiles.append(Tile(title=_named(score), value=_short(score, value), note=interval))
    return tiles


def score_section(runs: Sequence[FinishedRun], pen: Pen) -> Section:
    """Returns scores with intervals, scores of folds, published figures and rows for LaTeX."""
    blocks: list[Block] = [_score_table(runs)]
    if differences := differences_table(runs):
        blocks.append(differences)
    pictures = [pen.picture(_score_figure(runs), "Pooled over folds and seeds, with 95% intervals over speakers")]
    score = next(score for name in FIRST for score in runs[0].task.scores if score.name == name)
    folds = {run.name: _by_fold(run, score) for run in runs}
    chance = 100 / len(runs[0].labels) if runs[0].task.is_classification else None
    if max(map(len, folds.values())) > 1:
        caption = f"{score.title} of each fold" + (", dots are seeds" if _seeds(runs) > 1 else "")
        pictures.append(pen.picture(draw_folds(folds, _label(score), chance), caption))
    blocks.append(Pictures(items=pictures))
    if table := _published(runs):
        blocks.append(table)
    rows = latex_rows([run.results for run in runs], header=True)
    blocks.append(Code(text=rows, label="Rows for LaTeX"))
    lead = (
        "WA is accuracy, UA mean recall, W-F1 and M-F1 the F1 of the classes, weighted and not. Intervals resample "
        "whole speakers or dialogues."
    )
    return Section(name="scores", heading="Scores", lead=lead if runs[0].task.has_classes else "", blocks=blocks)


def _score_table(runs: Sequence[FinishedRun]) -> Table:
    scores = runs[0].task.scores
    rows: list[list[str]] = []
    strong = []
    for run in runs:
        name, reference = f"{run.name}: " if len(runs) > 1 else "", run.results.get(REFERENCE)
        strong.append(len(rows))
        lines = [("pooled", "pooled"), ("mean over folds", "mean"), ("deviation over folds", "std")]
        found = [(title, run.results[key]) for title, key in lines]
        found += [(f"{reference['fusion']}, pooled", reference["pooled"])] if reference else []
        for title, values in found:
            rows.append([f"{name}{title}", *(score.text(values.get(score.name)) for score in scores)])
    return Table(
        header=["%" if scores[0].in_percent else "", *(score.title for score in scores)], rows=rows, strong=strong
    )


def _score_figure(runs: Sequence[FinishedRun]) -> "Figure":
    scores = runs[0].task.scores
    by_run: dict[str, dict[str, tuple[float, tuple[float, float] | None]]] = {}
    for run in runs:
        by_run[run.name] = {}
        for score in scores:
            value, ends = run.results["pooled"].get(score.name), run.results["interval"].get(score.name)
            if value is not None:
                interval = (score.unit * ends[0], score.unit * ends[1]) if ends else None
                by_run[run.name][score.title] = (score.unit * value, interval)
    return draw_scores([score.title for score in scores], by_run, "%" if scores[0].in_percent else "")


def _by_fold(run: FinishedRun, score: Score) -> dict[str, list[float]]:
    folds: dict[str, list[float]] = defaultdict(list)
    for fold in run.results["folds"]:
        if fold.get(score.name) is not None:
            folds[str(fold["fold"])].append(score.unit * fold[score.name])
    return dict(folds)


def _published(runs: Sequence[FinishedRun]) -> Table | None:
    """Returns the published figures of the recipes of the runs next to their own means."""
    rows: list[list[str]] = []
    strong: list[int] = []
    scores = runs[0].task.scores
    for run in runs:
        figures: list[Plain] = list(run.results.get("published", ()))
        if not figures:
            continue
        strong.append(len(rows))
        rows.append([f"{run.name}, mean", *(score.text(run.results["mean"].get(score.name)) for score in scores), ""])
        for figure in figures:
            unlike = figure.get("not_like_for_like", "")
            why = "; ".join(map(str, unlike)) if isinstance(unlike, list) else str(unlike)
            cells = [score.text(_fraction(figure.get(score.name))) for score in scores]
            rows.append([str(figure["what"]), *cells, why or "like for like"])
    if not rows:
        return None
    header = ["published", *(score.title for score in scores), "difference of the set-up"]
    return Table(header=header, rows=rows, caption="Published figures of the recipe", strong=strong)


def _fraction(value: Any) -> float | None:
    """Returns a published score as a fraction; papers print percent."""
    return None if not isinstance(value, (int, float)) else value / 100 if value > 1 else float(value)


def _named(score: Score) -> str:
    names = {"wa": "accuracy", "ua": "mean recall", "wf1": "weighted F1", "mf1": "macro F1"}
    return f"{score.title}, {names[score.name]}" if score.name in names else score.title


def _label(score: Score) -> str:
    return f"{score.title} (%)" if score.in_percent else score.title


def _short(score: Score, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{score.unit * value:.1f}" if score.in_percent else score.text(value)


def _seeds(runs: Sequence[FinishedRun]) -> int:
    return max(len(run.identity["seeds"]) for run in runs)
