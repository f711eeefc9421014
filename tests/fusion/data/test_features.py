from pathlib import Path

import numpy as np
import pytest
import torch

from cache.joined import open_cache
from cache.layout import StreamPlan
from fusion.data.features import AHEAD, CachedFeatures, TrainingSubset
from fusion.data.memory import memory_budget, peak_memory
from fusion.head_config import AUDIO, TEXT
from tests.support.toys import commit, create, plan_for, utterances_named
from tests.support.trainings import COUNT, LABELS, STREAMS, toy_source, write_cache

WAYS = pytest.mark.parametrize("resident_bytes", [None, 0], ids=["resident", "mapped"])


@pytest.fixture
def learnable(tmp_path: Path) -> Path:
    write_cache(tmp_path / "a.h5", without={AUDIO: 5, TEXT: 7})
    return tmp_path / "a.h5"


@WAYS
def test_a_batch_holds_the_rows_of_the_cache_padded_with_zeros(learnable: Path, resident_bytes: int | None) -> None:
    source = toy_source(learnable, resident_bytes=resident_bytes)
    assert source.resident == (resident_bytes is None)
    indices = np.array([9, 0, 31, 9])
    batch = source.batch(indices)
    assert batch.labels.tolist() == LABELS[indices].tolist()
    assert batch.indices.tolist() == indices.tolist()
    for role, name in STREAMS.items():
        for place, index in enumerate(indices.tolist()):
            rows = source.cache.stream(name).read(index)
            count = int(batch.masks[role][place].sum())
            assert count == len(rows)
            np.testing.assert_array_equal(batch.features[role][place, :count].numpy(), rows)
            assert not batch.features[role][place, count:].any()


@WAYS
def test_what_an_utterance_lacks_has_no_valid_row(learnable: Path, resident_bytes: int | None) -> None:
    source = toy_source(learnable, resident_bytes=resident_bytes)
    batch = source.batch(np.array([5, 7, 8]))
    assert batch.masks[AUDIO].any(dim=1).tolist() == [False, True, True]
    assert batch.masks[TEXT].any(dim=1).tolist() == [True, False, True]
    alone = source.batch(np.array([5]))
    assert alone.features[AUDIO].shape == (1, 1, 6)
    assert not alone.masks[AUDIO].any()


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_held_and_mapped_features_are_bit_equal(tmp_path: Path, dtype: str) -> None:
    write_cache(tmp_path / "a.h5", without={AUDIO: 5}, dtype=dtype)
    groups = np.array_split(np.random.default_rng(0).permutation(COUNT), 6)
    held = list(toy_source(tmp_path / "a.h5").batches(groups))
    mapped = list(toy_source(tmp_path / "a.h5", resident_bytes=0).batches(groups))
    assert len(held) == len(mapped) == 6 > AHEAD
    for one, other in zip(held, mapped, strict=True):
        for role in STREAMS:
            assert torch.equal(one.features[role], other.features[role])
            assert torch.equal(one.masks[role], other.masks[role])


@WAYS
def test_a_batch_stays_as_it_is_while_others_are_made(learnable: Path, resident_bytes: int | None) -> None:
    source = toy_source(learnable, resident_bytes=resident_bytes)
    groups = [np.array([index]) for index in range(10)]
    batches = list(source.batches(groups))
    for index, batch in enumerate(batches):
        assert torch.equal(batch.features["chars"], source.batch(np.array([index])).features["chars"])


@WAYS
def test_roles_that_are_not_asked_for_are_not_read(learnable: Path, resident_bytes: int | None) -> None:
    source = toy_source(learnable, resident_bytes=resident_bytes)
    batch = source.batch(np.array([0]), roles=("text",))
    assert list(batch.features) == list(batch.masks) == ["text"]
    assert source.lengths(np.array([0, 7]), ("text",)).tolist() == source.rows_by_role["text"][[0, 7]].tolist()


def test_only_the_chosen_utterances_are_held(learnable: Path) -> None:
    source = CachedFeatures(open_cache(learnable), STREAMS, LABELS, chosen=np.array([3, 8, 2]))
    rows = {role: int(lengths[[2, 3, 8]].sum()) for role, lengths in source.rows_by_role.items()}
    assert source.size_bytes == rows[AUDIO] * 12 + rows[TEXT] * 48 + rows["chars"]
    assert source.batch(np.array([8, 2])).indices.tolist() == [8, 2]
    with pytest.raises(ValueError, match="utterance 4 is not among the 3 chosen"):
        source.batch(np.array([2, 4]))


def test_features_are_mapped_when_they_do_not_fit(learnable: Path) -> None:
    size = toy_source(learnable).size_bytes
    assert toy_source(learnable, resident_bytes=size).resident
    assert not toy_source(learnable, resident_bytes=size - 1).resident
    cpu = torch.device("cpu")
    assert 0 < memory_budget(cpu, 0.25) <= memory_budget(cpu, 0.5) / 2 + 1
    assert peak_memory(cpu) > 1 << 20


def test_codes_are_whole_numbers(tmp_path: Path) -> None:
    plan = plan_for([3, 5], dtype="uint16")
    create(tmp_path / "a.h5", utterances_named("ab"), [plan])
    commit(tmp_path / "a.h5", plan, range(2))
    for budget in (None, 0):
        cache = open_cache(tmp_path / "a.h5")
        source = CachedFeatures(cache, {"codes": "enc"}, np.zeros(2, np.int64), resident_bytes=budget)
        codes = source.batch(np.array([1])).features["codes"]
        assert codes.dtype == torch.int64
        np.testing.assert_array_equal(codes[0].numpy(), source.cache.stream("enc").read(1))


def test_the_training_part_of_a_fold_gives_itself_alone(learnable: Path) -> None:
    source = toy_source(learnable)
    rows = TrainingSubset(source, np.array([4, 5, 20]))
    assert len(rows) == 3
    assert rows.labels.tolist() == LABELS[[4, 5, 20]].tolist()
    assert rows.text(2) == "text of u20"
    np.testing.assert_array_equal(rows.rows(TEXT, 0), source.cache.stream("words").read(4))
    assert rows.rows(AUDIO, 1).shape == (0, 6)
    with pytest.raises(IndexError):
        rows.text(3)


def test_every_utterance_needs_a_label(toy: tuple[Path, StreamPlan]) -> None:
    with pytest.raises(ValueError, match="one class for each of 4 utterances, got 3"):
        CachedFeatures(open_cache(toy[0]), {"audio": "enc"}, np.zeros(3, np.int64))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@WAYS
def test_batches_on_a_gpu_are_those_of_a_cpu(learnable: Path, resident_bytes: int | None) -> None:
    groups = np.array_split(np.arange(COUNT), 6)
    gpu = CachedFeatures(
        open_cache(learnable), STREAMS, LABELS, device=torch.device("cuda"), resident_bytes=resident_bytes
    )
    for one, other in zip(toy_source(learnable).batches(groups), gpu.batches(groups), strict=True):
        for role in STREAMS:
            assert torch.equal(one.features[role], other.features[role].cpu())
            assert torch.equal(one.masks[role], other.masks[role].cpu())
