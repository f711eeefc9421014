"""Artifacts of a run: writes provenance, splits and the files of each model, and reads and checks them again.

Files are checked by their digests, scores by the predictions.
"""

import functools
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from cache.errors import MmerError
from cache.json_text import is_number
from cache.version import mmer_version
from fusion.arrays import Indices
from fusion.data.features import BatchSource
from fusion.end_to_end.learning.tune import TUNABLE
from fusion.evaluation.classes import CLASSIFICATION
from fusion.evaluation.task import ID, OUTPUT, Task
from fusion.experiment.plan import RunPlan
from fusion.fingerprint import digest_of
from fusion.head import Head
from fusion.head_config import CTC_SYMBOLS, HeadInputs
from fusion.heads.build import count_parameters
from fusion.protocols.folds import Fold
from fusion.run.folder import (
    COST,
    CURVES,
    PREDICTIONS,
    SCORES,
    SPLITS,
    WEIGHTS,
    DamagedRun,
    ModelFolder,
    RunFolder,
    encoder_weights,
)
from fusion.training.model import TrainedModel

Probabilities: TypeAlias = npt.NDArray[np.float32]
Row: TypeAlias = Mapping[str, str]
PACKAGES = ("torch", "numpy", "scikit-learn", "safetensors", "h5py")  # packages whose versions are recorded
LEFT_OUT = "left out"  # in splits.csv: the utterance has no class of the label set, or no features

# subset -> key in scores.json of the utterances that are longer than the head can read in full
OVER_LIMITS = {"train": "train_over_limits", "dev": "dev_over_limits", "test": "over_limits"}
NUMBERS = ("seed", "epoch", "train", "dev", "test", "test_of", "parameters")
LISTS = ("over_limits", "notes")
TUNED_WEIGHTS = tuple(encoder_weights(role) for role in TUNABLE)
WRONG_COLUMNS = "not the columns and classes of the run"
ROUNDING = 1e-9  # greatest difference of scores after JSON


def provenance(plan: RunPlan) -> dict[str, Any]:
    """Returns the information of a run that is kept in addition to its identity.

    Together they are enough to read and check its results and to predict with its models.
    """
    streams = {**plan.selection.starts, **plan.selection.streams}
    return {
        "cache": str(Path(plan.cache.path).absolute()),
        "label_set": plan.split.labels.name,
        "allowed": {"missing": plan.experiment.allow_missing, "leak": plan.experiment.allow_leak},
        "corpus": dict(plan.cache.header["corpus"]),
        "inputs": _inputs_record(plan.inputs),
        "specs": {role: json.loads(plan.cache.stream(name).spec.to_json()) for role, name in streams.items()},
        **({"fold_specs": _fold_specs(plan)} if plan.split.chosen else {}),
        "notes": plan.notes,
        "versions": {"mmer": mmer_version(), "python": platform.python_version()}
        | {name: _installed(name) for name in PACKAGES},
    }


@functools.cache
def _installed(distribution: str) -> str:
    """Returns the version of a package; a process reads it once, since every run of a grid records all versions."""
    return version(distribution)


def write_splits(plan: RunPlan, folder: RunFolder) -> None:
    """Writes the subset of every utterance of the cache, with a column for each fold."""
    folds, names = plan.split.folds, [*plan.inputs.classes, ""]  # utterances without a class have index -1
    dimensions = () if plan.task.has_classes else plan.inputs.classes
    longest = max((len(part) for fold in folds for part in fold.test_parts), default=0)
    subsets = np.full((len(plan.cache), len(folds)), LEFT_OUT, dtype=f"<U{max(longest, len(LEFT_OUT))}")
    for column, fold in enumerate(folds):
        for subset, indices in {**fold.subsets, **fold.test_parts}.items():
            subsets[indices, column] = subset
    if plan.task.has_classes or plan.split.values is None:
        labels = [[names[index]] for index in plan.split.classes]
    else:
        labels = [["" if np.isnan(value) else value for value in row] for row in plan.split.values.tolist()]
    rows = zip(plan.cache.ids, labels, subsets.tolist(), strict=True)
    header = ["id", *(dimensions or ["label"]), *(f"fold {fold.name}" for fold in folds)]
    folder.write_rows(SPLITS, header, ([name, *label, *cells] for name, label, cells in rows))


