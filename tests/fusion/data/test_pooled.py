from collections.abc import Collection, Generator, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fusion.grid.stacking.training as stacked
from cache.errors import DamagedRows
from cache.joined import open_cache
from fusion.arrays import Indices
from fusion.data.features import BatchSource, CachedFeatures, TrainingSubset
from fusion.data.pooled import PooledSource, PooledVectors, pooled_once
from fusion.data.views import ViewDraw
from fusion.head import Batch, Head
from fusion.head_config import AUDIO, TEXT, HeadInputs
from fusion.heads.build import build_head
from fusion.heads.catalog import config_for
from fusion.nn.layers import learn_scales
from fusion.training import loop
from fusion.training.evaluate import predict_logits
from fusion.training.loop import train_fold
from tests.support.trainings import CONFIG, DEV, LABELS, STREAMS, TEST, TRAIN, write_cache

USED = np.concatenate([TRAIN, DEV])
VOICES = {AUDIO: "voice", TEXT: "voice"}

# Head and fields of models whose rows are pooled before anything learned; they read the stream of voices twice.
POOLED: list[tuple[str, dict[str, object]]] = [
    ("audio", {}),
    ("audio", {"pooling": "max", "standardize": True}),
    ("audio", {"pooling": "meanstd", "standardize": True, "dropout": 0.3}),
    ("audio", {"pooling": "meanstd", "normalize": True}),
    ("score", {"standardize": True}),
    ("concat", {"adapter": False, "modality_dropout": 0.4}),
]
UNPOOLED: list[tuple[str, dict[str, object]]] = [
    ("audio", {"adapter": True}),
    ("audio", {"hidden": 4}),
    ("audio", {"dim": 5}),
    ("text", {}),  # two layers, which are mixed by learned weights
    ("score", {}),
    ("audio", {"pooling": "attention"}),
    ("audio", {"dim": 5, "pooling": "meanstd"}),
    ("concat", {}),
    ("cross-attention", {"adapter": False}),
]


class CountedFeatures(CachedFeatures):
    """Features that count how often the rows of an utterance are read."""

    reads: dict[int, int]

    def batches(
        self, groups: Iterable[Indices], roles: Collection[str] | None = None, draw: ViewDraw | None = None
    ) -> Generator[Batch]:
        groups = list(groups)
        for index in np.concatenate(groups).tolist():
            self.reads[index] = self.reads.get(index, 0) + 1
        yield from super().batches(groups, roles, draw)


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pooled") / "a.h5"
    write_cache(path, without={AUDIO: 3})
    return path


def source_of(path: Path, streams: Mapping[str, str] = VOICES, **options: Any) -> CountedFeatures:
    source = CountedFeatures(open_cache(path), streams, LABELS, **options)
    source.reads = {}
    return source


def built(fusion: str, fields: dict[str, object], source: CachedFeatures, seed: int = 0) -> Head:
    shapes = {role: stream.spec.shape for role, stream in source.streams.items()}
    inputs = HeadInputs(classes=("a", "b", "c"), shapes=shapes)
    head = build_head(fusion, config_for(fusion, fields), inputs, seed=seed)
    learn_scales(head, TrainingSubset(source, TRAIN))
    return head


def as_is(heads: list[Head], source: BatchSource, indices: Indices, *, precision: str) -> BatchSource:
    return source


