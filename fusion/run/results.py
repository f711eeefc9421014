"""What a finished run says: scores of every fold and seed, their mean, spread and interval, the confusion matrix.

Pictures of a run, by matplotlib without a display.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.joined import AnyCache
from fusion.evaluation.metrics import METRICS, Scores, confusion
from fusion.evaluation.statistics import Predictions, clusters_of, summarize
from fusion.evaluation.task import Score, task_of
from fusion.experiment.streams import corpus_of
from fusion.fingerprint import Plain
from fusion.run.artifacts import OVER_LIMITS, read_cost, read_predictions, read_scores
from fusion.run.folder import CONFUSION, CONFUSION_PNG, RESULTS, DamagedRun, ModelFolder, RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("fold", "seed", "epoch", "train", "dev", "test")
OVER_ALL: Plain = {"mean": "mean", "std": "std", "pooled": "pooled", "interval": "95% of pooled"}
SIGNS = str.maketrans({"±": r"$\pm$", "Δ": r"$\Delta$"})  # that our own text holds
SPECIAL = SIGNS | str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': "''",
    }
)
SHOWN = 5  # utterances over a head's limits that are named; scores.json of each fold lists all
FEW = 10  # clusters: an interval over fewer says little


def plot_confusion(folder: RunFolder, counts: npt.NDArray[np.int64], names: Sequence[str], title: str) -> None:
    """Draws a confusion matrix: rows are the truth, shades are recall, numbers are utterances.

    Args:
        folder: where the picture goes.
        counts: int64 ``(classes, classes)``.
        names: of the classes.
        title: over the picture.

    Raises:
        MmerError: if it cannot be written.
    """
    with folder.replacing(CONFUSION_PNG) as path:
        draw_confusion(counts, names, title).savefig(path, dpi=150, format="png")


def draw_confusion(counts: npt.NDArray[np.int64], names: Sequence[str], title: str) -> "Figure":
    """Draws the picture that `plot_confusion` writes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: it takes a second to import
    from matplotlib.figure import Figure

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 0.8 * len(names)
    figure = Figure(figsize=(2.2 + size, 1.6 + size), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    told = [_plain(name) for name in names]
    axes.set_xticks(range(len(names)), labels=told, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), labels=told)
    axes.set(xlabel="guess", ylabel="truth", title=_plain(title))
    for row, column in np.ndindex(counts.shape):
        cell = f"{counts[row, column]:,}\n{100 * shares[row, column]:.0f}%"
        shade = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, cell, ha="center", va="center", color=shade, fontsize=9)
    figure.colorbar(image, label="share of the truth", shrink=0.8)
    return figure


def collect(
    folder: RunFolder,
    cache: AnyCache,
    described: Plain,
    *,
    notes: Sequence[str] = (),
    published: Sequence[Plain] = (),
) -> dict[str, Any]:
    """Gathers the results of a run whose models are all scored, and writes them and the confusion matrix.

    Args:
        folder: of the run.
        cache: that it was trained on, for the speakers that intervals are clustered by.
        described: what the run is.
        notes: to stand beside the scores.
        published: figures of the recipe's paper, to stand there too.

    Returns:
        What ``mmer-train --json`` prints.

    Raises:
        MmerError: if a model is not scored, or the cache lacks one of the utterances.
    """
    parts, task = folder.models(described), task_of(described)
    folds = [{name: value for name, value in read_scores(part, task).items() if name != "digests"} for part in parts]
    names = list(described["labels"])
    predictions = pooled(parts, cache, names)
    by_seed: dict[int, list[Scores]] = defaultdict(list)
    for one in folds:
        by_seed[one["seed"]].append(Scores(**{metric: one[metric] for metric in METRICS}))
    summary = summarize(by_seed, predictions)
    results = {
        "fusion": described["fusion"],
        "cache": str(cache.path),
        "protocol": described["protocol"],
        "labels": names,
        "run": str(folder.path),
        "folds": folds,
        "mean": summary.mean,
        "std": summary.std,
        "interval": {name: None if ends is None else list(ends) for name, ends in summary.interval.items()},
        "pooled": summary.pooled,
    }
    counts = confusion(predictions.truth, predictions.guess, len(names))
    results["recall"] = dict(zip(names, (counts.diagonal() / counts.sum(axis=1)).tolist(), strict=True))
    results["notes"] = [*notes, *_few(predictions)]
    if published:
        results["published"] = list(published)
    rows = [[name, *map(int, row)] for name, row in zip(names, counts, strict=True)]
    folder.write_rows(CONFUSION, ["truth", *names], rows)
    plot_confusion(folder, counts, names, f"{described['fusion']}, {described['protocol']}")
    folder.write(RESULTS, results)
    return results


def pooled(parts: Sequence[ModelFolder], cache: AnyCache, names: Sequence[str]) -> Predictions:
    """Reads the test predictions of all models of a run together.

    Args:
        parts: of the run folder.
        cache: for what the utterances are clustered by.
        names: of the classes.

    Raises:
        MmerError: if they cannot be read, or the cache lacks one of the utterances.
    """
    rows = [row for part in parts for row in read_predictions(part, names)]
    check_held((row["id"] for row in rows), cache)
    where = {name: place for place, name in enumerate(cache.ids)}
    clusters = clusters_of(cache.utterances, corpus_of(cache))
    index = {name: place for place, name in enumerate(names)}
    return Predictions(
        ids=np.array([row["id"] for row in rows]),
        truth=np.array([index[row["label"]] for row in rows]),
        guess=np.array([index[row["guess"]] for row in rows]),
        clusters=np.array([clusters[where[row["id"]]] for row in rows]),
        classes=len(names),
    )


