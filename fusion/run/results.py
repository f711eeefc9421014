"""Results of a finished run: scores of every fold and seed with mean, spread and interval, tables, confusion matrix.

Pictures are drawn by `fusion.pictures`, without a display.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.errors import MmerError
from cache.joined import AnyCache
from cache.json_text import is_number
from fusion.evaluation.calibration import calibration_error, with_temperature
from fusion.evaluation.metrics import confusion
from fusion.evaluation.statistics import (
    Predictions,
    RatedPredictions,
    SoftPredictions,
    bootstrap_interval,
    clusters_of,
    pooled_scores,
    summarize,
)
from fusion.evaluation.task import CLASSIFICATION, DIMENSIONS, LOSS, OUTPUT, SOFT, Score, Task, task_of
from fusion.experiment.streams import corpus_of
from fusion.fingerprint import Plain
from fusion.head_config import AUDIO, TEXT
from fusion.run.artifacts import OVER_LIMITS, Row, read_cost, read_predictions, read_scores
from fusion.run.folder import (
    CONFUSION,
    CONFUSION_PICTURE,
    CURVES,
    DEV_SCORES,
    LOSSES,
    RESULTS,
    VALUES,
    DamagedRun,
    ModelFolder,
    RunFolder,
)

if TYPE_CHECKING:
    from fusion.pictures.curves import Curve

KINDS: Mapping[str, type[Predictions]] = {
    CLASSIFICATION.name: Predictions,
    DIMENSIONS.name: RatedPredictions,
    SOFT.name: SoftPredictions,
}
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
SHOWN_ROLES = (AUDIO, TEXT, "mel", "patches")  # whose streams the titles of pictures name
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
    pictures: str = "png",
) -> dict[str, Any]:
    """Computes and writes the results of a run whose models are all scored.

    The confusion matrix and pictures are written too.

    Args:
        folder: folder of the run.
        cache: cache that the run was trained on, with the speakers that cluster the intervals.
        identity: identity of the run.
        notes: notes to add to the results.
        published: figures of the recipe's paper to add to the results.
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
        "protocol": identity["protocol"],
        **({} if task.is_classification else {"task": task.name, "target": identity["target"]}),
        "labels": names,
        "run": str(folder.path),
        "folds": folds,
        "mean": summary.mean,
        "std": summary.std,
        "interval": {name: None if ends is None else list(ends) for name, ends in summary.interval.items()},
        "pooled": summary.pooled,
    }
    if test_parts:
        results["tests"] = {part: _part_scores(predictions, ids) for part, ids in sorted(test_parts.items())}
    if isinstance(predictions, RatedPredictions):
        results["dimensions"] = _dimension_results(predictions, names)
    else:
        of_classes = predictions.majority if isinstance(predictions, SoftPredictions) else predictions
        results["recall"] = _write_confusion(folder, of_classes, names)
        results["calibration"] = _calibration(rows, folds, names)
    results["notes"] = [*notes, *_cluster_notes(predictions)]
    if published:
        results["published"] = list(published)
    plot_run(folder, identity, results, predictions, subject=subject_of(results, identity), kind=pictures)
    folder.write(RESULTS, results)
    return results


def _write_confusion(folder: RunFolder, predictions: Predictions, names: Sequence[str]) -> dict[str, float]:
    """Writes the confusion matrix; returns the recall of each class."""
    counts = confusion(predictions.truth, predictions.guess, len(names))
    rows = [[name, *map(int, row)] for name, row in zip(names, counts, strict=True)]
    folder.write_rows(CONFUSION, ["truth", *names], rows)
    return dict(zip(names, (counts.diagonal() / counts.sum(axis=1)).tolist(), strict=True))


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


def detail_line(results: Plain) -> str:
    """Formats the recall of each class, or the agreement in each dimension, over all test subsets and seeds.

    Example:
        >>> scores = {"ccc": 0.5, "mae": 0.75, "pearson": 0.6}
        >>> detail_line({"dimensions": {"valence": {"pooled": scores, "interval": {"ccc": [0.4, 0.6]}}}})
        'valence: CCC 0.500 (95% 0.400 to 0.600), MAE 0.750, Pearson 0.600'
    """
    if "recall" in results:
        return recall_line(results)
    lines = []
    for name, found in results["dimensions"].items():
        pooled, ends = found["pooled"], found["interval"]["ccc"]
        interval = f" (95% {ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
        lines.append(
            f"{name}: CCC {pooled['ccc']:.3f}{interval}, MAE {pooled['mae']:.3f}, Pearson {pooled['pearson']:.3f}"
        )
    return "; ".join(lines)


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


