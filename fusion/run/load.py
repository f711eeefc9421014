"""Trained heads, loaded from a run folder: the head as run.json records it, its weights checked by digest and shape."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cache.errors import MmerError
from cache.files import check_regular
from cache.json_text import is_count
from cache.stream import StreamSpec
from fusion.end_to_end.learning.tune import parse_tunes
from fusion.evaluation.catalog import AUTO_LOSS, loss_of, task_of
from fusion.evaluation.dimensions import TargetScale
from fusion.evaluation.task import Task
from fusion.fingerprint import Plain
from fusion.head import Head
from fusion.head_config import CTC_SYMBOLS, MOST_CTC_SYMBOLS, HeadConfig, HeadInputs, Weights
from fusion.heads.build import build_head
from fusion.heads.catalog import config_for, is_import_path, stored_head_spec
from fusion.run.artifacts import read_scores
from fusion.run.final import read_final
from fusion.run.folder import (
    FINAL,
    FINAL_JSON,
    RUN,
    WEIGHTS,
    DamagedRun,
    ModelFolder,
    RunFolder,
    encoder_weights,
)

HEADER_BYTES = 1 << 20  # far beyond the names and shapes of the weights of a head
TRAIN_AGAIN = "train the run again with --replace"


def load_model(run: RunFolder, fold: str, seed: int, head: str | None = None) -> Head:
    """Loads the trained head of one model, on the CPU and in eval mode.

    No code of the run folder is executed: the head is in the catalog, or is the class that the caller names.

    Args:
        run: folder of the run.
        fold: name of the fold of the model; ``final`` for the model of all utterances.
        seed: seed of the model.
        head: import path ``package.module:Class`` of a head outside the catalog that may be imported.

    Raises:
        DamagedRun: if the weights are not the weights that were scored.
        MmerError: if the run has no such model, names a head that the caller does not name, or was written by a version
            that did not record the inputs of the head; or if the weights do not fit the head.
    """
    identity, path = run.identity, run.path / RUN
    name = _trusted_head(identity, head, path)
    folds, seeds = identity["folds"], identity["seeds"]
    model = run.model(fold, seed)
    final = fold == FINAL and fold not in folds and (model.path / FINAL_JSON).exists()
    if (fold not in folds and not final) or seed not in seeds:
        known = f"folds: {', '.join(folds)}; seeds: {', '.join(map(str, seeds))}"
        way_out = "; train the final model with --final" if fold == FINAL else ""
        raise MmerError(f"{run.path} has no model of fold {fold} and seed {seed}; {known}{way_out}")
    inputs, complete = _recorded_inputs(identity, run.record, path)
    digests: Plain = (read_final(model) if final else read_scores(model, task_of(identity)))["digests"]
    why = f"cannot be built as {path} records it"
    try:
        config = config_for(name, identity["head"])
        _check_shapes(config, inputs)
        why = why if complete else f"was built from weights that {path} does not record"
        # A head of the catalog is first built without memory; an imported head may compute while it is built.
        with torch.device("cpu" if is_import_path(name) else "meta"):
            expected = build_head(name, config, inputs, seed=seed)
    except (MmerError, KeyError, OverflowError, RuntimeError) as error:
        raise MmerError(f"head {name} {why} ({error}); {TRAIN_AGAIN}") from error
    way_out = f"delete {model.path} and repeat the command of the run"
    weights = read_weights(model, expected, digest=digests.get(WEIGHTS), way_out=way_out)
    trained = build_head(name, config, inputs, seed=seed)
    trained.load_state_dict(weights)
    if identity.get("tune"):
        trained = _with_encoders(trained, model, digests, run)
    return trained.eval()


def load_scale(model: ModelFolder, task: Task, *, final: bool) -> TargetScale | None:
    """Loads the scale of the values that a model predicts; None for classes.

    Args:
        model: folder of the model.
        task: task of the run.
        final: True for a model of all utterances.

    Raises:
        DamagedRun: if the scale is missing or invalid.
    """
    if task.has_classes:
        return None
    record: Plain = read_final(model) if final else read_scores(model, task)
    try:
        return TargetScale(**{name: tuple(map(float, record["scale"][name])) for name in ("mean", "std")})
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedRun(f"{model.path} does not record the scale of its values ({error}); {TRAIN_AGAIN}") from error


def read_weights(folder: ModelFolder, head: Head, *, digest: str | None, way_out: str) -> dict[str, Tensor]:
    """Reads the weights of a trained model, on the CPU.

    Args:
        folder: folder of the model.
        head: head that the weights must fit; may be on the meta device.
        digest: digest of the file when it was written, None if it was not recorded.
        way_out: remedy for a damaged file, for the error.

    Raises:
        DamagedRun: if the file cannot be read or is not the file that was written.
        MmerError: if the weights do not fit the head.
    """
    path = folder.path / WEIGHTS
    try:
        check_regular(path)
        _check_size(path, head, way_out)
        weights: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError, ValueError, LookupError, RuntimeError) as error:
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


def _check_size(path: Path, head: Head, way_out: str) -> None:
    """Checks that a file is not much larger than the weights of a head, before memory is taken for it."""
    expected = sum(tensor.numel() * tensor.element_size() for tensor in head.state_dict().values())
    size = path.stat().st_size
    if size > 2 * expected + HEADER_BYTES:
        raise MmerError(f"{path} does not fit the head ({size} bytes, the head has {expected}); {way_out}")


def _with_encoders(head: Head, model: ModelFolder, digests: Plain, run: RunFolder) -> Head:
    """Combines the tuned encoders of a model with its head, after a check of their digests."""
    from fusion.end_to_end.learning.build import load_tuned  # imports transformers, which frozen features do not need
    from fusion.end_to_end.learning.start import recorded_start

    identity, record, path = run.identity, run.record, run.path / RUN
    try:
        tunes = parse_tunes(f"{role}={depth}" for role, depth in identity["tune"].items())
        specs = {role: StreamSpec.from_json(json.dumps(record["specs"][role])) for role in tunes}
        starts = {
            role: recorded_start(tune, specs[role], head.inputs.layers[role], head.inputs.shapes[role])
            for role, tune in tunes.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError, MmerError) as error:
        raise MmerError(f"{path} is damaged (tuned encoders: {error}); {TRAIN_AGAIN}") from error
    for role in starts:
        if digests.get(encoder_weights(role)) != model.digest(encoder_weights(role)):
            raise DamagedRun(f"{model.path / role} is not the encoder that was written; {TRAIN_AGAIN}")
    return load_tuned(head, model.path, starts)


def _trusted_head(identity: Plain, trusted: str | None, path: Path) -> str:
    """Returns the name of the head of a run.

    An import path must be the path that the caller names.
    """
    name = identity["fusion"]
    if not isinstance(name, str) or "head" not in identity:
        raise MmerError(f"{path} is a late fusion of other runs and has no weights; load the models of those runs")
    source = identity.get("source", "")
    if is_import_path(name):
        stored_head_spec(name, allowed=trusted, source=source if isinstance(source, str) else "")
    return name


def _check_shapes(config: HeadConfig, inputs: HeadInputs) -> None:
    needed = {*config.roles, *config.training_roles, *config.prepare_roles, *config.weight_roles}
    if missing := sorted(needed - inputs.shapes.keys()):
        raise MmerError(f"no shape of {', '.join(missing)}")


def _recorded_inputs(identity: Plain, record: Plain, path: Path) -> tuple[HeadInputs, bool]:
    """Reads the inputs of a head.

    Pre-trained weights are zeros, because the trained weights replace them.

    Returns:
        The inputs, and True if they are complete: older versions recorded no pre-trained weights.
    """
    inputs = record.get("inputs")
    if inputs is None:
        raise MmerError(f"{path} does not record what its head was built from; {TRAIN_AGAIN}")
    try:
        recorded = HeadInputs(
            classes=tuple(identity["labels"]),
            shapes={role: _shape(shape) for role, shape in inputs["shapes"].items()},
            layers={role: str(layers) for role, layers in inputs["layers"].items()},
            weights={role: _zeros(held) for role, held in inputs.get("weights", {}).items()},
            tuned=frozenset(identity.get("tune", {})),
            symbols=_symbols(inputs.get("symbols", CTC_SYMBOLS)),
            loss=loss_of(task_of(identity), AUTO_LOSS),  # a trained head does not compute it
        )
    except (AttributeError, KeyError, TypeError, ValueError, MemoryError) as error:
        raise MmerError(f"{path} is damaged (inputs: {error}); {TRAIN_AGAIN}") from error
    return recorded, "weights" in inputs


def _symbols(count: object) -> int:
    if not isinstance(count, int) or not is_count(count) or not 2 <= count <= MOST_CTC_SYMBOLS:
        raise ValueError(f"symbols must be 2 to {MOST_CTC_SYMBOLS}, got {count!r}")
    return count


def _shape(sizes: Sequence[int | str]) -> tuple[int, ...]:
    shape = tuple(map(int, sizes))
    if any(size < 1 for size in shape):
        raise ValueError(f"sizes must be at least 1, got {shape}")
    return shape


def _zeros(recorded: Mapping[str, str | float]) -> Weights:
    """Returns arrays for the records of `_weight_record`.

    They are zeros, except single numbers, which have their values.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, record in recorded.items():
        if isinstance(record, str):
            kind, *sizes = record.split()
            arrays[name] = np.zeros(_shape(sizes), dtype=np.dtype(kind))
        else:
            arrays[name] = np.array(record)
    return arrays


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