def check_held(ids: Iterable[str], cache: AnyCache) -> None:
    """Refuses a cache that lacks one of the utterances of a run.

    Raises:
        MmerError: naming it.
    """
    held = set(cache.ids)
    lost = next((name for name in ids if name not in held), None)
    if lost is not None:
        raise MmerError(f"{cache.path} does not hold utterance {lost} of this run; name the cache of the run")


def cost_of(folder: RunFolder, described: Plain) -> tuple[float, int]:
    """Gives the seconds of training and the peak of memory in bytes over all models whose costs are kept."""
    costs = []
    for part in folder.models(described):
        with suppress(DamagedRun):
            costs.append(read_cost(part))
    return sum(seconds for seconds, _ in costs), max((peak_bytes for _, peak_bytes in costs), default=0)


def score_header(results: Plain) -> list[str]:
    """Returns the header of `score_table`.

    Example:
        >>> " ".join(score_header({}))
        'fold seed epoch train dev test WA UA W-F1 M-F1'
    """
    return [*COLUMNS, *(score.title for score in task_of(results).scores)]


def score_table(results: Plain) -> list[list[object]]:
    """Gives the rows below `score_header`: each model, then mean and deviation, pooled scores and their interval."""
    task = task_of(results)
    rows: list[list[object]] = [
        [
            one["fold"],
            one["seed"],
            one["epoch"],
            one["train"],
            one["dev"],
            one["test"] if one["test"] == one["test_of"] else f"{one['test']} of {one['test_of']}",
            *(score.text(one[score.name]) for score in task.scores),
        ]
        for one in results["folds"]
    ]
    for name, told in OVER_ALL.items():
        cells = [_cell(results[name][score.name], score) for score in task.scores]
        rows.append([told, "", "", "", "", "", *cells])
    return rows


def fold_notes(folds: Sequence[Plain]) -> Iterator[str]:
    """Yields the notes that the head made on every fold, and the utterances that it cannot take in full.

    Args:
        folds: the scores of each model, as `collect` returns them.
    """
    yield from (note for note in folds[0]["notes"] if all(note in scores["notes"] for scores in folds))
    over = {part: _over_limits(folds, key) for part, key in OVER_LIMITS.items()}
    names = list(dict.fromkeys(name for part in over.values() for name in part))
    if names:
        counts = ", ".join(f"{len(own)} {part}" for part, own in over.items() if own)
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        text = "utterances are longer than the head takes in full"
        yield f"{counts} {text}: {', '.join(names[:SHOWN])}{more}"


def recall_line(results: Plain) -> str:
    """Writes the recall of each class over all test parts and seeds.

    Example:
        >>> recall_line({"recall": {"angry": 0.75, "sad": 0.5}})
        'recall: angry 75.00, sad 50.00'
    """
    return "recall: " + ", ".join(f"{name} {percent(value)}" for name, value in results["recall"].items())


def percent(value: float) -> str:
    """Writes a score the way papers do.

    Example:
        >>> percent(0.57345)
        '57.34'
    """
    return f"{100 * value:.2f}"


def escaped(text: str) -> str:
    r"""Writes text so that LaTeX prints it.

    Example:
        >>> escaped("global_aware=false, 50%")
        'global\\_aware=false, 50\\%'
    """
    return text.translate(SPECIAL)


def latex_row(results: Mapping[str, Any]) -> str:
    r"""Gives one row of a LaTeX table: the head, then its scores with their standard deviation over folds.

    Example:
        >>> scores = {"wa": 0.5, "ua": 0.25, "wf1": 0.4, "mf1": 0.3}
        >>> latex_row({"fusion": "audio", "mean": scores, "std": {**scores, "ua": None}})
        'audio & 50.00 $\\pm$ 50.00 & 25.00 & 40.00 $\\pm$ 40.00 & 30.00 $\\pm$ 30.00 \\\\'
    """
    cells = []
    for score in task_of(results).scores:
        spread = results["std"].get(score.name)
        deviation = "" if spread is None else rf" $\pm$ {score.text(spread)}"
        cells.append(score.text(results["mean"].get(score.name)) + deviation)
    return " & ".join([escaped(str(results["fusion"])), *cells]) + r" \\"


def _over_limits(folds: Sequence[Plain], key: str) -> list[str]:
    """Returns the utterances that the folds list under a key; a sum of runs lists those of test alone."""
    return list(dict.fromkeys(name for scores in folds for name in scores.get(key, ())))


def _plain(text: str) -> str:
    """Keeps a dollar sign from being taken for mathematics."""
    return text.replace("$", r"\$")


def _few(predictions: Predictions) -> list[str]:
    count = len(np.unique(predictions.clusters))
    return [f"the interval is over {count} speakers or dialogues: too few to say much"] if count < FEW else []


def _cell(value: Any, score: Score) -> str:
    return "-".join(map(score.text, value)) if isinstance(value, (list, tuple)) else score.text(value)
