"""Where runs are wrong: confusion, recalls, calibration, and the test utterances that are hardest."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cache.json_text import is_number
from fusion.evaluation.calibration import calibration_error, with_temperature
from fusion.pictures.calibration import draw_reliability
from fusion.pictures.confusion import draw_confusion
from fusion.pictures.values import draw_values
from fusion.report.finished import FinishedRun
from fusion.report.page import Block, Heard, Pen, Pictures, Section, Table, Utterances
from fusion.report.sounds import Sounds

HARDEST = 12  # utterances in a list


def confusion_section(runs: Sequence[FinishedRun], pen: Pen) -> Section:
    """Returns the confusion matrix of each run and a table of recalls and F1 of each class."""
    pictures = []
    for run in runs:
        name = f"{run.name}: " if len(runs) > 1 else ""
        figure = draw_confusion(run.counts, run.labels)
        pictures.append(
            pen.picture(
                figure, f"{name}{'u' if name else 'U'}tterances and share of the truth, over all folds and seeds"
            )
        )
    blocks: list[Block] = [Pictures(items=pictures), _class_table(runs)]
    lead = "Rows are the truth, columns the guess. The diagonal is recall."
    return Section(name="confusion", heading="Confusion", lead=lead, blocks=blocks, paired=len(runs) == 1)


def values_section(runs: Sequence[FinishedRun], pen: Pen) -> Section:
    """Returns rated against predicted values of each run of dimensions."""
    pictures = []
    for run in runs:
        truth, guess = run.task.parse([row.row for row in run.rows], run.labels)
        caption = f"{run.name}: rated and predicted" if len(runs) > 1 else "Rated and predicted values"
        pictures.append(pen.picture(draw_values(truth, guess, run.labels), caption))
    return Section(name="values", heading="Values", blocks=[Pictures(items=pictures)])


def calibration_section(runs: Sequence[FinishedRun], pen: Pen) -> Section:
    """Returns reliability before and after the temperatures that were fitted on dev."""
    pictures, rows = [], []
    for run in runs:
        name = f"{run.name}: " if len(runs) > 1 else ""
        scaled = _scaled(run)
        before, after = (
            "-" if found is None else f"{100 * calibration_error(found, run.truth):.2f}"
            for found in (run.probabilities, scaled)
        )
        pictures.append(pen.picture(draw_reliability(run.probabilities, run.truth), f"{name}ECE {before} as trained"))
        if scaled is not None:
            caption = f"{name}ECE {after} with the temperatures that dev chose"
            pictures.append(pen.picture(draw_reliability(scaled, run.truth), caption))
        rows.append([run.name, before, after, _temperatures(run)])
    table = Table(header=["run", "ECE", "ECE scaled", "temperatures"], rows=rows)
    lead = (
        "A bar on the line: of guesses with this probability, as many are right. ECE is the mean distance, in points."
    )
    return Section(name="calibration", heading="Calibration", lead=lead, blocks=[Pictures(items=pictures), table])


def hardest_section(runs: Sequence[FinishedRun], sounds: Sounds, count: int = HARDEST) -> Section:
    """Returns the test utterances whose truth got the least probability.

    Args:
        runs: runs of classes.
        sounds: recordings to embed.
        count: number of utterances of each run.
    """
    blocks: list[Block] = []
    for run in runs:
        items = hardest(run, count, sounds)
        blocks.append(Utterances(items=items, caption=run.name if len(runs) > 1 else ""))
    lead = "Test utterances whose class got the least probability, as a mean over seeds."
    return Section(name="hardest", heading="Hardest utterances", lead=lead, blocks=blocks)


def hardest(run: FinishedRun, count: int, sounds: Sounds) -> list[Heard]:
    """Returns the hardest test utterances of a run, the hardest first.

    Args:
        run: a run of classes.
        count: number of utterances.
        sounds: recordings to embed.
    """
    by_id: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(run.rows):
        by_id[row.row["id"]].append(index)
    mean = {name: run.probabilities[indices].mean(axis=0) for name, indices in by_id.items()}
    truth = {name: int(run.truth[indices[0]]) for name, indices in by_id.items()}
    ordered = sorted(mean, key=lambda name: (float(mean[name][truth[name]]), name))
    found = []
    for name in ordered[:count]:
        probabilities, utterance = mean[name], run.utterances.get(name)
        guess = int(probabilities.argmax())
        share = 100 * float(probabilities[truth[name]])
        speaker = f"speaker {utterance.speaker}" if utterance and utterance.speaker else ""
        found.append(
            Heard(
                id=name,
                text=utterance.text if utterance else "",
                truth=run.labels[truth[name]],
                guess=f"{run.labels[guess]} at {100 * float(probabilities[guess]):.0f}%",
                share="under 0.1%" if share < 0.1 else f"{share:.1f}%",
                speaker=f"{speaker}{', ' if speaker else ''}fold {run.rows[by_id[name][0]].fold}",
                sound=sounds.of(run, name),
            )
        )
    return found


def _class_table(runs: Sequence[FinishedRun]) -> Table:
    """Returns test utterances, recall, precision and F1 of each class; of several runs their recalls."""
    labels = runs[0].labels
    if len(runs) > 1:
        recalls = [run.counts.diagonal() / np.maximum(run.counts.sum(axis=1), 1) for run in runs]
        rows = [[name, *(f"{100 * recall[index]:.1f}" for recall in recalls)] for index, name in enumerate(labels)]
        return Table(header=["recall", *(run.name for run in runs)], rows=rows)
    counts = runs[0].counts
    right, truth, guess = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    rows = []
    for index, name in enumerate(labels):
        recall, precision = (100 * right[index] / max(total[index], 1) for total in (truth, guess))
        f1 = 200 * right[index] / max(truth[index] + guess[index], 1)
        worst = max((other for other in range(len(labels)) if other != index), key=lambda other: counts[index, other])
        taken = f"{labels[worst]} ({counts[index, worst]:,})" if len(labels) > 1 and counts[index, worst] else "-"
        rows.append([name, f"{recall:.1f}", f"{precision:.1f}", f"{f1:.1f}", taken])
    header = ["class", "recall", "precision", "F1", "taken for"]
    return Table(header=header, rows=rows)


def _scaled(run: FinishedRun) -> npt.NDArray[np.float64] | None:
    """Returns the probabilities with the temperature of each model; None for runs that have none."""
    temperatures = {(str(fold["fold"]), int(fold["seed"])): fold.get("temperature") for fold in run.results["folds"]}
    if not all(is_number(value) and value > 0 for value in temperatures.values()):
        return None
    scaled = run.probabilities.copy()
    models = [(row.fold, row.seed) for row in run.rows]
    for model, temperature in temperatures.items():
        chosen = np.array([name == model for name in models])
        scaled[chosen] = with_temperature(run.probabilities[chosen], float(temperature))
    return scaled


def _temperatures(run: FinishedRun) -> str:
    values = [fold["temperature"] for fold in run.results["folds"] if is_number(fold.get("temperature"))]
    return f"{min(values):.2f} to {max(values):.2f}" if values else "-"
