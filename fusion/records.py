"""What a run writes down: what it is, the part of every utterance, curves, weights, predictions and scores."""

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from cache.errors import MmerError
from cache.version import mmer_version
from fusion.heads.catalog import AnyHead, count_parameters
from fusion.members import Fold, Places
from fusion.metrics import score as score_guesses
from fusion.plan import Plan
from fusion.run import COST, CURVES, PREDICTIONS, SPLITS, WEIGHTS, RunFolder
from fusion.trainer import TrainedFold

Probabilities: TypeAlias = npt.NDArray[np.float32]
Lengths: TypeAlias = Mapping[str, npt.NDArray[np.int64]]  # by role

RECORDED = ("torch", "numpy", "scikit-learn", "safetensors", "h5py")
LEFT_OUT = "left out"  # of a fold: not of the label set, or without features
# Part -> what scores.json calls its utterances that the head cannot take in full.
OVER_LIMITS = {"train": "train_over_limits", "dev": "dev_over_limits", "test": "over_limits"}


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
    dev = list(trained.curves[0].dev)
    rows = [
        [one.epoch, *(one.losses.get(name, "") for name in losses), *(one.dev[name] for name in dev)]
        for one in trained.curves
    ]
    part.write_rows(CURVES, ["epoch", *losses, *(f"dev_{name}" for name in dev)], rows)
    cost = {"seconds": round(trained.seconds, 3), "peak_bytes": trained.peak_bytes, "device": str(device)}
    part.write(COST, cost)


def write_predictions(
    part: RunFolder, ids: Sequence[str], truth: Sequence[str], probabilities: npt.NDArray[Any], names: Sequence[str]
) -> None:
    """Writes the truth, the guess and the probability of every class of each test utterance.

    Args:
        part: of the run folder.
        ids: of the utterances.
        truth: names of their classes.
        probabilities: ``(n, classes)``.
        names: of the classes.

    Raises:
        MmerError: if a probability is not finite.
    """
    finite = np.isfinite(probabilities).all(axis=1)
    if not finite.all():
        raise MmerError(f"the logits of test utterance {ids[int(finite.argmin())]} are not finite; see its features")
    rows = [
        [name, label, names[int(row.argmax())], *map(float, row)]
        for name, label, row in zip(ids, truth, probabilities, strict=True)
    ]
    part.write_rows(PREDICTIONS, ["id", "label", "guess", *(f"p_{name}" for name in names)], rows)


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
    scores = score_guesses(plan.split.classes[fold.test], probabilities.argmax(axis=1), len(plan.inputs.classes))
    return {
        "epoch": trained.best_epoch,
        **{part: len(indices) for part, indices in fold.parts.items()},
        **scores.as_dict(),
        "dev_scores": dict(trained.dev),
        "test_of": plan.split.totals[fold.name],
        **{OVER_LIMITS[part]: _over_limits(plan, head, indices, lengths) for part, indices in fold.parts.items()},
        "parameters": count_parameters(head),
    }


def _over_limits(plan: Plan, head: AnyHead, indices: Places, lengths: Lengths) -> list[str]:
    """Names the utterances of one part that a head cannot take in full."""
    read = {role: lengths[role][indices] for role in plan.experiment.head.roles}
    return [plan.cache.ids[index] for index in indices[head.over_limits(read)].tolist()]
