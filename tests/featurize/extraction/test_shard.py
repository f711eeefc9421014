from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import MmerError
from cache.utterance import Utterance
from featurize.extraction.shard import Shard, all_shards, check_shards, shard_pattern


@given(st.text(min_size=1), st.integers(1, 40))
def test_every_utterance_belongs_to_exactly_one_shard(name: str, count: int) -> None:
    assert sum(shard.holds(name) for shard in all_shards(count)) == 1


def test_shards_are_of_similar_size() -> None:
    names = [f"utterance {number}" for number in range(4000)]
    sizes = [sum(map(shard.holds, names)) for shard in all_shards(8)]
    assert sum(sizes) == 4000
    assert min(sizes) > 430
    assert max(sizes) < 570


def test_the_shard_of_an_utterance_never_changes() -> None:
    assert [shard.number for name in "abcd" for shard in all_shards(5) if shard.holds(name)] == [4, 4, 1, 1]


def test_files_are_named_so_that_one_pattern_finds_them_in_order() -> None:
    paths = [shard.path(Path("cache/voices.h5")) for shard in all_shards(12)]
    assert [path.name for path in paths][:2] == ["voices-01-of-12.h5", "voices-02-of-12.h5"]
    assert sorted(paths) == paths
    assert all(path.match("cache/voices-*.h5") for path in paths)
    pattern = str(shard_pattern(Path("cache/voices.h5"), 12))
    assert all(path.match(pattern) for path in paths)
    assert not any(shard.path(Path("cache/voices-large.h5")).match(pattern) for shard in all_shards(12))


def test_more_shards_than_can_be_filled_are_refused() -> None:
    with pytest.raises(
        MmerError, match=r"--shards 50 leaves \d+ shards without any of the 20 utterances; choose fewer shards"
    ):
        check_shards([Utterance(id=str(number)) for number in range(20)], 50)
    check_shards([Utterance(id=str(number)) for number in range(20)], 2)


@pytest.mark.parametrize("number", [0, 4])
def test_a_shard_is_numbered_from_1(number: int) -> None:
    with pytest.raises(ValueError, match=f"numbered 1 to 3, got {number}"):
        Shard(number, 3)
