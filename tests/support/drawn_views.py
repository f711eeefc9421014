"""A cache whose text has three views, a head that reads one of them, and a source over both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cache.joined import open_cache
from cache.layout import StreamPlan, read_layout
from cache.rows import to_stored
from cache.stream import StreamSpec
from cache.writer import CacheWriter, Row, writing_lock
from fusion.data.features import CachedFeatures
from fusion.head import Batch, HeadOutput
from fusion.head_config import AUDIO, TEXT, HeadInputs
from tests.support.toys import create, utterances_named
from tests.support.trainings import SHAPES, ToyConfig, ToyHead

COUNT, VIEWS, DIM = 40, 3, 6
LABELS = np.arange(COUNT) % 3
TRAIN, DEV = np.arange(24), np.arange(24, 32)
STREAMS = {AUDIO: "voice", TEXT: "words", "chars": "letters"}
VIEW_STREAMS = {"text.view": "words~cbca1", "text.view.2": "words~cbca2", "text.view.3": "words~cbca3"}
LACKING: Mapping[int, Sequence[int]] = {4: (1,), 5: (0, 2), 6: (0, 1, 2)}  # utterance -> views that it lacks


def rows_of_view(view: int, index: int) -> int:
    """Views of an utterance may differ in length."""
    return 2 + (index + view) % 3


def write_views_cache(path: Path, *, names: Sequence[str] = (), dtype: str = "float32") -> Path:
    """Writes a cache in which every value of a view is the number ``10 * index + view``."""
    ids = list(names) or [f"u{index}" for index in range(COUNT)]
    indices = [int(name[1:]) for name in ids]
    plans, rows = [], []
    for role, name in {**STREAMS, **VIEW_STREAMS}.items():
        view = list(VIEW_STREAMS).index(role) if role in VIEW_STREAMS else -1
        kind = role.partition(".")[0]
        shape = (DIM,) if kind == TEXT else SHAPES[role]
        stored = "uint8" if kind == "chars" else dtype
        spec = StreamSpec(name=name, role=kind, source="a/b", shape=shape, dtype=stored, rate_hz=50.0)
        failures = {place: "no view" for place, index in enumerate(indices) if view in LACKING.get(index, ())}
        lengths = np.array([0 if place in failures else _length(view, index) for place, index in enumerate(indices)])
        plans.append(StreamPlan(spec=spec, lengths=lengths, failures=failures))
        for place, index in enumerate(indices):
            if place not in failures:
                values = _values(view, index, (int(lengths[place]), *shape), stored)
                rows.append(Row(stream=name, index=place, stored=to_stored(values, stored), digest=bytes(15) + b"d"))
    create(path, utterances_named(ids), plans)
    with writing_lock(path), CacheWriter(read_layout(path)) as writer:
        writer.commit(rows)
    return path


def _length(view: int, index: int) -> int:
    return rows_of_view(view, index) if view >= 0 else 3 + index % 4


def _values(view: int, index: int, shape: tuple[int, ...], stored: str) -> np.ndarray:
    if stored == "uint8":
        return np.full(shape, index, dtype=np.uint8)
    if view >= 0:
        return np.full(shape, 10 * index + view, dtype=np.float32)
    return np.random.default_rng([index, shape[0]]).standard_normal(shape).astype(np.float32)


def views_source(path: Path | str, *, resident_bytes: int | None = None) -> CachedFeatures:
    cache = open_cache(path)
    return CachedFeatures(cache, {**STREAMS, **VIEW_STREAMS}, _labels(cache.ids), resident_bytes=resident_bytes)


def _labels(ids: Sequence[str]) -> np.ndarray:
    return np.array([int(name[1:]) % 3 for name in ids])


@dataclass(frozen=True, kw_only=True)
class ViewConfig(ToyConfig):
    size: float = 0.01

    @property
    def optional_roles(self) -> tuple[str, ...]:
        return ("text.view",)


class ViewHead(ToyHead):
    """A head with a loss that depends on the views that were drawn."""

    config_class = ViewConfig

    def forward(self, batch: Batch) -> HeadOutput:
        output = super().forward(batch)
        if not self.training:
            assert "text.view" not in batch.features, "dev and test never read a view"
            return output
        view = batch.features["text.view"].masked_fill(~batch.masks["text.view"][..., None], 0)
        seen = view.sum(dim=1)[:, :1] % 10 / batch.masks["text.view"].sum(dim=1, keepdim=True).clamp(min=1)
        return HeadOutput(output.logits, {"size": (output.logits * seen).square().mean()})


def view_head(size: float = 0.01) -> ViewHead:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        shapes = {**SHAPES, TEXT: (DIM,), "text.view": (DIM,)}
        return ViewHead(ViewConfig(dropout=0.2, size=size), HeadInputs(classes=("a", "b", "c"), shapes=shapes))
