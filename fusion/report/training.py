"""Training of the models of runs: their learning curves and their cost."""

from collections.abc import Sequence

from fusion.pictures.curves import draw_dev_scores, draw_losses
from fusion.report.finished import FinishedRun
from fusion.report.page import Block, Lines, Pen, Picture, Pictures, Section
from fusion.run.pictures import monitor_label, read_curves
from fusion.run.results import total_cost


def training_section(runs: Sequence[FinishedRun], pen: Pen) -> Section | None:
    """Returns the learning curves of runs; None where no run has any."""
    pictures: list[Picture] = []
    lines = []
    for run in runs:
        name = f"{run.name}: " if len(runs) > 1 else ""
        curves = read_curves(run.folder, run.identity, run.results["folds"])
        if curves:
            pictures.append(
                pen.picture(draw_losses(curves), f"{name}{'l' if name else 'L'}oss by epoch, a line for each model")
            )
        if any(curve.dev_score for curve in curves):
            label = monitor_label(run.identity)
            what = label.partition(" (")[0].removeprefix("dev ")
            caption = f"{name}{what} on dev by epoch; it chose the epochs"
            pictures.append(pen.picture(draw_dev_scores(curves, label), caption))
        lines.append(name + _cost(run))
    if not pictures:
        return None
    blocks: list[Block] = [Pictures(items=pictures), Lines(lines=lines)]
    return Section(name="training", heading="Training", blocks=blocks)


def _cost(run: FinishedRun) -> str:
    folds = run.results["folds"]
    seconds, peak_bytes = total_cost(run.folder, run.identity)
    epochs = sorted(int(fold["epoch"]) for fold in folds)
    chosen = f"epoch {epochs[0]}" if epochs[0] == epochs[-1] else f"epochs {epochs[0]} to {epochs[-1]}"
    memory = f", peak memory {peak_bytes / 1e6:,.0f} MB" if peak_bytes else ""
    took = f", {seconds:,.0f} s of training{memory}" if seconds else ""
    parameters = f"{int(folds[0].get('parameters', 0)):,} parameters"
    return f"{len(folds)} models of {parameters}; {chosen} chosen{took}."
