"""A small cache that can be learnt from, a head after the contract, and a training of it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cache.joined import open_cache
from cache.layout import StreamPlan, read_layout
from cache.rows import to_stored
from cache.stream import StreamSpec
from cache.writer import CacheWriter, Row, writing_lock
from fusion.data.features import CachedFeatures
from fusion.head import Batch, Head, HeadOutput
from fusion.head_config import AUDIO, TEXT, HeadConfig, HeadInputs
from fusion.nn.dropout import Dropout
from fusion.nn.layers import Pool, input_projection
from fusion.training.checkpoint import EpochScores
from fusion.training.config import TrainConfig
from fusion.training.interrupt import never_stop
from fusion.training.loop import train_fold
from fusion.training.model import TrainedModel
from tests.support.toys import create, utterances_named

COUNT, CLASSES = 40, 3
TRAIN, DEV, TEST = np.arange(24), np.arange(24, 32), np.arange(32, 40)
LABELS = np.arange(COUNT) % CLASSES
STREAMS = {AUDIO: "voice", TEXT: "words", "chars": "letters"}
SHAPES: Mapping[str, tuple[int, ...]] = {AUDIO: (6,), TEXT: (2, 6), "chars": (1,)}
DTYPES = {AUDIO: "float16", TEXT: "float32", "chars": "uint8"}
CONFIG = TrainConfig(epochs=3, batch_size=7, lr=0.01, seed=3)


@dataclass(frozen=True, kw_only=True)
class ToyConfig(HeadConfig):
    size: float = 0.1

    @property
    def training_roles(self) -> tuple[str, ...]:
        return ("chars",)

    @property
    def loss_weights(self) -> Mapping[str, float]:
        return {"size": self.size} if self.size else {}


class ToyHead(Head):
    config_class, stackable = ToyConfig, True
    config: ToyConfig

    def __init__(self, config: ToyConfig, inputs: HeadInputs) -> None:
        super().__init__(config, inputs)
        dim = config.width(inputs.shapes)
        self.fronts = nn.ModuleDict({role: input_projection(config, inputs, role, dim=dim) for role in config.roles})
        self.pool = Pool(dim, kind="mean", learned=config.modality_dropout > 0)
        self.dropout = Dropout(config.dropout)
        self.out = nn.Linear(dim * len(config.roles), len(inputs.classes))

    def forward(self, batch: Batch) -> HeadOutput:
        pooled = [self.pool(front(batch.features[role]), batch.masks[role]) for role, front in self.fronts.items()]
        vector: Tensor = self.dropout(torch.cat(pooled, dim=-1))
        losses = {}
        if self.training and self.config.loss_weights:
            letters = batch.features["chars"][..., 0].float().masked_fill(~batch.masks["chars"], 0)
            losses = {"size": vector.square().mean() + letters.mean() / 256}
        return HeadOutput(self.out(vector), losses)


def toy_head(config: ToyConfig | None = None) -> ToyHead:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return ToyHead(config or ToyConfig(dropout=0.2), HeadInputs(classes=("a", "b", "c"), shapes=SHAPES))


def rows_of(role: str, index: int, length: int) -> npt.NDArray[np.float32]:
    """Noise around a place of the class."""
    values = np.random.default_rng([index, length]).standard_normal((length, *SHAPES[role])).astype(np.float32)
    values[..., LABELS[index] % SHAPES[role][-1]] += 1
    return np.abs(values * 40).astype(np.uint8) if role == "chars" else values


def write_cache(path: Path, *, without: Mapping[str, int] | None = None, dtype: str = "float16") -> None:
    """Writes the cache; `without` names an utterance that a role lacks."""
    path.write_bytes(_cache_bytes(frozenset((without or {}).items()), dtype))


@cache
def _cache_bytes(without: frozenset[tuple[str, int]], dtype: str) -> bytes:
    lacking = dict(without)
    random = np.random.default_rng(0)
    plans = {}
    for role, name in STREAMS.items():
        stored = dtype if role == AUDIO else DTYPES[role]
        spec = StreamSpec(name=name, role=role, source="a/b", shape=SHAPES[role], dtype=stored, rate_hz=50.0)
        lengths = random.integers(1, 20, COUNT)
        failures = {lacking[role]: "missing"} if role in lacking else {}
        lengths[list(failures)] = 0
        plans[role] = StreamPlan(spec=spec, lengths=lengths, failures=failures)
    rows = [
        Row(
            stream=plan.spec.name,
            index=index,
            stored=to_stored(rows_of(role, index, length), plan.spec.dtype),
            digest=bytes(16),
        )
        for role, plan in plans.items()
        for index, length in enumerate(plan.lengths.tolist())
        if index not in plan.failures
    ]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.h5"
        create(path, utterances_named([f"u{index}" for index in range(COUNT)]), list(plans.values()))
        with writing_lock(path), CacheWriter(read_layout(path)) as writer:
            writer.commit(rows)
        return path.read_bytes()


def toy_source(path: Path, *, resident_bytes: int | None = None) -> CachedFeatures:
    return CachedFeatures(open_cache(path), STREAMS, LABELS, resident_bytes=resident_bytes)


@lru_cache(maxsize=4)
def _source(path: Path, written_ns: int, inode: int, resident_bytes: int | None) -> CachedFeatures:
    return toy_source(path, resident_bytes=resident_bytes)


def train(
    cached: Path,
    *,
    config: TrainConfig = CONFIG,
    head: Head | None = None,
    resident_bytes: int | None = None,
    checkpoint: Path | None = None,
    save_every_s: float = 0,
    on_epoch: Callable[[EpochScores], None] | None = None,
    stopping: Callable[[], bool] = never_stop,
) -> TrainedModel:
    """Trains on a cache; the features of one that nothing has written to since are read once."""
    found = cached.stat()
    return train_fold(
        head or toy_head(),
        _source(cached, found.st_mtime_ns, found.st_ino, resident_bytes),
        TRAIN,
        DEV,
        config,
        checkpoint=checkpoint,
        save_every_s=save_every_s,
        on_epoch=on_epoch,
        stopping=stopping,
    )


def assert_same(one: TrainedModel, other: TrainedModel) -> None:
    """Checks that two trainings are bit-equal."""
    assert one.curves == other.curves
    assert one.best_epoch == other.best_epoch
    assert one.weights.keys() == other.weights.keys()
    for name, weight in one.weights.items():
        assert torch.equal(weight, other.weights[name]), name


def train_slowly(cache: Path, checkpoint: Path) -> None:
    """Trains until somebody kills this process, who reads of every epoch that is over."""

    def told(scores: EpochScores) -> None:
        print(scores.epoch, flush=True)  # noqa: T201
        time.sleep(0.05)

    train(cache, checkpoint=checkpoint, on_epoch=told)
