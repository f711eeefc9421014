"""What a run writes down: what it is, the part of every utterance, curves, weights, predictions and scores.

What a scored model left in its folder, read and checked: files by their digests, scores by the predictions.
"""

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
from safetensors.torch import save_file

from cache.errors import MmerError
from cache.version import mmer_version
from fusion.evaluation.task import CLASSIFICATION, ID, OUTPUT, Task
from fusion.experiment.plan import Plan
from fusion.fingerprint import digest_of
from fusion.heads.catalog import AnyHead, count_parameters
from fusion.protocols.folds import Fold, Places
from fusion.run.folder import COST, CURVES, PREDICTIONS, SCORES, SPLITS, WEIGHTS, Damaged, RunFolder
from fusion.training.loop import TrainedFold

Probabilities: TypeAlias = npt.NDArray[np.float32]
Lengths: TypeAlias = Mapping[str, npt.NDArray[np.int64]]  # by role
RECORDED = ("torch", "numpy", "scikit-learn", "safetensors", "h5py")
LEFT_OUT = "left out"  # of a fold: not of the label set, or without features

# Part -> what scores.json calls its utterances that the head cannot take in full.
OVER_LIMITS = {"train": "train_over_limits", "dev": "dev_over_limits", "test": "over_limits"}
NUMBERS = ("seed", "epoch", "train", "dev", "test", "test_of", "parameters")
LISTS = ("over_limits", "notes")
WRONG_COLUMNS = "not the columns and classes of the run"
ROUNDING = 1e-9  # of scores that went through JSON
Row = Mapping[str, str]


def recorded(plan: Plan) -> dict[str, Any]:
    """Gives what is kept of a run beside what decides it: all that reading, checking and predicting need."""
    named = {**plan.chosen.starts, **plan.chosen.streams}
    return {
        "cache": str(Path(plan.cache.path).absolute()),
        "label_set": plan.split.labels.name,
        "allowed": {"missing": plan.experiment.allow_missing, "leak": plan.experiment.allow_leak},
        "corpus": dict(plan.cache.header["corpus"]),
        "inputs": {"shapes": dict(plan.inputs.shapes), "layers": dict(plan.inputs.layers)},
        "specs": {role: json.loads(plan.cache.stream(name).spec.to_json()) for role, name in named.items()},
        "notes": plan.notes,
        "versions": {"mmer": mmer_version(), "python": platform.python_version()}
        | {name: version(name) for name in RECORDED},
    }


def write_splits(plan: Plan, folder: RunFolder) -> None:
    """Writes the part of every utterance of the cache, a column for each fold."""
    folds, names = plan.split.folds, [*plan.inputs.classes, ""]  # the class of those without is -1
    parts = np.full((len(plan.cache), len(folds)), LEFT_OUT)
    for place, fold in enumerate(folds):
        for part, indices in fold.parts.items():
            parts[indices, place] = part
    rows = zip(plan.cache.ids, (names[index] for index in plan.split.classes), parts.tolist(), strict=True)
    header = ["id", "label", *(f"fold {fold.name}" for fold in folds)]
    folder.write_rows(SPLITS, header, ([name, label, *told] for name, label, told in rows))


def write_trained(part: RunFolder, trained: TrainedFold, device: torch.device) -> None:
    """Writes what training left: weights, curves, time and memory."""
    with part.replacing(WEIGHTS) as path:
        save_file({name: tensor.contiguous() for name, tensor in trained.weights.items()}, path)
    losses = list(dict.fromkeys(name for one in trained.curves for name in one.losses))
    dev = list(dict.fromkeys(name for one in reversed(trained.curves) for name in one.dev))  # the latest has them all
    rows = [
        [one.epoch, *(one.losses.get(name, "") for name in losses), *(one.dev.get(name, "") for name in dev)]
        for one in trained.curves
    ]
    part.write_rows(CURVES, ["epoch", *losses, *(f"dev_{name}" for name in dev)], rows)
    cost = {"seconds": round(trained.seconds, 3), "peak_bytes": trained.peak_bytes, "device": str(device)}
    part.write(COST, cost)


