import os
import pickle
import random
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import CacheMissing, CacheUnreadable, MmerError
from cache.joined import AnyCache, JoinedCache, open_cache
from cache.store import FeatureCache
from tests.support.shards import DRAWN, NAMES, SIX, STREAMS, Drawn, everything, write_piece, write_shards, write_whole
from tests.support.toys import commit, create, plan_for, utterances_named


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six committed utterances in one file and in three."""
    folder = tmp_path_factory.mktemp("six")
    write_shards(write_whole(folder / "whole.h5", SIX), folder, SIX)
    return folder


@pytest.fixture
def shards(six: Path, tmp_path: Path) -> JoinedCache:
    """Six committed utterances in three files: a c, b e, d f."""
    shutil.copytree(six, tmp_path, dirs_exist_ok=True)
    joined = open_cache(tmp_path / "shard-*.h5")
    assert isinstance(joined, JoinedCache)
    return joined


@settings(max_examples=6)  # each writes four files
@given(DRAWN)
def test_shards_hold_what_the_whole_holds(tmp_path_factory: pytest.TempPathFactory, drawn: Drawn) -> None:
    folder = tmp_path_factory.mktemp("joined")
    whole = FeatureCache(write_whole(folder / "whole.h5", drawn))
    shards = write_shards(whole.path, folder, drawn)
    joined = open_cache(folder / "shard-*.h5")
    assert everything(joined) == everything(whole)
    assert [part.path for part in joined.files] == shards
    assert sorted(joined.ids) == sorted(whole.ids)
    assert joined.weights("enc")["w"].tolist() == [0, 1, 2]
    for name, stream in joined.streams.items():
        held = whole.streams[name]
        assert (stream.key, len(stream), stream.rows) == (held.key, len(held), held.rows)
        assert np.diff(stream.offsets).tolist() == stream.lengths.tolist()


@pytest.fixture(scope="module")
def both(six: Path) -> tuple[FeatureCache, AnyCache]:
    """The six utterances in one file and in three."""
    return FeatureCache(six / "whole.h5"), open_cache(six / "shard-*.h5")


@given(st.lists(st.integers(0, 5), max_size=12), st.sampled_from(sorted(STREAMS)))
def test_packing_gives_the_rows_of_the_whole_in_any_order(
    both: tuple[FeatureCache, AnyCache], chosen: list[int], name: str
) -> None:
    whole, joined = both
    expected = whole.stream(name).pack([whole.ids.index(joined.ids[index]) for index in chosen])
    found = joined.stream(name).pack(chosen)
    np.testing.assert_array_equal(found.rows, expected.rows)
    assert found.rows.dtype == expected.rows.dtype
    assert found.lengths.tolist() == expected.lengths.tolist()


def test_packing_reuses_what_it_is_given(shards: JoinedCache) -> None:
    out = np.zeros((20, 4), np.float16)
    packed = shards.stream("enc").pack([4, 0, 2], out)
    assert packed.rows.base is out
    with pytest.raises(ValueError, match="must hold 4 rows of enc, got 3"):
        shards.stream("enc").pack([4, 0], out[:3])


def test_reading_copies_nothing(shards: JoinedCache) -> None:
    index = shards.ids.index("e")
    rows = shards.stream("enc").read(index)
    assert rows.base is not None
    np.testing.assert_array_equal(rows, shards.stream("enc").stored(index).values)


def test_one_file_and_one_match_open_as_a_plain_cache(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "whole.h5", SIX)
    for name in (path, tmp_path / "wh*.h5", str(path)):
        opened = open_cache(name)
        assert isinstance(opened, FeatureCache)
        assert opened.files == [opened]
        assert opened.path == path


def test_a_file_with_a_bracket_in_its_name_is_a_file(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "take[1].h5", SIX)
    assert open_cache(path).path == path


def test_locks_folders_and_unfinished_files_never_match(shards: JoinedCache, tmp_path: Path) -> None:
    (tmp_path / ".shard-9.h5.12.part").write_bytes(b"half")
    (tmp_path / "shard-8.h5.part").write_bytes(b"half")
    (tmp_path / "shard-7.h5").mkdir()
    assert (tmp_path / "shard-0.h5.lock").exists()
    joined = open_cache(tmp_path / "shard-*")
    assert isinstance(joined, JoinedCache)
    assert joined.paths == shards.paths == [tmp_path / f"shard-{number}.h5" for number in range(3)]


def test_no_match_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CacheMissing, match=r"no cache matches .*none-\*\.h5; .*make one with mmer-featurize"):
        open_cache(tmp_path / "none-*.h5")
    with pytest.raises(CacheMissing, match="no cache at"):
        open_cache(tmp_path / "none.h5")


def test_an_utterance_in_two_files_is_refused(shards: JoinedCache, tmp_path: Path) -> None:
    write_piece(tmp_path / "whole.h5", tmp_path / "shard-3.h5", "c")
    with pytest.raises(MmerError, match=r"shard-3\.h5: utterance c is also in .*shard-0\.h5; .* mmer-cache merge"):
        open_cache(tmp_path / "shard-*.h5")


@pytest.mark.parametrize(("held", "lacking"), [(["enc", "enc.codes"], "shard-1"), ([*STREAMS], "shard-0")])
def test_a_stream_that_one_file_lacks_is_refused(tmp_path: Path, held: list[str], lacking: str) -> None:
    whole = write_whole(tmp_path / "whole.h5", SIX)
    first, second = ([*STREAMS], held) if lacking == "shard-1" else (["enc", "enc.codes"], held)
    write_piece(whole, tmp_path / "shard-0.h5", "abc", first)
    write_piece(whole, tmp_path / "shard-1.h5", "def", second)
    with pytest.raises(MmerError, match=rf"{lacking}\.h5 has no stream mel, .* has it; compute it there"):
        open_cache(tmp_path / "shard-*.h5")


def test_another_key_is_refused_with_the_field(tmp_path: Path) -> None:
    plan = plan_for([1])
    create(tmp_path / "a.h5", utterances_named("a"), [plan])
    create(tmp_path / "b.h5", utterances_named("b"), [replace(plan, spec=replace(plan.spec, layers="12"))])
    with pytest.raises(MmerError, match=r"b\.h5: enc was computed differently from .*a\.h5 \(layers last -> 12\)"):
        open_cache(tmp_path / "[ab].h5")


def test_another_corpus_is_refused(shards: JoinedCache, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "shard-1.h5", "r+") as file:
        file.attrs["corpus"] = '{"name": "iemocap"}'
    with pytest.raises(MmerError, match=r"shard-1\.h5 holds the corpus iemocap, .*shard-0\.h5 holds the corpus toy"):
        open_cache(tmp_path / "shard-*.h5")


def test_an_unknown_stream_is_told_with_those_there_are(shards: JoinedCache) -> None:
    with pytest.raises(MmerError, match=r"shard-\*\.h5 has no stream nope; it has: enc, enc\.codes, mel"):
        shards.stream("nope")


def test_what_is_not_committed_is_never_read(tmp_path: Path) -> None:
    plan = plan_for([2, 2], failures={1: "zero bytes"})
    create(tmp_path / "a.h5", utterances_named("ab"), [plan])
    create(tmp_path / "b.h5", utterances_named("cd"), [plan])
    commit(tmp_path / "b.h5", plan, [0])
    stream = open_cache(tmp_path / "[ab].h5").stream("enc")
    assert stream.read(2).shape == (2, 4)
    for index, message in ((0, "a has no enc .not computed yet"), (3, "d has no enc .zero bytes")):
        with pytest.raises(MmerError, match=message):
            stream.read(index)
        with pytest.raises(MmerError, match=message):
            stream.pack([2, index])


def test_a_pickled_joined_cache_reopens_its_files(shards: JoinedCache) -> None:
    again = pickle.loads(pickle.dumps(shards))
    assert again.path == shards.path
    assert everything(again) == everything(shards)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_an_open_joined_cache_crosses_a_fork(shards: JoinedCache) -> None:
    order = random.Random(0).sample(range(len(shards)), len(shards))
    expected = shards.stream("mel").pack(order).rows.copy()
    child = os.fork()
    if not child:
        os._exit(0 if np.array_equal(shards.stream("mel").pack(order).rows, expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_more_files_than_may_be_open_are_one_line(shards: JoinedCache) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 2, hard))
        with pytest.raises(CacheUnreadable, match=r"shard-\d\.h5 cannot be mapped .*; see ulimit -n, or merge"):
            open_cache(shards.path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_utterances_stand_in_the_order_of_the_files(shards: JoinedCache) -> None:
    assert shards.ids == ["a", "c", "b", "e", "d", "f"]
    assert [utterance.id for utterance in shards.utterances] == shards.ids
    assert set(shards.ids) <= set(NAMES)
    assert shards.header["corpus"]["name"] == "toy"


def test_layers_that_heads_start_from_are_united_over_files(tmp_path: Path) -> None:
    for name, more in (("a", {"low": np.ones(2)}), ("b", {"high": np.ones(3)})):
        create(tmp_path / f"v-{name}.h5", utterances_named(name), [plan_for([3])], enc={"w": np.arange(2.0), **more})
    assert set(open_cache(tmp_path / "v-*.h5").weights("enc")) == {"w", "low", "high"}
