"""A small cache with rows of every role, and models of every head that can be trained on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from cache.joined import open_cache
from cache.layout import StreamPlan, read_layout
from cache.rows import to_stored
from cache.stream import ROLES, StreamSpec
from cache.writer import CacheWriter, Row, writing_lock
from fusion.data.features import CachedFeatures, TrainingSubset
from fusion.head import Head
from fusion.heads.build import build_head
from fusion.heads.catalog import HEADS, config_for
from fusion.training.config import TrainConfig
from fusion.training.model import TrainedModel
from tests.support.heads import Sample, head_inputs, samples
from tests.support.toys import create, utterances_named

INPUTS = head_inputs()
DTYPES = {"codes": "uint16", "tokens": "int32", "chars": "uint8"}
TRAIN, DEV, TEST = np.arange(16), np.arange(16, 24), np.arange(24, 30)
SMALL: Mapping[str, Mapping[str, object]] = {
    "rescmfa": {"layers": 1, "text_slots": 15, "audio_slots": 30},  # slots for less than all tokens
    "tab": {"layers": 1, "feedforward": 24},
    "jfm": {"blocks": 1, "extractor_layers": 1},
    "label-guided": {"min_count": 1, "span_mask": 0.2},
}
# What models of one stack may differ in, beside the fields of their training and their dropout.
APART: Mapping[str, Sequence[Mapping[str, object]]] = {
    "rescmfa": [{"alpha": 0.1}, {"alpha": 2.0}],
    "jfm": [{"icl_weight": 0.5}, {"layers": "last"}],
    "label-guided": [{"mu_m": 2.0, "mu_c": 0.1}, {"text_labels": "random", "words": 3, "tonal_labels": "random"}],
}
STACKED = [name for name in HEADS if name not in {"bimodal", "probe"}]
CONFIG = TrainConfig(epochs=2, batch_size=8, patience=100)


@dataclass(frozen=True, kw_only=True)
class Made:
    """One model of a stack."""

    name: str
    fields: Mapping[str, object]
    config: TrainConfig

    def head(self, source: CachedFeatures) -> Head:
        """Builds it anew."""
        config = config_for(self.name, {**SMALL.get(self.name, {}), **self.fields})
        head = build_head(self.name, config, INPUTS, seed=self.config.seed)
        head.prepare(TrainingSubset(source, TRAIN))
        return head


def models(name: str, config: TrainConfig = CONFIG) -> list[Made]:
    """Gives three models that may share a stack and agree in as little as they can."""
    first, second = APART.get(name, [{}, {}])
    return [
        Made(name=name, fields={"dropout": 0.1, **first}, config=config),
        Made(
            name=name,
            fields={"dropout": 0.3, **second},
            config=replace(config, lr=5e-4, seed=1, weight_decay=0.2, schedule="cosine"),
        ),
        Made(name=name, fields={"dropout": 0.2}, config=replace(config, lr=1e-4, seed=2, clip=0.0, warmup=0.3)),
    ]


def source_of(path: Path) -> CachedFeatures:
    """Writes the cache and gives its features."""
    utterances = samples(30, INPUTS)
    plans = [_plan(role, utterances) for role in ROLES]
    create(path, utterances_named([f"u{index}" for index in range(30)]), plans)
    rows = [
        Row(
            stream=plan.spec.name,
            index=index,
            stored=to_stored(one.rows[plan.spec.role].numpy(), plan.spec.dtype),
            digest=bytes(16),
        )
        for plan in plans
        for index, one in enumerate(utterances)
    ]
    with writing_lock(path), CacheWriter(read_layout(path)) as writer:
        writer.commit(rows)
    return CachedFeatures(
        open_cache(path), {role: role for role in ROLES}, np.array([one.label for one in utterances], dtype=np.int64)
    )


def assert_close(one: TrainedModel, other: TrainedModel, tolerance: float = 1e-5) -> None:
    """Checks that two trainings differ by rounding alone."""
    assert len(one.curves) == len(other.curves)
    assert one.best_epoch == other.best_epoch
    for mine, theirs in zip(one.curves, other.curves, strict=True):
        assert list(mine.losses) == list(theirs.losses)
        for name in mine.losses:
            np.testing.assert_allclose(mine.losses[name], theirs.losses[name], atol=tolerance, rtol=tolerance)
        np.testing.assert_allclose(list(mine.dev.values()), list(theirs.dev.values()), atol=1e-4)
    assert list(one.weights) == list(other.weights)
    assert all(_alike(weight, other.weights[name]) for name, weight in one.weights.items())


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype


def _plan(role: str, utterances: Sequence[Sample]) -> StreamPlan:
    shape = INPUTS.shapes[role]
    spec = StreamSpec(name=role, role=role, source="a/b", shape=shape, dtype=DTYPES.get(role, "float32"))
    return StreamPlan(spec=spec, lengths=np.array([len(one.rows[role]) for one in utterances]), failures={})
