"""Results of a finished run: scores of every fold and seed with mean, spread and interval, tables, confusion matrix.

The confusion matrix is drawn by matplotlib without a display.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.joined import AnyCache
from fusion.evaluation.metrics import METRICS, Scores, confusion
from fusion.evaluation.statistics import Predictions, bootstrap_interval, clusters_of, pooled_scores, summarize
from fusion.evaluation.task import Score, task_of
from fusion.experiment.streams import corpus_of
from fusion.fingerprint import Plain
from fusion.run.artifacts import OVER_LIMITS, read_cost, read_predictions, read_scores
from fusion.run.folder import CONFUSION, CONFUSION_PNG, RESULTS, DamagedRun, ModelFolder, RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = ("fold", "seed", "epoch", "train", "dev", "test")
OVER_ALL: Plain = {"mean": "mean", "std": "std", "pooled": "pooled", "interval": "95% of pooled"}
SIGNS = str.maketrans({"±": r"$\pm$", "Δ": r"$\Delta$"})  # signs in texts of mmer
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # a line break would end a row, an empty line a paragraph
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
SHOWN = 5  # utterances over the limits of a head that a note lists; scores.json of each fold has all of them
NO_PARTS: Mapping[str, frozenset[str]] = {}
FEW = 10  # clusters; an interval over fewer is not reliable


def collect_results(
    folder: RunFolder,
    cache: AnyCache,
    identity: Plain,
    *,
    notes: Sequence[str] = (),
    published: Sequence[Plain] = (),
    test_parts: Mapping[str, frozenset[str]] = NO_PARTS,
) -> dict[str, Any]:
    """Computes and writes the results of a run whose models are all scored.

    The confusion matrix is written too.

    Args:
        folder: folder of the run.
        cache: cache that the run was trained on, with the speakers that cluster the intervals.
        identity: identity of the run.
        notes: notes to add to the results.
        published: figures of the recipe's paper to add to the results.
        test_parts: name -> utterances of each of several test subsets, which are scored apart.

    Returns:
        The results, as ``mmer-train --json`` prints them.

    Raises:
        MmerError: if a model is not scored, or the cache lacks one of the utterances.
    """
    models, task = folder.models(identity), task_of(identity)
    folds = [{name: value for name, value in read_scores(model, task).items() if name != "digests"} for model in models]
    names = list(identity["labels"])
    predictions = pooled_predictions(models, cache, names)
    by_seed: dict[int, list[Scores]] = defaultdict(list)
    for fold in folds:
        by_seed[fold["seed"]].append(Scores(**{metric: fold[metric] for metric in METRICS}))
    summary = summarize(by_seed, predictions)
    results = {
        "fusion": identity["fusion"],
        "cache": str(cache.path),
        "protocol": identity["protocol"],
        "labels": names,
        "run": str(folder.path),
        "folds": folds,
        "mean": summary.mean,
        "std": summary.std,
        "interval": {name: None if ends is None else list(ends) for name, ends in summary.interval.items()},
        "pooled": summary.pooled,
    }
    counts = confusion(predictions.truth, predictions.guess, len(names))
    if test_parts:
        results["tests"] = {part: _part_scores(predictions, ids) for part, ids in sorted(test_parts.items())}
    results["recall"] = dict(zip(names, (counts.diagonal() / counts.sum(axis=1)).tolist(), strict=True))
    results["notes"] = [*notes, *_cluster_notes(predictions)]
    if published:
        results["published"] = list(published)
    rows = [[name, *map(int, row)] for name, row in zip(names, counts, strict=True)]
    folder.write_rows(CONFUSION, ["truth", *names], rows)
    plot_confusion(folder, counts, names, f"{identity['fusion']}, {identity['protocol']}")
    folder.write(RESULTS, results)
    return results


def pooled_predictions(models: Sequence[ModelFolder], cache: AnyCache, names: Sequence[str]) -> Predictions:
    """Reads the test predictions of all models of a run.

    Args:
        models: folders of the models.
        cache: cache with the speakers or dialogues that cluster the utterances.
        names: names of the classes.

    Raises:
        MmerError: if predictions cannot be read, or the cache lacks one of the utterances.
    """
    rows = [row for model in models for row in read_predictions(model, names)]
    check_utterances((row["id"] for row in rows), cache)
    indices = {name: index for index, name in enumerate(cache.ids)}
    clusters = clusters_of(cache.utterances, corpus_of(cache))
    classes = {name: index for index, name in enumerate(names)}
    return Predictions(
        ids=np.array([row["id"] for row in rows]),
        truth=np.array([classes[row["label"]] for row in rows]),
        guess=np.array([classes[row["guess"]] for row in rows]),
        clusters=np.array([clusters[indices[row["id"]]] for row in rows]),
        classes=len(names),
    )


def check_utterances(ids: Iterable[str], cache: AnyCache) -> None:
    """Checks that a cache has all utterances of a run.

    Raises:
        MmerError: if the cache lacks one of them.
    """
    held = set(cache.ids)
    missing = next((name for name in ids if name not in held), None)
    if missing is not None:
        raise MmerError(f"{cache.path} has no utterance {missing} of this run; pass the cache that the run used")


def total_cost(folder: RunFolder, identity: Plain) -> tuple[float, int]:
    """Returns the training time in seconds and the peak memory in bytes.

    Models without recorded costs are not counted.
    """
    costs = []
    for model in folder.models(identity):
        with suppress(DamagedRun):
            costs.append(read_cost(model))
    return sum(seconds for seconds, _ in costs), max((peak_bytes for _, peak_bytes in costs), default=0)


def score_header(results: Plain) -> list[str]:
    """Returns the header of `score_table`.

    Example:
        >>> " ".join(score_header({}))
        'fold seed epoch train dev test WA UA W-F1 M-F1'
    """
    return [*COLUMNS, *(score.title for score in task_of(results).scores)]


def score_table(results: Plain) -> list[list[object]]:
    """Returns the rows below `score_header`.

    There is a row for each model, then for each of several test subsets, then mean, standard deviation, pooled scores
    and their interval.
    """
    task = task_of(results)
    rows: list[list[object]] = [
        [
            fold["fold"],
            fold["seed"],
            fold["epoch"],
            fold["train"],
            fold["dev"],
            fold["test"] if fold["test"] == fold["test_of"] else f"{fold['test']} of {fold['test_of']}",
            *(score.text(fold[score.name]) for score in task.scores),
        ]
        for fold in results["folds"]
    ]
    for part, scores in results.get("tests", {}).items():
        rows.append([part, "", "", "", "", scores["test"], *(score.text(scores[score.name]) for score in task.scores)])
    for name, title in OVER_ALL.items():
        cells = [_cell(results[name][score.name], score) for score in task.scores]
        rows.append([title, "", "", "", "", "", *cells])
    return rows


def fold_notes(folds: Sequence[Plain]) -> Iterator[str]:
    """Yields the notes of the head and a note on utterances over its limits.

    Only notes that are the same for every fold are included.

    Args:
        folds: scores of each model, as `collect_results` returns them.
    """
    yield from (note for note in folds[0]["notes"] if all(note in scores["notes"] for scores in folds))
    over = {subset: _over_limits(folds, key) for subset, key in OVER_LIMITS.items()}
    names = list(dict.fromkeys(name for utterances in over.values() for name in utterances))
    if names:
        counts = ", ".join(f"{len(utterances)} {subset}" for subset, utterances in over.items() if utterances)
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        text = "utterances are longer than the head can read in full"
        yield f"{counts} {text}: {', '.join(names[:SHOWN])}{more}"


def recall_line(results: Plain) -> str:
    """Formats the recall of each class over all test subsets and seeds.

    Example:
        >>> recall_line({"recall": {"angry": 0.75, "sad": 0.5}})
        'recall: angry 75.00, sad 50.00'
    """
    return "recall: " + ", ".join(f"{name} {percent(value)}" for name, value in results["recall"].items())


def percent(value: float) -> str:
    """Formats a score in percent with two decimals, as papers do.

    Example:
        >>> percent(0.57345)
        '57.34'
    """
    return f"{100 * value:.2f}"


def escape_latex(text: str) -> str:
    r"""Returns text with special characters escaped for LaTeX, and with spaces in place of control characters.

    Example:
        >>> escape_latex("global_aware=false, 50%")
        'global\\_aware=false, 50\\%'
    """
    return CONTROL.sub(" ", text).translate(SPECIAL)


def latex_row(results: Mapping[str, Any]) -> str:
    r"""Formats one row of a LaTeX table.

    The row has the head and its scores with their standard deviation over folds.

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
    return " & ".join([escape_latex(str(results["fusion"])), *cells]) + r" \\"


