from pathlib import Path

import numpy as np
import pytest

from cache.errors import CacheBusy, MmerError
from cache.layout import COMMITTED, PENDING, StreamPlan, read_weights
from cache.rebuild import drop_stream
from cache.store import FeatureCache
from cache.writer import writing_lock
from tests.support.shards import SIX, write_piece, write_shards, write_whole
from tests.support.toys import commit, create, plan_for, utterances_named, values_for


def test_dropping_a_stream_keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    plans = [plan_for([3, 2]), plan_for([3, 2], name="enc.codes", dtype="uint16", dim=2), plan_for([1, 1], name="b")]
    create(path, utterances_named("ab"), plans, enc={"w": np.ones(2)}, b={"w": np.ones(2)})
    for plan in plans:
        commit(path, plan, [0])
    drop_stream(path, "b")
    cache = FeatureCache(path)
    assert list(cache.streams) == ["enc", "enc.codes"]
    assert cache.stream("enc").state.tolist() == [COMMITTED, PENDING]
    np.testing.assert_array_equal(cache.stream("enc.codes").read(0), values_for(plans[1], 0))
    assert list(read_weights(path)) == ["enc"]


def test_a_pattern_drops_the_stream_wherever_it_is_or_nowhere(tmp_path: Path) -> None:
    whole = write_whole(tmp_path / "whole.h5", SIX)
    write_piece(whole, tmp_path / "a.h5", "abc")
    write_piece(whole, tmp_path / "b.h5", "de", ["enc"])
    write_piece(whole, tmp_path / "c.h5", "f", ["mel"])
    with pytest.raises(MmerError, match=r"mel is the only stream of .*c\.h5; remove the file instead"):
        drop_stream(tmp_path / "[abc].h5", "mel")
    assert "mel" in FeatureCache(tmp_path / "a.h5").streams
    drop_stream(tmp_path / "[ab].h5", "mel")
    assert list(FeatureCache(tmp_path / "a.h5").streams) == ["enc", "enc.codes"]
    with pytest.raises(MmerError, match=r"\[ab\]\.h5 has no stream mel; it has: enc, enc\.codes"):
        drop_stream(tmp_path / "[ab].h5", "mel")


def test_a_busy_file_of_a_pattern_stops_the_drop_before_it_begins(tmp_path: Path) -> None:
    whole = write_whole(tmp_path / "whole.h5", SIX)
    write_shards(whole, tmp_path, SIX)
    with writing_lock(tmp_path / "shard-2.h5"), pytest.raises(CacheBusy, match=r"shard-2\.h5"):
        drop_stream(tmp_path / "shard-*.h5", "mel")
    assert "mel" in FeatureCache(tmp_path / "shard-0.h5").streams


def test_dropping_nothing_or_everything_is_refused(toy: tuple[Path, StreamPlan]) -> None:
    with pytest.raises(MmerError, match="no stream b"):
        drop_stream(toy[0], "b")
    with pytest.raises(MmerError, match="only stream"):
        drop_stream(toy[0], "enc")