def write_trained(folder: ModelFolder, trained: TrainedModel, device: torch.device) -> None:
    """Writes the results of a training: weights, curves, time and memory."""
    with folder.replacing(WEIGHTS) as path:
        # not `save_file`, which puts a new file there, without the lock by which other processes know its writer
        path.write_bytes(save({name: tensor.contiguous() for name, tensor in trained.weights.items()}))
    curves = trained.curves
    losses = list(dict.fromkeys(name for scores in curves for name in scores.losses))
    dev = list(dict.fromkeys(name for scores in reversed(curves) for name in scores.dev))  # the latest epoch has all
    rows = [
        [scores.epoch, *(scores.losses.get(name, "") for name in losses), *(scores.dev.get(name, "") for name in dev)]
        for scores in curves
    ]
    folder.write_rows(CURVES, ["epoch", *losses, *(f"dev_{name}" for name in dev)], rows)
    cost = {"seconds": round(trained.seconds, 3), "peak_bytes": trained.peak_bytes, "device": str(device)}
    folder.write(COST, cost)


def write_predictions(
    folder: ModelFolder,
    ids: Sequence[str],
    truth: Sequence[Any],
    probabilities: npt.NDArray[Any],
    names: Sequence[str],
    *,
    task: Task = CLASSIFICATION,
) -> None:
    """Writes truth, guess and the outputs of each test utterance: probabilities of classes, or values.

    Args:
        folder: folder of the model.
        ids: identifiers of the utterances.
        truth: names of their classes, or their rated values.
        probabilities: ``(n, classes)``.
        names: names of the classes.
        task: task with the columns of the file.

    Raises:
        MmerError: if a probability is not finite.
    """
    finite = np.isfinite(probabilities).all(axis=1)
    if not finite.all():
        name = ids[int(finite.argmin())]
        raise MmerError(
            f"the logits of test utterance {name} are not finite; check its features in the cache by mmer-cache verify"
        )
    rows = [[name, *task.row(label, row, names)] for name, label, row in zip(ids, truth, probabilities, strict=True)]
    folder.write_rows(PREDICTIONS, [ID, *task.columns(names)], rows)


def model_scores(
    plan: RunPlan,
    fold: Fold,
    head: Head,
    trained: TrainedModel,
    probabilities: Probabilities,
    *,
    source: BatchSource,
) -> dict[str, Any]:
    """Computes the test scores of one model with the counts of its fold.

    Args:
        plan: plan of the run.
        fold: fold of the model.
        head: trained head.
        trained: result of the training.
        probabilities: predictions of the test subset, ``(n, classes)``.
        source: features of all utterances.
    """
    guess = plan.task.decide(probabilities)
    # the checks of the split have passed: a class that this fold lacks is in another, and is stated in a note
    scores = plan.task.evaluate(plan.split.targets[fold.test], guess, len(plan.inputs.classes), complete=False)
    return {
        "epoch": trained.best_epoch,
        **({"refit": trained.refit} if trained.refit else {}),
        **{subset: len(indices) for subset, indices in fold.subsets.items()},
        **scores,
        "dev_scores": dict(trained.dev),
        "test_of": plan.split.totals[fold.name],
        **{OVER_LIMITS[subset]: _over_limits(plan, head, indices, source) for subset, indices in fold.subsets.items()},
        "parameters": count_parameters(head),
    }