def plot_confusion(folder: RunFolder, counts: npt.NDArray[np.int64], names: Sequence[str], title: str) -> None:
    """Writes a figure of a confusion matrix.

    Rows are the truth, shades are recall, numbers are utterances.

    Args:
        folder: folder of the run.
        counts: numbers of utterances, int64 ``(classes, classes)``.
        names: names of the classes.
        title: title of the figure.

    Raises:
        MmerError: if the figure cannot be written.
    """
    with folder.replacing(CONFUSION_PNG) as path:
        draw_confusion(counts, names, title).savefig(path, dpi=150, format="png")


def draw_confusion(counts: npt.NDArray[np.int64], names: Sequence[str], title: str) -> "Figure":
    """Returns the figure that `plot_confusion` writes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # imported here, since it takes a second
    from matplotlib.figure import Figure

    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 0.8 * len(names)
    figure = Figure(figsize=(2.2 + size, 1.6 + size), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    labels = [_plain(name) for name in names]
    axes.set_xticks(range(len(names)), labels=labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), labels=labels)
    axes.set(xlabel="guess", ylabel="truth", title=_plain(title))
    for row, column in np.ndindex(counts.shape):
        cell = f"{counts[row, column]:,}\n{100 * shares[row, column]:.0f}%"
        shade = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, cell, ha="center", va="center", color=shade, fontsize=9)
    figure.colorbar(image, label="share of the truth", shrink=0.8)
    return figure


def _part_scores(predictions: Predictions, ids: frozenset[str]) -> dict[str, Any]:
    """Returns the number of utterances of a test subset, and its scores over all folds and seeds with intervals."""
    chosen = np.array([name in ids for name in predictions.ids.tolist()])
    part = Predictions(
        ids=predictions.ids[chosen],
        truth=predictions.truth[chosen],
        guess=predictions.guess[chosen],
        clusters=predictions.clusters[chosen],
        classes=predictions.classes,
    )
    interval = {name: None if ends is None else list(ends) for name, ends in bootstrap_interval(part).items()}
    return {"test": len(ids), **pooled_scores(part), "interval": interval}


def _cluster_notes(predictions: Predictions) -> list[str]:
    count = len(np.unique(predictions.clusters))
    return [f"the interval is over {count} speakers or dialogues: too few to say much"] if count < FEW else []


def _cell(value: Any, score: Score) -> str:
    return "-".join(map(score.text, value)) if isinstance(value, (list, tuple)) else score.text(value)


def _over_limits(folds: Sequence[Plain], key: str) -> list[str]:
    """Returns the utterances under a key of all folds.

    A late fusion of runs has only the key of the test subset.
    """
    return list(dict.fromkeys(name for scores in folds for name in scores.get(key, ())))


def _plain(text: str) -> str:
    """Escapes dollar signs, which matplotlib would read as mathematics."""
    return text.replace("$", r"\$")
