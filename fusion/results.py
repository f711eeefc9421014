"""What a finished run says: scores of every fold and seed, their mean, spread and interval, the confusion matrix."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.joined import AnyCache
from fusion.metrics import METRICS, Scores, confusion
from fusion.run import PREDICTIONS, RESULTS, SCORES, RunFolder
from fusion.statistics import Predictions, clusters_of, summarize

CONFUSION = "confusion.csv"


def collect(folder: RunFolder, cache: AnyCache, described: Mapping[str, Any]) -> dict[str, Any]:
    """Gathers the results of a run whose folds are all scored, and writes them beside them.

    Args:
        folder: of the run.
        cache: that it was trained on, for the speakers that intervals are clustered by.
        described: what the run is.

    Returns:
        What ``mmer-train --json`` prints.

    Raises:
        MmerError: if a fold is missing.
    """
    parts = [folder.part(fold, seed) for seed in described["seeds"] for fold in described["folds"]]
    folds = [part.read(SCORES) for part in parts]
    names = list(described["labels"])
    predictions = _pooled(parts, cache, names)
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
    folder.write(RESULTS, results)
    counts = confusion(predictions.truth, predictions.guess, len(names))
    rows = [[name, *map(int, row)] for name, row in zip(names, counts, strict=True)]
    folder.write_rows(CONFUSION, ["truth", *names], rows)
    return results


def counts_of(folder: RunFolder, names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Reads the confusion matrix of a run, ``(classes, classes)``."""
    return np.array([[int(row[name]) for name in names] for row in folder.read_rows(CONFUSION)])


def read_predictions(folder: RunFolder, described: Mapping[str, Any]) -> dict[str, npt.NDArray[np.float64]]:
    """Reads the class probabilities of every test utterance, averaged over seeds; by id, ``(classes,)``."""
    names = list(described["labels"])
    found: dict[str, list[list[float]]] = defaultdict(list)
    for seed in described["seeds"]:
        for fold in described["folds"]:
            for row in folder.part(fold, seed).read_rows(PREDICTIONS):
                found[row["id"]].append([float(row[f"p_{name}"]) for name in names])
    return {name: np.mean(rows, axis=0) for name, rows in found.items()}


def score_table(results: Mapping[str, Any]) -> list[list[object]]:
    """Gives the rows of the printed table: each fold, then mean, standard deviation, interval and pooled scores."""
    rows: list[list[object]] = [
        [
            one["fold"],
            one["seed"],
            one["epoch"],
            one["train"],
            one["dev"],
            one["test"] if one["test"] == one["test_of"] else f"{one['test']} of {one['test_of']}",
            *(percent(one[metric]) for metric in METRICS),
        ]
        for one in results["folds"]
    ]
    for name in ("mean", "std", "interval", "pooled"):
        cells = [_cell(results[name][metric]) for metric in METRICS]
        rows.append([name, "", "", "", "", "", *cells])
    return rows


def percent(value: float) -> str:
    """Writes a score the way papers do.

    Example:
        >>> percent(0.57345)
        '57.34'
    """
    return f"{100 * value:.2f}"


def latex_row(results: Mapping[str, Any]) -> str:
    r"""Gives one row of a LaTeX table: the head, then each score with its standard deviation over folds.

    Example:
        >>> scores = {"wa": 0.5, "ua": 0.25, "wf1": 0.4}
        >>> latex_row({"fusion": "audio", "mean": scores, "std": {**scores, "ua": None}})
        'audio & 50.00 $\\pm$ 50.00 & 25.00 & 40.00 $\\pm$ 40.00 \\\\'
    """
    cells = []
    for metric in METRICS:
        spread = results["std"][metric]
        cells.append(percent(results["mean"][metric]) + ("" if spread is None else rf" $\pm$ {percent(spread)}"))
    return " & ".join([str(results["fusion"]), *cells]) + r" \\"


def _pooled(parts: Sequence[RunFolder], cache: AnyCache, names: Sequence[str]) -> Predictions:
    rows = [row for part in parts for row in part.read_rows(PREDICTIONS)]
    where = {name: place for place, name in enumerate(cache.ids)}
    lost = next((row["id"] for row in rows if row["id"] not in where), None)
    if lost is not None:
        raise MmerError(f"{cache.path} no longer holds utterance {lost} of this run; train again with --replace")
    clusters = clusters_of(cache.utterances, str(cache.header["corpus"].get("name", "")))
    index = {name: place for place, name in enumerate(names)}
    return Predictions(
        ids=np.array([row["id"] for row in rows]),
        truth=np.array([index[row["label"]] for row in rows]),
        guess=np.array([index[row["guess"]] for row in rows]),
        clusters=np.array([clusters[where[row["id"]]] for row in rows]),
        classes=len(names),
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{percent(value[0])}-{percent(value[1])}" if isinstance(value, (list, tuple)) else percent(value)