def plot_run(
    folder: RunFolder,
    identity: Plain,
    results: Plain,
    predictions: Predictions,
    *,
    subject: str,
    kind: str = "png",
) -> None:
    """Writes the pictures of a run: confusion matrix, or rated and predicted values; learning curves.

    Args:
        folder: folder of the run.
        identity: identity of the run.
        results: its results.
        predictions: test predictions of all folds and seeds.
        subject: title of the pictures.
        kind: format of the files: ``png``, ``svg`` or ``pdf``.

    Raises:
        MmerError: if a picture cannot be written.
    """
    from fusion.pictures.canvas import save
    from fusion.pictures.curves import draw_dev_scores, draw_losses

    names = list(identity["labels"])
    if isinstance(predictions, RatedPredictions):
        from fusion.pictures.values import draw_values

        figures = {VALUES: draw_values(predictions.truth, predictions.guess, names, subject)}
    else:
        from fusion.pictures.confusion import draw_confusion

        of_classes = predictions.majority if isinstance(predictions, SoftPredictions) else predictions
        counts = confusion(of_classes.truth, of_classes.guess, len(names))
        figures = {CONFUSION_PICTURE: draw_confusion(counts, names, subject)}
    if curves := read_curves(folder, identity, results["folds"]):
        figures[LOSSES] = draw_losses(curves, subject)
        if any(curve.dev_score for curve in curves):
            figures[DEV_SCORES] = draw_dev_scores(curves, monitor_label(identity), subject)
    for name, figure in figures.items():
        with folder.replacing(f"{name}.{kind}") as path:
            save(figure, path, kind)


def read_curves(folder: RunFolder, identity: Plain, folds: Sequence[Plain]) -> "list[Curve]":
    """Reads the learning curves of all models of a run; models without recorded curves are left out.

    Args:
        folder: folder of the run.
        identity: identity of the run.
        folds: scores of the models, as in ``results.json``.
    """
    from fusion.pictures.curves import Curve

    score = _monitored(identity)
    curves = []
    for scores in folds:
        with suppress(DamagedRun):
            rows = folder.model(str(scores["fold"]), int(scores["seed"])).read_rows(CURVES)
            # without auxiliary losses, which dev does not have
            main = next((name for name in (task_of(identity).loss_name, "total") if rows and name in rows[0]), "")
            curve = Curve(
                name=f"{scores['fold']}, seed {scores['seed']}",
                train_loss=_column(rows, main),
                dev_loss=_column(rows, "dev_loss"),
                dev_score=tuple(score.unit * value for value in _column(rows, f"dev_{score.name}")) if score else (),
                chosen=int(scores["epoch"]),
            )
            curves += [curve] if curve.train_loss else []
    return curves


def monitor_label(identity: Plain) -> str:
    """Returns the title of the score that chose the epochs of a run, with its unit."""
    score = _monitored(identity)
    return "dev loss" if score is None else f"dev {score.title}{' (%)' if score.in_percent else ''}"


def _monitored(identity: Plain) -> Score | None:
    """Returns the score that chose the epochs; None for the loss, and for runs without a training."""
    name = identity.get("training", {}).get("monitor", LOSS)
    return next((score for score in task_of(identity).scores if score.name == name), None)


def _column(rows: Sequence[Row], name: str) -> tuple[float, ...]:
    """Returns a column of curves.csv; empty where a value is missing."""
    try:
        return tuple(float(row[name]) for row in rows)
    except (KeyError, ValueError):
        return ()


def subject_of(results: Plain, identity: Plain) -> str:
    """Returns the title of the pictures of a run: corpus, streams, head, protocol.

    Example:
        >>> run = {"cache": "cache/demo.h5", "fusion": "audio", "protocol": "session"}
        >>> subject_of(run, {"streams": {"audio": "mfcc39 27a"}})
        'demo, mfcc39, audio, session'
    """
    streams = [text.partition(" ")[0] for role, text in identity.get("streams", {}).items() if role in SHOWN_ROLES]
    corpus = re.split(r"[-_.]*[*?\[\]]", Path(str(results["cache"])).stem)[0]
    return ", ".join([corpus, *dict.fromkeys(streams), str(results["fusion"]), str(results["protocol"])])


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