def write_predictions(
    part: RunFolder,
    ids: Sequence[str],
    truth: Sequence[str],
    probabilities: npt.NDArray[Any],
    names: Sequence[str],
    *,
    task: Task = CLASSIFICATION,
) -> None:
    """Writes the truth, the guess and the probability of every class of each test utterance.

    Args:
        part: of the run folder.
        ids: of the utterances.
        truth: names of their classes.
        probabilities: ``(n, classes)``.
        names: of the classes.
        task: task with the columns of the file.

    Raises:
        MmerError: if a probability is not finite.
    """
    finite = np.isfinite(probabilities).all(axis=1)
    if not finite.all():
        raise MmerError(f"the logits of test utterance {ids[int(finite.argmin())]} are not finite; see its features")
    rows = [[name, *task.row(label, row, names)] for name, label, row in zip(ids, truth, probabilities, strict=True)]
    part.write_rows(PREDICTIONS, [ID, *task.columns(names)], rows)


def scores_of(
    plan: Plan,
    fold: Fold,
    head: AnyHead,
    trained: TrainedFold,
    probabilities: Probabilities,
    *,
    lengths: Lengths,
) -> dict[str, Any]:
    """Gives the scores of one model, and what they were taken over.

    Args:
        plan: of the run.
        fold: that was scored.
        head: as trained.
        trained: what training gave.
        probabilities: of its test part, ``(n, classes)``.
        lengths: role -> rows of every utterance of the cache.
    """
    guess = plan.task.decide(probabilities)
    scores = plan.task.evaluate(plan.split.classes[fold.test], guess, len(plan.inputs.classes))
    return {
        "epoch": trained.best_epoch,
        **{part: len(indices) for part, indices in fold.parts.items()},
        **scores,
        "dev_scores": dict(trained.dev),
        "test_of": plan.split.totals[fold.name],
        **{OVER_LIMITS[part]: _over_limits(plan, head, indices, lengths) for part, indices in fold.parts.items()},
        "parameters": count_parameters(head),
    }


