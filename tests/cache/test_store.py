import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import MmerError
from cache.layout import StreamPlan
from cache.rows import from_stored, to_stored
from cache.store import FeatureCache
from tests.support.toys import commit, create, plan_for, utterances_named, values_for


@settings(max_examples=12)  # each writes a file
@given(
    st.lists(st.integers(0, 7), min_size=1, max_size=6),
    st.sampled_from(["float16", "float32", "int8", "uint16"]),
    st.randoms(use_true_random=False),
)
def test_the_store_returns_what_was_committed(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], dtype: str, random: object
) -> None:
    path = tmp_path_factory.mktemp("store") / "a.h5"
    plan = plan_for(lengths, dtype=dtype)
    create(path, utterances_named([f"u{index}" for index in range(len(lengths))]), [plan])
    commit(path, plan, range(len(lengths)))
    stream = FeatureCache(path).stream("enc")
    order = list(range(len(lengths)))
    random.shuffle(order)  # type: ignore[attr-defined]
    expected = [from_stored(*to_stored(values_for(plan, index), dtype)) for index in order]
    for index, rows in zip(order, expected, strict=True):
        np.testing.assert_array_equal(stream.read(index), rows)
    packed = stream.pack(order)
    np.testing.assert_array_equal(packed.rows, np.concatenate(expected))
    assert packed.lengths.tolist() == [lengths[index] for index in order]


def test_reading_copies_nothing(toy: tuple[Path, StreamPlan]) -> None:
    rows = FeatureCache(toy[0]).stream("enc").read(1)
    assert rows.base is not None
    with pytest.raises(ValueError, match="read-only"):
        rows[0, 0] = 1


def test_packing_reuses_what_it_is_given(toy: tuple[Path, StreamPlan]) -> None:
    stream = FeatureCache(toy[0]).stream("enc")
    out = np.zeros((20, 4), np.float16)
    packed = stream.pack([3, 0], out)
    assert packed.rows.base is out
    assert packed.lengths.tolist() == [2, 3]
    with pytest.raises(ValueError, match="must hold 5 rows of enc, got 4"):
        stream.pack([3, 0], out[:4])


@pytest.mark.parametrize("index", [2, 0])
def test_what_is_not_committed_is_never_read(tmp_path: Path, index: int) -> None:
    plan = plan_for([3, 5, 0], failures={2: "zero bytes"})
    create(tmp_path / "a.h5", utterances_named("abc"), [plan])
    stream = FeatureCache(tmp_path / "a.h5").stream("enc")
    message = {2: "c has no enc .zero bytes.", 0: "a has no enc .not computed yet."}[index]
    with pytest.raises(MmerError, match=message):
        stream.read(index)
    with pytest.raises(MmerError, match=message):
        stream.pack([index])


def test_an_unknown_stream_is_told_with_those_there_are(toy: tuple[Path, StreamPlan]) -> None:
    with pytest.raises(MmerError, match="no stream nope; it has: enc"):
        FeatureCache(toy[0]).stream("nope")


def test_a_pickled_cache_reopens_its_file(toy: tuple[Path, StreamPlan]) -> None:
    cache = FeatureCache(toy[0])
    again = pickle.loads(pickle.dumps(cache))
    np.testing.assert_array_equal(again.stream("enc").read(1), cache.stream("enc").read(1))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_an_open_cache_crosses_a_fork(toy: tuple[Path, StreamPlan]) -> None:
    stream = FeatureCache(toy[0]).stream("enc")
    child = os.fork()
    if not child:
        same = np.array_equal(stream.read(1), to_stored(values_for(toy[1], 1), "float16").values)
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(stream.read(1), to_stored(values_for(toy[1], 1), "float16").values)


def test_readers_see_commits_of_a_writer_beside_them(tmp_path: Path) -> None:
    plan = plan_for([2, 2])
    create(tmp_path / "a.h5", utterances_named("ab"), [plan])
    stream = FeatureCache(tmp_path / "a.h5").stream("enc")
    commit(tmp_path / "a.h5", plan, [1])
    np.testing.assert_array_equal(stream.read(1), to_stored(values_for(plan, 1), "float16").values)


def test_weights_of_an_encoder_without_any_are_empty(toy: tuple[Path, StreamPlan]) -> None:
    assert FeatureCache(toy[0]).weights("other") == {}
    assert FeatureCache(toy[0]).weights("enc")["w"].tolist() == [0, 1, 2]


def test_weights_of_an_encoder_are_read_once_and_without_those_of_others(toy: tuple[Path, StreamPlan]) -> None:
    with h5py.File(toy[0], "r+") as file:
        file["weights/other/w"] = h5py.SoftLink("/weights/enc/w")
    cache = FeatureCache(toy[0])
    weights = cache.weights("enc")
    with pytest.raises(MmerError, match="w is a link"):
        cache.weights("other")
    toy[0].unlink()
    assert cache.weights("enc") is weights
