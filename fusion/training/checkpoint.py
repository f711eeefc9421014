"""The state of an unfinished training in one file, so that a killed run goes on as if nothing had happened.

Tensors are safetensors and everything else is JSON in their metadata: nothing is unpickled. The file is written under
another name and renamed, so that a kill leaves the old state or the new one.

What decides a training, as plain values: a checkpoint must agree with it to be gone on from.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cache.errors import MmerError
from cache.files import replacing
from fusion.arrays import Indices
from fusion.data.features import BatchSource
from fusion.fingerprint import Plain, filled
from fusion.head import Head
from fusion.training.config import TrainConfig

HEAD, BEST, OPTIMIZER = "head", "best", "optimizer"
METADATA = "mmer"
FAILURE = "stopped"  # key of `TrainingState.failure` in a file


def training_identity(
    head: Head, source: BatchSource, train: Indices, dev: Indices, config: TrainConfig
) -> dict[str, dict[str, Any]]:
    """Describes a training by section and name: its configuration, the head, the utterances, the streams.

    The device is not part of it: a run may go on elsewhere, where it is bit-equal no more.
    """
    shapes = {name: list(tensor.shape) for name, tensor in head.state_dict().items()}
    parts = {
        part: [(source.ids[index], int(source.labels[index])) for index in indices.tolist()]
        for part, indices in {"train": train, "dev": dev}.items()
    }
    streams = dict(source.identity(head.training_reads))
    rows = {role: source.lengths(train, [role]).tolist() for role in streams}
    return {
        "training": asdict(config),
        "head": {"name": type(head).__name__, **asdict(head.config), "shapes": _digest(shapes)},
        "data": {**{part: _digest(named) for part, named in parts.items()}, "rows": _digest(rows)},
        "streams": streams,
    }


def training_defaults(head: Head) -> dict[str, dict[str, Any]]:
    """Gives the defaults of all fields that `training_identity` names, by section and name."""
    return {"training": asdict(TrainConfig()), "head": asdict(type(head.config)())}


@dataclass(frozen=True, kw_only=True)
class EpochScores:
    """What one epoch gave.

    Attributes:
        epoch: counted from 1.
        losses: mean over the batches of the epoch, by name; ``total`` is what was minimized.
        dev: ``wa``, ``ua``, ``wf1``, ``mf1`` and ``loss`` of the dev part after it; a file that an older version wrote
            lacks ``mf1``.
    """

    epoch: int
    losses: Mapping[str, float]
    dev: Mapping[str, float]


@dataclass(kw_only=True)
class TrainingState:
    """How far a training is.

    Attributes:
        epoch: epochs that are complete.
        batch: batches of the next epoch that are done.
        step: all batches that are done.
        best_epoch: the epoch with the best dev score, counted from 1; 0 before the first.
        sums: of the next epoch, sum and count of each loss so far.
        curves: of the complete epochs.
        scaler: state of the gradient scaler of float16.
        seconds: spent so far.
        finished: whether nothing is left to do.
        failure: why it cannot go on, empty if it can.
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
    """What a file holds.

    Attributes:
        config: what decides the training, as plain values by section and name.
        progress: how far it is.
        tensors: by section (``head``, ``best``, ``optimizer``) and name; a finished training keeps ``best`` alone.
    """

    config: Mapping[str, Plain]
    progress: TrainingState
    tensors: Mapping[str, Mapping[str, Tensor]]

    def save(self, path: Path) -> None:
        """Writes it to a file, in place of what was there.

        Raises:
            DiskFull: if there is no room.
            MmerError: if the file cannot be written.
        """
        tensors = {
            f"{section}.{name}": tensor.detach().to("cpu", copy=True).contiguous()  # copies, since some share memory
            for section, named in self.tensors.items()
            for name, tensor in named.items()
        }
        written = json.dumps({"config": self.config, "progress": _stored(self.progress)}, allow_nan=False)
        with replacing(path, shared=False) as fresh:
            save_file(tensors, fresh, metadata={METADATA: written})

    def check(self, config: Mapping[str, Plain], path: Path, defaults: Mapping[str, Plain]) -> None:
        """Checks that a training of this configuration may go on from it.

        Args:
            config: of that training.
            path: of the file, for the error.
            defaults: of fields by section, for a file that was begun before there was such a field.

        Raises:
            MmerError: if it was begun with another, naming what differs.
        """
        mine, theirs = _flat(json.loads(json.dumps(config))), _flat(filled(self.config, defaults))
        names = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
        if names:
            told = "; ".join(f"{name} is {mine.get(name)}, was {theirs.get(name)}" for name in names)
            raise MmerError(f"{path} was begun with another configuration ({told}); train in a new folder or delete it")


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads a file that `Checkpoint.save` wrote.

    Raises:
        MmerError: if it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            written = json.loads(file.metadata()[METADATA])
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no mapping
        stored = written["progress"]
        progress = TrainingState(failure=stored.pop(FAILURE), **stored)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise MmerError(f"{path} is no checkpoint that can be read ({error}); delete it to train anew") from error
    progress.curves = [EpochScores(**one) for one in stored["curves"]]
    sections: dict[str, dict[str, Tensor]] = {HEAD: {}, BEST: {}, OPTIMIZER: {}}
    for name, tensor in tensors.items():
        section, _, inner = name.partition(".")
        sections[section][inner] = tensor
    return Checkpoint(config=written["config"], progress=progress, tensors=sections)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Gives the state of an optimizer as tensors by place and name."""
    states = optimizer.state_dict()["state"]
    return {f"{place}.{name}": tensor for place, state in states.items() for name, tensor in state.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts what `optimizer_tensors` gave into an optimizer of the same parameters."""
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        place, _, inner = name.partition(".")
        states.setdefault(int(place), {})[inner] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def _stored(state: TrainingState) -> dict[str, Any]:
    """Returns a state as plain values under the keys of the file."""
    stored = asdict(state)
    failure = stored.pop("failure")
    return {**stored, FAILURE: failure}


def _digest(values: object) -> str:
    return blake2b(json.dumps(values).encode(), digest_size=16).hexdigest()


def _flat(config: Mapping[str, Plain]) -> dict[str, Any]:
    return {f"{section} {name}": value for section, named in config.items() for name, value in named.items()}
