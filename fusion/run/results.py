"""Results of a finished run: scores of every fold and seed with mean, spread and interval, and those of each class.

They are ``results.json``; for readers, they are formatted by `fusion.run.score_table` and drawn by
`fusion.run.pictures`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import numpy as np

from cache.errors import MmerError
from cache.joined import AnyCache
from cache.json_text import is_number
from fusion.evaluation.calibration import calibration_error, with_temperature
from fusion.evaluation.catalog import task_of
from fusion.evaluation.classes import CLASSIFICATION
from fusion.evaluation.metrics import confusion
from fusion.evaluation.ratings import DIMENSIONS
from fusion.evaluation.statistics import (
    Predictions,
    RatedPredictions,
    SoftPredictions,
    bootstrap_interval,
    clusters_of,
    pooled_scores,
    summarize,
)
from fusion.evaluation.task import OUTPUT, Task
from fusion.evaluation.votes import SOFT
from fusion.experiment.featurize_commands import corpus_of
from fusion.fingerprint import Plain
from fusion.protocols.catalog import protocol_words
from fusion.run.artifacts import Row, read_cost, read_predictions, read_scores
from fusion.run.folder import CONFUSION, RESULTS, RESULTS_MD, DamagedRun, ModelFolder, RunFolder
from fusion.run.names import stream_names
from fusion.run.notes import arrange, head_notes
from fusion.run.pictures import plot_run, subject_of
from fusion.run.score_table import CROSS, REFERENCE, markdown

KINDS: Mapping[str, type[Predictions]] = {
    CLASSIFICATION.name: Predictions,
    DIMENSIONS.name: RatedPredictions,
    SOFT.name: SoftPredictions,
}
NO_PARTS: Mapping[str, frozenset[str]] = {}
NO_REFERENCE: Plain = {}
FEW = 10  # clusters; an interval over fewer is not reliable


def collect_results(
    folder: RunFolder,
    cache: AnyCache,
    identity: Plain,
    *,
    notes: Sequence[str] = (),
    published: Sequence[Plain] = (),
    reference: Plain = NO_REFERENCE,
    cross: Sequence[Plain] = (),
    test_parts: Mapping[str, frozenset[str]] = NO_PARTS,
    pictures: str = "png",
) -> dict[str, Any]:
    """Computes the results of a run whose models are all scored, and writes them as JSON and as a page.

    The confusion matrix and pictures are written too.

    Args:
        folder: folder of the run.
        cache: cache that the run was trained on, with the speakers that cluster the intervals.
        identity: identity of the run.
        notes: notes to add to the results.
        published: figures of the recipe's paper to add to the results.
        reference: scores of the probe to add to the results.
        cross: scores on other corpora to add to the results.
        test_parts: name -> utterances of each of several test subsets, which are scored apart.
        pictures: format of the pictures: ``png``, ``svg`` or ``pdf``.

    Returns:
        The results, as ``mmer-train --json`` prints them.

    Raises:
        MmerError: if a model is not scored, or the cache lacks one of the utterances.
    """
    models, task = folder.models(identity), task_of(identity)
    folds = [{name: value for name, value in read_scores(model, task).items() if name != "digests"} for model in models]
    names = list(identity["labels"])
    rows = [read_predictions(model, names, task) for model in models]
    predictions = _pooled([row for of_model in rows for row in of_model], cache, names, task)
    by_seed: dict[int, list[Plain]] = defaultdict(list)
    for fold in folds:
        by_seed[fold["seed"]].append({name: fold[name] for name in task.names})
    summary = summarize(by_seed, predictions)
    results = {
        "fusion": identity["fusion"],
        "cache": str(cache.path),
        "corpus": corpus_of(cache),
        "streams": stream_names(identity),
        "protocol": identity["protocol"],
        "protocol_name": protocol_words(identity["protocol"], notes),
        **({} if task.is_classification else {"task": task.name, "target": identity["target"]}),
        "labels": names,
        "run": str(folder.path),
        "folds": folds,
        "mean": summary.mean,
        "std": summary.std,
        "std_seeds": summary.std_seeds,
        "interval": {name: None if ends is None else list(ends) for name, ends in summary.interval.items()},
        "pooled": summary.pooled,
    }
    if test_parts:
        results["tests"] = {part: _part_scores(predictions, ids) for part, ids in sorted(test_parts.items())}
    if isinstance(predictions, RatedPredictions):
        results["dimensions"] = _dimension_results(predictions, names)
    else:
        of_classes = predictions.majority if isinstance(predictions, SoftPredictions) else predictions
        results |= _write_confusion(folder, of_classes, names)
        results["calibration"] = _calibration(rows, folds, names)
    results["notes"] = arrange([*notes, *_refit_notes(folds), *cluster_notes(predictions), *head_notes(folds)])
    if published:
        results["published"] = list(published)
    if reference:
        results[REFERENCE] = reference
    if cross:
        results[CROSS] = list(cross)
    plot_run(folder, identity, results, predictions, subject=subject_of(results), kind=pictures)
    write_results(folder, results)
    return results


def write_results(folder: RunFolder, results: Plain) -> None:
    """Writes the results of a run as ``results.json`` and, for readers, as ``results.md``."""
    folder.write(RESULTS, results)
    with folder.replacing(RESULTS_MD) as path:
        path.write_text(markdown(results), encoding="utf-8", errors="backslashreplace")


def _write_confusion(folder: RunFolder, predictions: Predictions, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Writes the confusion matrix; returns recall and F1 of each class."""
    counts = confusion(predictions.truth, predictions.guess, len(names))
    rows = [[name, *map(int, row)] for name, row in zip(names, counts, strict=True)]
    folder.write_rows(CONFUSION, ["truth", *names], rows)
    right, true, guessed = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    scores = {"recall": right / true, "f1": 2 * right / (true + guessed)}
    return {name: dict(zip(names, values.tolist(), strict=True)) for name, values in scores.items()}