@pytest.mark.parametrize(("fusion", "fields"), POOLED)
def test_a_training_from_vectors_is_the_training_from_rows(
    cached: Path, fusion: str, fields: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(cached)
    head = built(fusion, fields, source)
    trained = train_fold(head, source, TRAIN, DEV, replace(CONFIG, patience=9))
    assert set(source.reads) == {*USED.tolist()}
    assert set(source.reads.values()) == {1}
    monkeypatch.setattr(loop, "pooled_once", as_is)
    other = built(fusion, fields, source)
    expected = train_fold(other, source, TRAIN, DEV, replace(CONFIG, patience=9))
    assert trained.best_epoch == expected.best_epoch
    for name, tensor in expected.weights.items():  # rounding of another order of sums, over 16 steps of Adam
        torch.testing.assert_close(trained.weights[name], tensor, rtol=1e-4, atol=1e-5)
    found, reference = (predict_logits(model, source, TEST).softmax(dim=1) for model in (head, other))
    torch.testing.assert_close(found, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("fusion", "fields"), UNPOOLED)
def test_rows_that_pass_something_learned_are_not_pooled_before_training(
    cached: Path, fusion: str, fields: dict[str, object]
) -> None:
    source = source_of(cached, STREAMS)
    assert pooled_once([built(fusion, fields, source)], source, USED, precision="float32") is source


def test_mixed_precision_and_a_small_memory_read_rows(cached: Path) -> None:
    source, small = source_of(cached), source_of(cached, resident_bytes=100)
    assert pooled_once([built("audio", {}, source)], source, USED, precision="bfloat16") is source
    assert pooled_once([built("audio", {}, small)], small, USED, precision="float32") is small


def test_a_stack_of_vectors_is_the_stack_of_rows(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = [replace(CONFIG, lr=lr, seed=seed) for lr, seed in ((0.01, 0), (0.03, 1))]
    fields: dict[str, object] = {"standardize": True, "pooling": "meanstd"}
    source = source_of(cached)
    results = stacked.train_stack(
        [built("audio", fields, source, seed) for seed in (0, 1)], source, TRAIN, DEV, configs
    )
    assert set(source.reads.values()) == {1}
    monkeypatch.setattr(stacked, "pooled_once", as_is)
    expected = stacked.train_stack(
        [built("audio", fields, source, seed) for seed in (0, 1)], source, TRAIN, DEV, configs
    )
    for result, reference in zip(results, expected, strict=True):
        for name, tensor in reference.weights.items():  # type: ignore[union-attr]
            torch.testing.assert_close(result.weights[name], tensor, rtol=1e-4, atol=1e-5)  # type: ignore[union-attr]


def test_vectors_do_not_depend_on_what_was_pooled_before(cached: Path) -> None:
    source, head = source_of(cached), built("audio", {"pooling": "meanstd"}, source_of(cached))
    parts, whole = PooledVectors(), PooledVectors()
    parts.of(head, source, USED[::3])
    first = parts.of(head, source, USED)[AUDIO]
    second = whole.of(head, source_of(cached, resident_bytes=0), USED)[AUDIO]
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not first[1][3]
    assert first[1][USED].sum() == len(USED) - 1
    longest = int(USED[source.lengths(USED, [AUDIO]).argmax()])
    rows = source.rows(AUDIO, longest).astype(np.float64)
    by_hand = np.concatenate([rows.mean(axis=0), rows.std(axis=0)])
    np.testing.assert_allclose(first[0][longest].numpy(), by_hand, rtol=1e-5, atol=1e-6)


def test_models_of_a_fold_share_vectors_and_scales(cached: Path) -> None:
    source = source_of(cached)
    for seed in range(3):
        train_fold(built("audio", {"standardize": True}, source, seed), source, TRAIN, DEV, CONFIG)
    assert set(source.reads.values()) == {1}
    subset = TrainingSubset(source, TRAIN)
    learn_scales(built("audio", {"standardize": True}, source), subset, subset.scales)
    assert subset.scales.keys() == {AUDIO}
    assert TrainingSubset(source, DEV).scales == {}


def test_utterances_that_were_not_pooled_are_an_error(cached: Path) -> None:
    source = source_of(cached)
    pooled = pooled_once([built("audio", {}, source)], source, TRAIN, precision="float32")
    assert isinstance(pooled, PooledSource)
    with pytest.raises(ValueError, match=f"utterance {DEV[0]} was not pooled"):
        list(pooled.batches([DEV], [AUDIO]))


def test_damaged_rows_end_the_one_reading(tmp_path: Path) -> None:
    write_cache(tmp_path / "a.h5")
    source = source_of(tmp_path / "a.h5", resident_bytes=0)
    source.budget = 1_000_000  # of vectors: rows are read as needed
    stream = source.streams[AUDIO]
    stored = stream.stored(5).values.tobytes()
    content = (tmp_path / "a.h5").read_bytes()
    where = content.index(stored)
    (tmp_path / "a.h5").write_bytes(content[:where] + bytes([stored[0] ^ 255]) + content[where + 1 :])
    fresh = source_of(tmp_path / "a.h5", resident_bytes=0)
    fresh.budget = 1_000_000
    with pytest.raises(DamagedRows, match="compute them again"):
        train_fold(built("audio", {}, fresh), fresh, TRAIN, DEV, CONFIG)


def test_text_with_history_pools_the_tokens_of_the_current_turn() -> None:
    rows = torch.arange(12.0).view(2, 6, 1)
    spans = torch.tensor([[[0, 0], [0, 0], [0, 3], [4, 6], [0, 0], [0, 0]], [[0, 0]] * 6])
    tokens = torch.cat([torch.ones(2, 6, 1, dtype=torch.int64), spans], dim=-1)
    mask = torch.tensor([[True] * 5 + [False], [True] * 6])
    batch = Batch(
        features={TEXT: rows, "tokens": tokens},
        masks={TEXT: mask, "tokens": mask},
        labels=torch.zeros(2, dtype=torch.int64),
        indices=torch.arange(2),
    )
    inputs = HeadInputs(classes=("a", "b"), shapes={TEXT: (1,), "tokens": (3,)})
    for pool, expected in (("own", [(2 + 3) / 2, 0.0]), ("all", [2.0, (6 + 11) / 2])):
        config = config_for("text", {"history_pool": pool})
        assert ("tokens" in config.roles) == (pool == "own")
        head = build_head("text", config, inputs, seed=0).eval()
        head.get_parameter("classifier.1.weight").data.copy_(torch.tensor([[1.0], [2.0]]))
        head.get_parameter("classifier.1.bias").data.zero_()
        torch.testing.assert_close(head(batch).logits[:, 0], torch.tensor(expected))
        probe = build_head("probe", config_for("probe", {"history_pool": pool, "modalities": "text"}), inputs, seed=0)
        torch.testing.assert_close(probe.vectors(batch)[:, 0], torch.tensor(expected))  # type: ignore[operator]
        vector, present = head.pool_role(TEXT, batch)
        torch.testing.assert_close(vector[present, 0], torch.tensor(expected)[present])
        assert present.tolist() == ([True, False] if pool == "own" else [True, True])