def with_digests(folder: ModelFolder, scores: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Returns scores with digests of files of the model and of the scores.

    Args:
        folder: folder of the model.
        scores: content of scores.json.
        names: names of the files.
    """
    return {**scores, "digests": {**{name: folder.digest(name) for name in names}, SCORES: digest_of(scores)}}


def read_scores(folder: ModelFolder, task: Task = CLASSIFICATION) -> dict[str, Any]:
    """Reads the scores of a model.

    A score that the version which wrote the file did not know is computed from the predictions.

    Args:
        folder: folder of the model.
        task: task of the run.

    Raises:
        DamagedRun: if the file is missing, incomplete or changed.
    """
    scores = _read_written_scores(folder, task)
    if all(name in scores for name in task.names):
        return scores
    columns = next(iter(folder.read_rows(PREDICTIONS)), {})
    names = [name.removeprefix(OUTPUT) for name in columns if name and name.startswith(OUTPUT)]
    computed = _read_scored_predictions(folder, names, scores, task)[1] | scores
    by_name = {name: computed[name] for name in task.names}
    complete: dict[str, Any] = {}
    for name, value in scores.items():  # in the order of a file with all scores
        complete |= by_name if name in by_name else {name: value}
    return complete | by_name


def read_predictions(folder: ModelFolder, names: Sequence[str], task: Task = CLASSIFICATION) -> list[Row]:
    """Reads the test predictions of a model; they must reproduce its scores.

    Args:
        folder: folder of the model.
        names: names of the classes.
        task: task of the run.

    Raises:
        DamagedRun: if the file is missing or changed, or does not reproduce the scores.
    """
    return _read_scored_predictions(folder, names, _read_written_scores(folder, task), task)[0]


def truth_texts(rows: Sequence[Row], names: Sequence[str], task: Task) -> dict[str, str]:
    """Returns the label, the shares of votes or the rated values of utterances as texts, by id.

    Args:
        rows: rows of predictions.csv.
        names: names of the classes or dimensions.
        task: task of the run.
    """
    columns = task.truth_columns(names)
    return {row[ID]: ", ".join(row[column] for column in columns) for row in rows}


def read_probabilities(
    folder: ModelFolder, names: Sequence[str], task: Task = CLASSIFICATION
) -> dict[str, npt.NDArray[np.float64]]:
    """Reads the class probabilities, or the predicted values, of each test utterance of a model.

    Returns:
        Outputs by id of the utterance, float64 ``(classes,)`` or ``(dimensions,)`` each.

    Raises:
        DamagedRun: if the file is missing or changed, or a probability is missing.
    """
    rows = read_predictions(folder, names, task)
    try:
        return {row["id"]: np.array([float(row[OUTPUT + name]) for name in names]) for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(folder, PREDICTIONS, f"missing or invalid probability: {error}") from error


def read_cost(folder: ModelFolder) -> tuple[float, int]:
    """Reads the seconds of training and the peak memory in bytes.

    Raises:
        DamagedRun: if the file or a value is missing.
    """
    cost = folder.read(COST)
    try:
        return float(cost["seconds"]), int(cost["peak_bytes"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _damaged(folder, COST, f"missing or invalid value: {error}") from error


def find_damage(folder: ModelFolder, names: Sequence[str], task: Task = CLASSIFICATION) -> str:
    """Returns an error text if the results of a scored model are damaged.

    The text is empty if they are intact.

    Args:
        folder: folder of the model.
        names: names of the classes.
        task: task of the run.

    Raises:
        MmerError: if a file exists but cannot be read.
    """
    try:
        read_probabilities(folder, names, task)
        scores = _read_written_scores(folder, task)
        for weights in (WEIGHTS, *(name for name in TUNED_WEIGHTS if name in scores["digests"])):
            _check_digest(folder, weights, scores)
        with safe_open(folder.path / WEIGHTS, framework="np"):
            return ""
    except DamagedRun as error:
        return str(error)
    except (OSError, SafetensorError) as error:
        return str(_damaged(folder, WEIGHTS, str(error)))


def find_minor_damage(folder: ModelFolder) -> list[str]:
    """Returns an error text for each damaged file that no score depends on.

    The model is not trained again because of such a file.
    """
    texts = []
    for read in (_read_curves, read_cost):
        try:
            read(folder)
        except DamagedRun as error:
            texts.append(f"{str(error).partition(';')[0]}; delete {folder.path / SCORES} to train the model again")
    return texts


def _fold_specs(plan: RunPlan) -> dict[str, dict[str, Any]]:
    """Returns the spec of each stream that only one fold reads, by fold and role."""
    return {
        fold: {role: json.loads(plan.cache.stream(name).spec.to_json()) for role, name in streams.items()}
        for fold, streams in plan.split.chosen.items()
    }


def _inputs_record(inputs: HeadInputs) -> dict[str, Any]:
    """Returns the inputs of a head as plain values.

    Pre-trained weights are recorded as type and shape, single numbers as values.
    """
    weights = {role: {name: _weight_record(held[name]) for name in held} for role, held in inputs.weights.items()}
    symbols = {} if inputs.symbols == CTC_SYMBOLS else {"symbols": inputs.symbols}
    return {"shapes": dict(inputs.shapes), "layers": dict(inputs.layers), "weights": weights, **symbols}


def _weight_record(values: npt.NDArray[Any]) -> str | float:
    number: float = values.item() if values.ndim == 0 else 0.0
    return number if values.ndim == 0 else " ".join([values.dtype.name, *map(str, values.shape)])


def _over_limits(plan: RunPlan, head: Head, indices: Indices, source: BatchSource) -> list[str]:
    """Returns the ids of utterances that are longer than a head can read."""
    lengths = {role: source.lengths(indices, [role]) for role in plan.experiment.head.roles}
    return [plan.cache.ids[index] for index in indices[head.over_limits(lengths)].tolist()]


def _read_written_scores(folder: ModelFolder, task: Task = CLASSIFICATION) -> dict[str, Any]:
    """Reads the scores of a model as they were written."""
    content = folder.read(SCORES)
    scores = {"digests": {}, **content} if isinstance(content, dict) else {}
    numbers = (*NUMBERS, *(name for name in task.names if name in scores))
    digests = scores.get("digests")
    texts = [*map(scores.get, LISTS), [*digests.values()] if isinstance(digests, dict) else None]
    if (
        not isinstance(scores.get("fold"), str)
        or not all(is_number(scores.get(name)) for name in numbers)
        or not all(isinstance(held, list) and all(isinstance(item, str) for item in held) for held in texts)
    ):
        raise _damaged(folder, SCORES, "a value is missing or has the wrong type")
    without_digests = {name: value for name, value in scores.items() if name != "digests"}
    if scores["digests"].get(SCORES) not in {None, digest_of(without_digests)}:
        raise _damaged(folder, SCORES, "it has changed since it was written")
    return scores


def _read_scored_predictions(
    folder: ModelFolder, names: Sequence[str], scores: Mapping[str, Any], task: Task
) -> tuple[list[Row], dict[str, float]]:
    """Reads and checks the test predictions of a model; computes all scores."""
    rows: list[Row] = [*folder.read_rows(PREDICTIONS)]
    if len(rows) != scores["test"]:
        raise _damaged(folder, PREDICTIONS, f"{len(rows)} of {scores['test']} utterances")
    try:
        truth, guess = task.parse(rows, names)
    except (KeyError, ValueError) as error:
        raise _damaged(folder, PREDICTIONS, WRONG_COLUMNS) from error
    if not all(row.get(ID) for row in rows):
        raise _damaged(folder, PREDICTIONS, WRONG_COLUMNS)
    computed = task.evaluate(truth, guess, len(names), complete=False)
    written = [name for name in task.names if name in scores]
    if not all(abs(computed[name] - scores[name]) <= ROUNDING for name in written):  # also False for NaN
        raise _damaged(folder, PREDICTIONS, f"they do not reproduce the scores of {SCORES}")
    _check_digest(folder, PREDICTIONS, scores)
    return rows, computed


def _read_curves(folder: ModelFolder) -> list[dict[str, str]]:
    _check_digest(folder, CURVES, _read_written_scores(folder))
    return folder.read_rows(CURVES)


def _check_digest(folder: ModelFolder, name: str, scores: Mapping[str, Any]) -> None:
    """Checks that a file has not changed since its model was scored.

    Runs of older versions have no digests, and their files are not checked.
    """
    written = scores["digests"].get(name)
    if written is not None and folder.digest(name) != written:
        raise _damaged(folder, name, f"it has changed since {SCORES} was written")


def _damaged(folder: ModelFolder, name: str, why: str) -> DamagedRun:
    way_out = "repeat the command of the run to train the model again"
    return DamagedRun(f"{folder.path / name} is damaged ({why}); {way_out}")