def _calibration(rows: Sequence[Sequence[Row]], folds: Sequence[Plain], names: Sequence[str]) -> dict[str, Any]:
    """Returns the calibration error of all predictions, and that with the temperatures that were fitted on dev.

    Runs of older versions and late fusions have no temperatures.
    """
    truth, plain, scaled = [], [], []
    for of_model, scores in zip(rows, folds, strict=True):
        probabilities = np.array([[float(row[OUTPUT + name]) for name in names] for row in of_model])
        truth += [names.index(row["label"]) for row in of_model]
        plain.append(probabilities)
        if is_number(scores.get("temperature")) and scores["temperature"] > 0:
            scaled.append(with_temperature(probabilities, scores["temperature"]))
    classes = np.array(truth)
    found: dict[str, Any] = {"ece": calibration_error(np.concatenate(plain), classes)}
    if len(scaled) < len(plain):
        return found
    temperatures = [scores["temperature"] for scores in folds]
    return found | {"ece_scaled": calibration_error(np.concatenate(scaled), classes), "temperature": temperatures}


def _dimension_results(predictions: RatedPredictions, names: Sequence[str]) -> dict[str, Any]:
    """Returns the pooled scores of each dimension with their intervals."""
    of_each = {}
    for index, name in enumerate(names):
        alone = replace(predictions, dimension=index)
        interval = {score: None if ends is None else list(ends) for score, ends in bootstrap_interval(alone).items()}
        of_each[name] = {"pooled": pooled_scores(alone), "interval": interval}
    return of_each


def pooled_predictions(
    models: Sequence[ModelFolder], cache: AnyCache, names: Sequence[str], task: Task = CLASSIFICATION
) -> Predictions:
    """Reads the test predictions of all models of a run.

    Args:
        models: folders of the models.
        cache: cache with the speakers or dialogues that cluster the utterances.
        names: names of the classes, or of the dimensions.
        task: task of the run.

    Raises:
        MmerError: if predictions cannot be read, or the cache lacks one of the utterances.
    """
    return _pooled([row for model in models for row in read_predictions(model, names, task)], cache, names, task)


def _pooled(rows: Sequence[Row], cache: AnyCache, names: Sequence[str], task: Task) -> Predictions:
    check_utterances((row["id"] for row in rows), cache)
    indices = {name: index for index, name in enumerate(cache.ids)}
    clusters = clusters_of(cache.utterances, corpus_of(cache))
    truth, guess = task.parse(rows, names)
    return KINDS[task.name](
        ids=np.array([row["id"] for row in rows]),
        truth=truth,
        guess=guess,
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


def cluster_notes(predictions: Predictions) -> list[str]:
    """Returns a note if the interval of predictions is over too few clusters; nothing otherwise."""
    count = len(np.unique(predictions.clusters))
    return [f"the interval is over {count} speakers or dialogues: too few to say much"] if count < FEW else []


def _part_scores(predictions: Predictions, ids: frozenset[str]) -> dict[str, Any]:
    """Returns the number of utterances of a test subset, and its scores over all folds and seeds with intervals."""
    chosen = np.array([name in ids for name in predictions.ids.tolist()])
    columns = {
        column.name: value[chosen]
        for column in fields(predictions)
        if isinstance(value := getattr(predictions, column.name), np.ndarray)
    }
    part = replace(predictions, **columns)
    interval = {name: None if ends is None else list(ends) for name, ends in bootstrap_interval(part).items()}
    return {"test": len(ids), **pooled_scores(part), "interval": interval}


def _refit_notes(folds: Sequence[Plain]) -> list[str]:
    """Returns a note on the second trainings of a run with refit (`fusion.run.refit`); nothing without."""
    epochs = {fold["seed"]: fold["refit"] for fold in folds if "refit" in fold}
    if not epochs:
        return []
    by_seed = ", ".join(f"{count} (seed {seed})" for seed, count in epochs.items())
    return [
        f"refit: each fold is trained once more on train and dev for the median best epoch of the folds, {by_seed}; "
        "this model is scored, and the column epoch shows what dev selected before"
    ]
