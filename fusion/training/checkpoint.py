"""Checkpoint of a training: its state and its identity in one file.

A resumed training ends with the same weights as an uninterrupted one. A checkpoint can be resumed only if its identity
matches: configuration, head, utterances and streams, as plain values.

Tensors are stored as safetensors, everything else as JSON in the metadata of that file; nothing is unpickled. The file
is written under another name and renamed, so that a kill leaves either the old state or the new one.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cache.errors import MmerError
from cache.files import check_regular, replacing
from cache.json_text import is_count, is_number, parse_json
from fusion.arrays import Indices
from fusion.data.features import BatchSource
from fusion.fingerprint import Plain, with_defaults
from fusion.head import Head
from fusion.training.config import TrainConfig
from fusion.training.optimizer import Adam

HEAD, BEST, OPTIMIZER = "head", "best", "optimizer"  # sections of tensors
METADATA = "mmer"  # key of the JSON text in the metadata
FAILURE = "stopped"  # key of `TrainingState.failure` in a file


def training_identity(
    head: Head, source: BatchSource, train: Indices, dev: Indices, config: TrainConfig
) -> dict[str, dict[str, Any]]:
    """Returns the identity of a training: configuration, head, utterances and streams.

    The device does not belong to it: a training may be resumed on another device, where results are no longer
    bit-equal.

    Args:
        head: built and prepared head.
        source: source of its features.
        train: utterances of the training subset, int64 ``(n,)``.
        dev: utterances of the development subset, int64 ``(n,)``.
        config: training configuration.

    Returns:
        Plain values by section (``training``, ``head``, ``data``, ``streams``) and name.
    """
    shapes = {name: list(tensor.shape) for name, tensor in head.state_dict().items()}
    subsets = {
        subset: [(source.ids[index], source.labels[index].tolist()) for index in indices.tolist()]
        for subset, indices in {"train": train, "dev": dev}.items()
    }
    streams = dict(source.identity(head.training_reads))
    rows = {role: source.lengths(train, [role]).tolist() for role in streams}
    return {
        "training": asdict(config),
        "head": {**head.settings, "shapes": _digest(shapes)},
        "data": {**{subset: _digest(members) for subset, members in subsets.items()}, "rows": _digest(rows)},
        "streams": streams,
    }


def training_defaults(head: Head) -> dict[str, dict[str, Any]]:
    """Returns the defaults of the fields in `training_identity`, by section and name."""
    return {"training": asdict(TrainConfig()), "head": asdict(type(head.config)())}


@dataclass(frozen=True, kw_only=True)
class EpochScores:
    """Losses and development scores of one epoch.

    Attributes:
        epoch: number of the epoch, counted from 1.
        losses: mean of each loss over the batches of the epoch, by name; ``total`` is the minimized loss.
        dev: ``wa``, ``ua``, ``wf1``, ``mf1`` and ``loss`` on the development subset after the epoch; files of older
            versions have no ``mf1``.
    """

    epoch: int
    losses: Mapping[str, float]
    dev: Mapping[str, float]


@dataclass(kw_only=True)
class TrainingState:
    """Progress of a training.

    Attributes:
        epoch: number of complete epochs.
        batch: number of finished batches of the next epoch.
        step: number of finished batches of all epochs.
        best_epoch: epoch with the best development score, counted from 1; 0 before the first.
        sums: sum and count of each loss over the finished batches of the next epoch, by name.
        curves: losses and scores of the complete epochs.
        scaler: state of the gradient scaler for float16.
        seconds: training time so far.
        finished: True if the training is complete.
        failure: reason why the training cannot continue; empty if it can.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best_epoch: int = 0
    sums: dict[str, tuple[float, int]] = field(default_factory=dict)
    curves: list[EpochScores] = field(default_factory=list)
    scaler: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    finished: bool = False
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        config: identity of the training, plain values by section and name (see `training_identity`).
        progress: progress of the training.
        tensors: tensors by section (``head``, ``best``, ``optimizer``) and name; a finished training has only ``best``.
    """

    config: Mapping[str, Plain]
    progress: TrainingState
    tensors: Mapping[str, Mapping[str, Tensor]]

    def save(self, path: Path) -> None:
        """Writes the checkpoint to a file and replaces an existing one.

        Raises:
            DiskFull: if the disk is full.
            MmerError: if the file cannot be written.
        """
        flat = {
            f"{section}.{name}": tensor.detach().to("cpu", copy=True).contiguous()  # safetensors refuses shared memory
            for section, tensors in self.tensors.items()
            for name, tensor in tensors.items()
        }
        text = json.dumps({"config": self.config, "progress": _to_plain(self.progress)}, allow_nan=False)
        with replacing(path, shared=False) as fresh:
            save_file(flat, fresh, metadata={METADATA: text})

    def check(self, config: Mapping[str, Plain], path: Path, defaults: Mapping[str, Plain]) -> None:
        """Checks that a training with this identity may resume the checkpoint.

        Args:
            config: identity of that training.
            path: path of the file, for the error.
            defaults: defaults of fields by section; they stand for fields that did not exist when the file was written.

        Raises:
            MmerError: if the identities differ; names each difference.
        """
        requested = _flatten(json.loads(json.dumps(config)))  # as JSON stores it: a tuple becomes a list
        stored = _flatten(with_defaults(self.config, defaults))
        names = sorted(name for name in requested.keys() | stored.keys() if requested.get(name) != stored.get(name))
        if names:
            differences = "; ".join(
                f"{name}: {stored.get(name)} there, {requested.get(name)} requested" for name in names
            )
            raise MmerError(
                f"{path} belongs to a different training ({differences}); train in a new folder or delete the file"
            )


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a file that `Checkpoint.save` wrote.

    Raises:
        MmerError: if the file cannot be read.
    """
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            content = parse_json(file.metadata()[METADATA])
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a mapping
        config, progress = content["config"], _progress(content["progress"])
        if not all(isinstance(fields, dict) for fields in config.values()):
            raise TypeError("config must hold objects")
        sections: dict[str, dict[str, Tensor]] = {HEAD: {}, BEST: {}, OPTIMIZER: {}}
        for name, tensor in tensors.items():
            section, _, inner = name.partition(".")
            sections[section][inner] = tensor
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise MmerError(f"{path} is not a readable checkpoint ({error}); delete it to train again") from error
    return Checkpoint(config=config, progress=progress, tensors=sections)


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Turns errors of tensors that do not fit a model or its optimizer into one line.

    Raises:
        MmerError: with the path of the checkpoint.
    """
    try:
        yield
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise MmerError(f"{path} does not fit the model ({reason:.300}); delete it to train again") from error


def epoch_scores(stored: object) -> EpochScores:
    """Reads the scores of an epoch from the plain values of a file.

    Raises:
        ValueError: if they are of another kind.
    """
    if not isinstance(stored, dict) or stored.keys() != {"epoch", "losses", "dev"} or not is_count(stored["epoch"]):
        raise ValueError("the scores of an epoch must be an object of epoch, losses and dev")
    for name in ("losses", "dev"):
        if not isinstance(stored[name], dict) or not all(map(is_number, stored[name].values())):
            raise ValueError(f"{name} of an epoch must be numbers by name")
    return EpochScores(**stored)


def optimizer_tensors(optimizer: Adam) -> dict[str, Tensor]:
    """Returns the state of an optimizer as tensors, by ``INDEX.NAME`` of a parameter and its moment."""
    return {f"{index}.{name}": tensor for index, state in optimizer.tensors().items() for name, tensor in state.items()}


def restore_optimizer(optimizer: Adam, tensors: Mapping[str, Tensor]) -> None:
    """Loads the result of `optimizer_tensors` into an optimizer of the same parameters.

    Raises:
        ValueError: if a tensor does not belong to a parameter, or a parameter lacks one.
    """
    states: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        states.setdefault(int(index), {})[name] = tensor
    optimizer.load(states)


def _progress(stored: Any) -> TrainingState:
    """Reads the progress of a training from the plain values of a file.

    Raises:
        LookupError: if a value is missing.
        TypeError: if a value is of another kind.
        ValueError: if a value is invalid.
    """
    values = dict(stored)
    values["failure"] = values.pop(FAILURE)
    values["curves"] = [epoch_scores(scores) for scores in values["curves"]]
    counts = ("epoch", "batch", "step", "best_epoch")
    if not all(is_count(values[name]) for name in counts) or values["best_epoch"] > len(values["curves"]):
        raise ValueError(f"{', '.join(counts)} must be counts")
    if not isinstance(values["failure"], str) or not isinstance(values["finished"], bool):
        raise TypeError("the end of the training is of another type")
    if not is_number(values["seconds"]) or not isinstance(values["scaler"], dict):
        raise TypeError("seconds or the scaler is of another type")
    for sums in values["sums"].values():
        total, count = sums
        if not is_number(total) or not is_count(count):
            raise TypeError("the sums of the losses are of another type")
    return TrainingState(**values)


def _to_plain(state: TrainingState) -> dict[str, Any]:
    """Returns a state as plain values under the keys of the file."""
    plain = asdict(state)
    plain[FAILURE] = plain.pop("failure")
    return plain


def _digest(values: object) -> str:
    return blake2b(json.dumps(values).encode(), digest_size=16).hexdigest()


def _flatten(config: Mapping[str, Plain]) -> dict[str, Any]:
    return {f"{section}.{name}": value for section, fields in config.items() for name, value in fields.items()}
