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
from safetensors.torch import load_file, save_file
from torch import Tensor

from cache.errors import MmerError
from cache.version import mmer_version
from fusion.arrays import Indices
from fusion.data.features import BatchSource
from fusion.evaluation.task import CLASSIFICATION, ID, OUTPUT, Task
from fusion.experiment.plan import RunPlan
from fusion.fingerprint import Plain, digest_of
from fusion.head import Head, HeadConfig, HeadInputs, Weights
from fusion.heads.catalog import build_head, config_for, count_parameters, stored_head_spec
from fusion.heads.import_path import is_import_path
from fusion.protocols.folds import Fold
from fusion.run.folder import (
    COST,
    CURVES,
    PREDICTIONS,
    RUN,
    SCORES,
    SPLITS,
    WEIGHTS,
    DamagedRun,
    ModelFolder,
    RunFolder,
)
from fusion.training.loop import TrainedModel

Probabilities: TypeAlias = npt.NDArray[np.float32]
RECORDED = ("torch", "numpy", "scikit-learn", "safetensors", "h5py")
LEFT_OUT = "left out"  # of a fold: not of the label set, or without features

# Part -> what scores.json calls its utterances that the head cannot take in full.
OVER_LIMITS = {"train": "train_over_limits", "dev": "dev_over_limits", "test": "over_limits"}
NUMBERS = ("seed", "epoch", "train", "dev", "test", "test_of", "parameters")
LISTS = ("over_limits", "notes")
WRONG_COLUMNS = "not the columns and classes of the run"
ROUNDING = 1e-9  # of scores that went through JSON
Row = Mapping[str, str]
NO_INPUTS = "does not record what its head was built from"
TRAIN_ANEW = "train the run anew with --replace"


def provenance(plan: RunPlan) -> dict[str, Any]:
    """Gives what is kept of a run beside what decides it: all that reading, checking and predicting need."""
    named = {**plan.selection.starts, **plan.selection.streams}
    return {
        "cache": str(Path(plan.cache.path).absolute()),
        "label_set": plan.split.labels.name,
        "allowed": {"missing": plan.experiment.allow_missing, "leak": plan.experiment.allow_leak},
        "corpus": dict(plan.cache.header["corpus"]),
        "inputs": _inputs_record(plan.inputs),
        "specs": {role: json.loads(plan.cache.stream(name).spec.to_json()) for role, name in named.items()},
        "notes": plan.notes,
        "versions": {"mmer": mmer_version(), "python": platform.python_version()}
        | {name: version(name) for name in RECORDED},
    }


def write_splits(plan: RunPlan, folder: RunFolder) -> None:
    """Writes the part of every utterance of the cache, a column for each fold."""
    folds, names = plan.split.folds, [*plan.inputs.classes, ""]  # the class of those without is -1
    parts = np.full((len(plan.cache), len(folds)), LEFT_OUT)
    for place, fold in enumerate(folds):
        for part, indices in fold.subsets.items():
            parts[indices, place] = part
    rows = zip(plan.cache.ids, (names[index] for index in plan.split.classes), parts.tolist(), strict=True)
    header = ["id", "label", *(f"fold {fold.name}" for fold in folds)]
    folder.write_rows(SPLITS, header, ([name, label, *told] for name, label, told in rows))


def write_trained(part: ModelFolder, trained: TrainedModel, device: torch.device) -> None:
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
    part: ModelFolder,
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


def model_scores(
    plan: RunPlan,
    fold: Fold,
    head: Head,
    trained: TrainedModel,
    probabilities: Probabilities,
    *,
    source: BatchSource,
) -> dict[str, Any]:
    """Gives the scores of one model, and what they were taken over.

    Args:
        plan: of the run.
        fold: that was scored.
        head: as trained.
        trained: what training gave.
        probabilities: of its test part, ``(n, classes)``.
        source: of the features.
    """
    guess = plan.task.decide(probabilities)
    scores = plan.task.evaluate(plan.split.classes[fold.test], guess, len(plan.inputs.classes))
    return {
        "epoch": trained.best_epoch,
        **{part: len(indices) for part, indices in fold.subsets.items()},
        **scores,
        "dev_scores": dict(trained.dev),
        "test_of": plan.split.totals[fold.name],
        **{OVER_LIMITS[part]: _over_limits(plan, head, indices, source) for part, indices in fold.subsets.items()},
        "parameters": count_parameters(head),
    }