def sealed(part: RunFolder, scores: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Gives scores with the digests of files of their model and of themselves.

    Args:
        part: of the run folder.
        scores: as they are to be read again.
        names: of the files.
    """
    return {**scores, "digests": {**{name: part.digest(name) for name in names}, SCORES: digest_of(scores)}}


def read_scores(part: RunFolder, task: Task = CLASSIFICATION) -> dict[str, Any]:
    """Reads the scores of a model.

    A score that the version which wrote the file did not know is computed from the predictions.

    Args:
        part: of the run folder.
        task: task of the run.

    Raises:
        Damaged: if they are not there, or not all of them.
    """
    scores = _read_written_scores(part, task)
    if all(name in scores for name in task.names):
        return scores
    columns = next(iter(part.read_rows(PREDICTIONS)), {})
    names = [name.removeprefix(OUTPUT) for name in columns if name and name.startswith(OUTPUT)]
    found = _read_scored_predictions(part, names, scores, task)[1] | scores
    by_name = {name: found[name] for name in task.names}
    complete: dict[str, Any] = {}
    for name, value in scores.items():  # in the order of a file that has them all
        complete |= by_name if name in by_name else {name: value}
    return complete | by_name


def _read_written_scores(part: RunFolder, task: Task = CLASSIFICATION) -> dict[str, Any]:
    """Reads the scores of a model as they were written."""
    found = part.read(SCORES)
    wanted: dict[str, Any] = {
        "fold": str,
        **dict.fromkeys(NUMBERS, (int, float)),
        **dict.fromkeys(LISTS, list),
        "digests": dict,
    }
    scores = {"digests": {}, **found} if isinstance(found, dict) else {}
    wanted |= {name: (int, float) for name in task.names if name in scores}
    if not all(isinstance(scores.get(name), kind) for name, kind in wanted.items()):
        raise _damaged(part, SCORES, "something is missing")
    if scores["digests"].get(SCORES) not in {None, _own_digest(scores)}:
        raise _damaged(part, SCORES, "it is not what was written")
    return scores


def read_predictions(part: RunFolder, names: Sequence[str], task: Task = CLASSIFICATION) -> list[Row]:
    """Reads the test predictions of a model, and holds them against its scores.

    Args:
        part: of the run folder.
        names: of the classes.
        task: task of the run.

    Raises:
        Damaged: if they are not there, or the scores do not follow from them.
    """
    return _read_scored_predictions(part, names, _read_written_scores(part, task), task)[0]


def _read_scored_predictions(
    part: RunFolder, names: Sequence[str], scores: Mapping[str, Any], task: Task
) -> tuple[list[Row], dict[str, float]]:
    """Reads the test predictions of a model, compares them with its written scores, and computes all scores."""
    rows = part.read_rows(PREDICTIONS)
    if len(rows) != scores["test"]:
        raise _damaged(part, PREDICTIONS, f"{len(rows)} of {scores['test']} utterances")
    try:
        truth, guess = task.parse(rows, names)
    except (KeyError, ValueError) as error:
        raise _damaged(part, PREDICTIONS, WRONG_COLUMNS) from error
    if not all(row.get(ID) for row in rows):
        raise _damaged(part, PREDICTIONS, WRONG_COLUMNS)
    found = task.evaluate(truth, guess, len(names))
    written = [name for name in task.names if name in scores]
    if not all(abs(found[name] - scores[name]) <= ROUNDING for name in written):  # NaN is no score either
        raise _damaged(part, PREDICTIONS, f"they do not give what {SCORES} says")
    _check_digest(part, PREDICTIONS, scores)
    return rows, found  # type: ignore[return-value]


def read_probabilities(
    part: RunFolder, names: Sequence[str], task: Task = CLASSIFICATION
) -> dict[str, npt.NDArray[np.float64]]:
    """Reads the class probabilities that a model gave its test utterances; by id, float64 ``(classes,)``.

    Raises:
        Damaged: if they are not there, or not all of them.
    """
    rows = read_predictions(part, names, task)
    try:
        return {row["id"]: np.array([float(row[OUTPUT + name]) for name in names]) for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(part, PREDICTIONS, f"no probability: {error}") from error


def read_cost(part: RunFolder) -> tuple[float, int]:
    """Reads the seconds of training and the peak of memory in bytes.

    Raises:
        Damaged: if they are not there.
    """
    cost = part.read(COST)
    try:
        return float(cost["seconds"]), int(cost["peak_bytes"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _damaged(part, COST, f"no {error}") from error


def damage(part: RunFolder, names: Sequence[str], task: Task = CLASSIFICATION) -> str:
    """Says what is wrong with the result of a model that is trained and scored; empty if nothing is.

    Args:
        part: of the run folder.
        names: of the classes.
        task: task of the run.

    Raises:
        MmerError: if a file is there and cannot be read.
    """
    try:
        read_probabilities(part, names, task)
        _check_digest(part, WEIGHTS, _read_written_scores(part, task))
        with safe_open(part.path / WEIGHTS, framework="np"):
            return ""
    except Damaged as error:
        return str(error)
    except (OSError, SafetensorError) as error:
        return str(_damaged(part, WEIGHTS, str(error)))


def loss_beside(part: RunFolder) -> list[str]:
    """Says which files are lost or changed that no score depends on, so that nothing is trained anew for them."""
    told = []
    for read in (_read_curves, read_cost):
        try:
            read(part)
        except Damaged as error:
            told.append(f"{str(error).partition(';')[0]}; delete {part.path / SCORES} to train it anew")
    return told


def _over_limits(plan: Plan, head: AnyHead, indices: Places, lengths: Lengths) -> list[str]:
    """Names the utterances of one part that a head cannot take in full."""
    read = {role: lengths[role][indices] for role in plan.experiment.head.roles}
    return [plan.cache.ids[index] for index in indices[head.over_limits(read)].tolist()]


def _read_curves(part: RunFolder) -> list[dict[str, str]]:
    _check_digest(part, CURVES, _read_written_scores(part))
    return part.read_rows(CURVES)


def _own_digest(scores: Mapping[str, Any]) -> str:
    return digest_of({name: value for name, value in scores.items() if name != "digests"})


def _check_digest(part: RunFolder, name: str, scores: Mapping[str, Any]) -> None:
    """Refuses a file that was changed since its model was scored; runs of old keep no digests."""
    written = scores["digests"].get(name)
    if written is not None and part.digest(name) != written:
        raise _damaged(part, name, f"it is not the file that {SCORES} is of")


def _damaged(part: RunFolder, name: str, why: str) -> Damaged:
    return Damaged(f"{part.path / name} is damaged ({why}); the command of its run trains it anew")