def with_digests(part: ModelFolder, scores: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Gives scores with the digests of files of their model and of themselves.

    Args:
        part: of the run folder.
        scores: as they are to be read again.
        names: of the files.
    """
    return {**scores, "digests": {**{name: part.digest(name) for name in names}, SCORES: digest_of(scores)}}


def read_scores(part: ModelFolder, task: Task = CLASSIFICATION) -> dict[str, Any]:
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


def _read_written_scores(part: ModelFolder, task: Task = CLASSIFICATION) -> dict[str, Any]:
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


def read_predictions(part: ModelFolder, names: Sequence[str], task: Task = CLASSIFICATION) -> list[Row]:
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
    part: ModelFolder, names: Sequence[str], scores: Mapping[str, Any], task: Task
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
    part: ModelFolder, names: Sequence[str], task: Task = CLASSIFICATION
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


def read_cost(part: ModelFolder) -> tuple[float, int]:
    """Reads the seconds of training and the peak of memory in bytes.

    Raises:
        Damaged: if they are not there.
    """
    cost = part.read(COST)
    try:
        return float(cost["seconds"]), int(cost["peak_bytes"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _damaged(part, COST, f"no {error}") from error


def find_damage(part: ModelFolder, names: Sequence[str], task: Task = CLASSIFICATION) -> str:
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
    except DamagedRun as error:
        return str(error)
    except (OSError, SafetensorError) as error:
        return str(_damaged(part, WEIGHTS, str(error)))


def load_model(run: RunFolder, fold: str, seed: int, head: str | None = None) -> Head:
    """Loads the trained head of one model, on the CPU and in eval mode.

    No code of the run folder is executed: the head is one of the catalog, or the class that the caller names too.

    Args:
        run: folder of the run.
        fold: name of the fold that the model was trained for.
        seed: of the model.
        head: import path ``package.module:Class`` of a head outside the catalog that may be imported.

    Raises:
        Damaged: if the weights are not the ones that were scored.
        MmerError: if the run has no such model, names a head that the caller does not, or was written by a version
            that did not record what the head was built from; or if the weights do not fit the head.
    """
    described, path = run.identity, run.path / RUN
    name = _trusted_head(described, head, path)
    folds, seeds = described["folds"], described["seeds"]
    if not isinstance(folds, dict) or not isinstance(seeds, list):
        raise MmerError(f"{path} is damaged (folds and seeds); {TRAIN_ANEW}")
    if fold not in folds or seed not in seeds:
        known = f"folds: {', '.join(folds)}; seeds: {', '.join(map(str, seeds))}"
        raise MmerError(f"{run.path} has no model of fold {fold} and seed {seed}; {known}")
    inputs, complete = _recorded_inputs(described, run.read(RUN), path)
    model = run.model(fold, seed)
    digest = read_scores(model)["digests"].get(WEIGHTS)
    why = f"cannot be built as {path} records it"
    try:
        config = config_for(name, described["head"])
        _check_shapes(config, inputs)
        why = why if complete else f"was built from weights that {path} does not record"
        # A head of the catalog is built without memory first; an imported one may compute while it is built.
        with torch.device("cpu" if is_import_path(name) else "meta"):
            expected = build_head(name, config, inputs, seed=seed)
    except (MmerError, KeyError, OverflowError, RuntimeError) as error:
        raise MmerError(f"head {name} {why} ({error}); {TRAIN_ANEW}") from error
    way_out = f"delete {model.path} and repeat the command of the run"
    weights = read_weights(model, expected, digest=digest, way_out=way_out)
    trained = build_head(name, config, inputs, seed=seed)
    trained.load_state_dict(weights)
    return trained.eval()


def read_weights(folder: ModelFolder, head: Head, *, digest: str | None, way_out: str) -> dict[str, Tensor]:
    """Reads the weights of a trained model, on the CPU.

    Args:
        folder: of the model.
        head: that they must fit; may be on the meta device.
        digest: of the file when it was written, None if it was not recorded.
        way_out: what to do if the file is damaged, for the error.

    Raises:
        Damaged: if the file cannot be read or is not the one that was written.
        MmerError: if the weights are those of another head.
    """
    path = folder.path / WEIGHTS
    try:
        weights: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DamagedRun(f"cannot read {path} ({error}); {way_out}") from error
    if digest not in {None, folder.digest(WEIGHTS)}:
        raise DamagedRun(f"{path} is not the file that was written; {way_out}")
    expected = {name: _form(tensor) for name, tensor in head.state_dict().items()}
    found = {name: _form(tensor) for name, tensor in weights.items()}
    names = sorted(name for name in expected | found if expected.get(name) != found.get(name))
    if names:
        first = f"{names[0]}: expected {expected.get(names[0], 'none')}, got {found.get(names[0], 'none')}"
        raise MmerError(f"{path} does not fit the head, {len(names)} weights differ ({first}); {way_out}")
    return weights


def find_minor_damage(part: ModelFolder) -> list[str]:
    """Says which files are lost or changed that no score depends on, so that nothing is trained anew for them."""
    told = []
    for read in (_read_curves, read_cost):
        try:
            read(part)
        except DamagedRun as error:
            told.append(f"{str(error).partition(';')[0]}; delete {part.path / SCORES} to train it anew")
    return told


def _over_limits(plan: RunPlan, head: Head, indices: Indices, source: BatchSource) -> list[str]:
    """Names the utterances of one part that a head cannot take in full."""
    read = {role: source.lengths(indices, [role]) for role in plan.experiment.head.roles}
    return [plan.cache.ids[index] for index in indices[head.over_limits(read)].tolist()]


def _trusted_head(described: Plain, trusted: str | None, path: Path) -> str:
    """Returns the name of the head of a run, unless it is a class that the caller does not name."""
    name = described["fusion"]
    if not isinstance(name, str) or "head" not in described:
        raise MmerError(f"{path} is a late fusion of other runs and has no weights; load the models of those runs")
    source = described.get("source", "")
    if is_import_path(name):
        stored_head_spec(name, allowed=trusted, source=source if isinstance(source, str) else "")
    return name


def _check_shapes(config: HeadConfig, inputs: HeadInputs) -> None:
    needed = {*config.roles, *config.training_roles, *config.prepare_roles, *config.weight_roles}
    if missing := sorted(needed - inputs.shapes.keys()):
        raise MmerError(f"no shape of {', '.join(missing)}")


def _inputs_record(inputs: HeadInputs) -> dict[str, Any]:
    """Returns what a head is built from as plain values: start weights by their form, single numbers by their value."""
    weights = {role: {name: _weight_record(held[name]) for name in held} for role, held in inputs.weights.items()}
    return {"shapes": dict(inputs.shapes), "layers": dict(inputs.layers), "weights": weights}


def _weight_record(values: npt.NDArray[Any]) -> str | float:
    number: float = values.item() if values.ndim == 0 else 0.0
    return number if values.ndim == 0 else " ".join([values.dtype.name, *map(str, values.shape)])


def _recorded_inputs(described: Plain, record: Plain, path: Path) -> tuple[HeadInputs, bool]:
    """Reads what a head was built from, with zeros for the start weights: training has put others in their place.

    Returns:
        The inputs, and whether they are complete: older versions recorded no start weights.
    """
    inputs = record.get("inputs")
    if inputs is None:
        raise MmerError(f"{path} {NO_INPUTS}; {TRAIN_ANEW}")
    try:
        found = HeadInputs(
            classes=tuple(described["labels"]),
            shapes={role: _shape(shape) for role, shape in inputs["shapes"].items()},
            layers={role: str(layers) for role, layers in inputs["layers"].items()},
            weights={role: _zeros(held) for role, held in inputs.get("weights", {}).items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError, MemoryError) as error:
        raise MmerError(f"{path} is damaged (inputs: {error}); {TRAIN_ANEW}") from error
    return found, "weights" in inputs


def _shape(sizes: Sequence[int | str]) -> tuple[int, ...]:
    shape = tuple(map(int, sizes))
    if any(size < 1 for size in shape):
        raise ValueError(f"sizes must be at least 1, got {shape}")
    return shape


def _zeros(recorded: Mapping[str, str | float]) -> Weights:
    """Returns arrays as `_weight_record` states them: zeros, and single numbers as they were."""
    found: dict[str, npt.NDArray[Any]] = {}
    for name, form in recorded.items():
        if isinstance(form, str):
            kind, *sizes = form.split()
            found[name] = np.zeros(_shape(sizes), dtype=np.dtype(kind))
        else:
            found[name] = np.array(form)
    return found


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _read_curves(part: ModelFolder) -> list[dict[str, str]]:
    _check_digest(part, CURVES, _read_written_scores(part))
    return part.read_rows(CURVES)


def _own_digest(scores: Mapping[str, Any]) -> str:
    return digest_of({name: value for name, value in scores.items() if name != "digests"})


def _check_digest(part: ModelFolder, name: str, scores: Mapping[str, Any]) -> None:
    """Refuses a file that was changed since its model was scored; runs of old keep no digests."""
    written = scores["digests"].get(name)
    if written is not None and part.digest(name) != written:
        raise _damaged(part, name, f"it is not the file that {SCORES} is of")


def _damaged(part: ModelFolder, name: str, why: str) -> DamagedRun:
    return DamagedRun(f"{part.path / name} is damaged ({why}); the command of its run trains it anew")
