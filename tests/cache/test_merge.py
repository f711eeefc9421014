import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from cache.audit import verify
from cache.errors import CacheMissing, CacheUnreadable, DiskFull, MmerError
from cache.layout import COMMITTED, FAILED, PENDING, StreamPlan, read_layout, read_weights
from cache.merge import Merged, merge_caches
from cache.rebuild import free_bytes
from cache.store import FeatureCache
from cache.writer import CacheWriter
from tests.support.shards import DRAWN, NAMES, SIX, STREAMS, Drawn, everything, write_piece, write_shards, write_whole
from tests.support.toys import commit, create, plan_for, utterances_named
from tests.support.voices import STREAMS as VOICE_STREAMS
from tests.support.voices import computed_anew, contents, featurized, write_corpus, write_voices


def spoil(path: Path, row: int) -> None:
    """Overwrites a byte of a row of ``enc``."""
    values = read_layout(path).streams["enc"].regions["values"]
    with path.open("rb+") as file:
        file.seek(values.offset + row * values.row_bytes)
        file.write(b"\xff")


@settings(max_examples=4)  # each writes five files
@given(DRAWN)
def test_merged_shards_hold_exactly_what_the_whole_held(tmp_path_factory: pytest.TempPathFactory, drawn: Drawn) -> None:
    folder = tmp_path_factory.mktemp("merged")
    whole = FeatureCache(write_whole(folder / "whole.h5", drawn))
    shards = write_shards(whole.path, folder, drawn)
    merged = merge_caches(folder / "out.h5", [folder / "shard-*.h5"])
    out = FeatureCache(folder / "out.h5")
    assert everything(out) == everything(whole)
    assert {utterance.id: utterance for utterance in out.utterances} == {
        utterance.id: utterance for utterance in whole.utterances
    }
    assert out.ids == [name for shard in shards for name in FeatureCache(shard).ids]
    assert {name: stream.spec for name, stream in out.streams.items()} == {
        name: stream.spec for name, stream in whole.streams.items()
    }
    assert out.weights("enc")["w"].tolist() == [0, 1, 2]
    committed = sum(int(np.count_nonzero(stream.state == COMMITTED)) for stream in whole.streams.values())
    assert merged == Merged(files=len(shards), committed=committed, damaged=0)


def test_streams_of_the_same_utterances_are_united(tmp_path: Path) -> None:
    whole = write_whole(tmp_path / "whole.h5", SIX)
    write_piece(whole, tmp_path / "a.h5", NAMES, ["mel"])
    write_piece(whole, tmp_path / "b.h5", NAMES, ["enc", "enc.codes"])
    merge_caches(tmp_path / "out.h5", [tmp_path / "a.h5", tmp_path / "b.h5"])
    assert everything(FeatureCache(tmp_path / "out.h5")) == everything(FeatureCache(whole))
    assert list(read_weights(tmp_path / "out.h5")) == ["enc"]


def test_what_no_file_has_is_pending_without_rows(tmp_path: Path) -> None:
    whole = write_whole(tmp_path / "whole.h5", SIX)
    write_piece(whole, tmp_path / "a.h5", "ab", ["mel"])
    write_piece(whole, tmp_path / "b.h5", "bcd", ["enc"])
    merge_caches(tmp_path / "out.h5", [tmp_path / "a.h5", tmp_path / "b.h5"])
    out = FeatureCache(tmp_path / "out.h5")
    assert out.ids == ["a", "b", "c", "d"]
    assert out.stream("mel").state.tolist() == [COMMITTED, COMMITTED, PENDING, PENDING]
    assert out.stream("enc").state.tolist() == [PENDING, COMMITTED, COMMITTED, COMMITTED]
    assert out.stream("mel").lengths.tolist() == [3, 0, 0, 0]
    assert verify(out) == []


def test_committed_wins_over_failed_and_failed_over_pending(tmp_path: Path) -> None:
    lengths = [2, 2, 2, 0]
    first = plan_for(lengths, failures={0: "lost", 2: "lost"})
    second = plan_for([*lengths[:3], 3], failures={1: "broken", 2: "broken"})
    create(tmp_path / "a.h5", utterances_named("abcd"), [first])
    create(tmp_path / "b.h5", utterances_named("abcd"), [second])
    commit(tmp_path / "b.h5", second, [0])
    merge_caches(tmp_path / "out.h5", [tmp_path / "a.h5", tmp_path / "b.h5"])
    stream = FeatureCache(tmp_path / "out.h5").stream("enc")
    assert stream.state.tolist() == [COMMITTED, FAILED, FAILED, PENDING]
    assert [stream.reason(index) for index in range(4)] == ["", "broken", "lost", ""]
    assert stream.lengths.tolist() == [2, 2, 2, 3]  # of the file that has a plan for d


def test_what_two_files_committed_alike_is_taken_once(tmp_path: Path) -> None:
    whole = write_whole(tmp_path / "whole.h5", SIX)
    write_piece(whole, tmp_path / "a.h5", "abc")
    write_piece(whole, tmp_path / "b.h5", "bcdef")
    merged = merge_caches(tmp_path / "out.h5", [tmp_path / "a.h5", tmp_path / "b.h5", tmp_path / "a.h5"])
    assert merged == Merged(files=2, committed=6 * len(STREAMS), damaged=0)
    assert everything(FeatureCache(tmp_path / "out.h5")) == everything(FeatureCache(whole))


@pytest.mark.parametrize(
    ("column", "message"),
    [("input_digest", "was computed from another input than in"), ("checksum", "has other rows than in")],
)
def test_two_committed_rows_that_differ_are_refused(
    toy: tuple[Path, StreamPlan], tmp_path: Path, column: str, message: str
) -> None:
    shutil.copy(toy[0], tmp_path / "b.h5")
    region = read_layout(toy[0]).streams["enc"].regions[column]
    with toy[0].open("rb+") as file:
        file.seek(region.offset + region.row_bytes)
        file.write(b"\xff")
    with pytest.raises(MmerError, match=rf"b\.h5: enc of utterance b {message} .*toy\.h5"):
        merge_caches(tmp_path / "out.h5", [toy[0], tmp_path / "b.h5"])
    assert not (tmp_path / "out.h5").exists()


def test_a_damaged_row_is_left_out_and_counted(toy: tuple[Path, StreamPlan], tmp_path: Path) -> None:
    spoil(toy[0], 4)  # in utterance b
    assert merge_caches(tmp_path / "out.h5", [toy[0]]) == Merged(files=1, committed=2, damaged=1)
    stream = FeatureCache(tmp_path / "out.h5").stream("enc")
    assert stream.state.tolist() == [COMMITTED, PENDING, FAILED, COMMITTED]
    assert stream.lengths.tolist() == [3, 5, 0, 2]


@pytest.mark.parametrize("damaged", ["a", "ab", "abc"])
def test_of_equal_copies_the_first_that_is_not_damaged_is_taken(tmp_path: Path, damaged: str) -> None:
    whole = write_whole(tmp_path / "whole.h5", SIX)
    for name in "abc":
        write_piece(whole, tmp_path / f"{name}.h5", NAMES if name == "c" else "abcd")
        if name in damaged:
            spoil(tmp_path / f"{name}.h5", 4)  # in utterance c
    merged = merge_caches(tmp_path / "out.h5", [tmp_path / "[abc].h5"])
    out, lost = FeatureCache(tmp_path / "out.h5"), int(damaged == "abc")
    assert merged == Merged(files=3, committed=6 * len(STREAMS) - lost, damaged=lost)
    assert verify(out) == []
    assert out.stream("enc").state.tolist() == [COMMITTED, COMMITTED, PENDING if lost else COMMITTED, *[COMMITTED] * 3]
    if not lost:
        assert everything(out) == everything(FeatureCache(whole))


@pytest.mark.parametrize(("field", "value"), [("label", "happy"), ("text", "other words"), ("turn", 3)])
def test_an_utterance_that_two_files_describe_differently_is_refused(
    tmp_path: Path, field: str, value: str | int
) -> None:
    utterances = utterances_named("ab")
    create(tmp_path / "a.h5", utterances, [plan_for([1, 1])])
    changed = replace(utterances[1], **{field: value})  # type: ignore[arg-type]
    create(tmp_path / "b.h5", [changed], [plan_for([1])])
    message = (
        rf"b\.h5: {field} of utterance b is {value!r}, but {getattr(utterances[1], field)!r} in .*a\.h5; featurize both"
    )
    with pytest.raises(MmerError, match=message):
        merge_caches(tmp_path / "out.h5", [tmp_path / "a.h5", tmp_path / "b.h5"])


def test_a_duration_that_one_file_could_not_measure_is_taken_from_the_other(tmp_path: Path) -> None:
    (utterance,) = utterances_named("a")
    create(tmp_path / "a.h5", [utterance], [plan_for([0], failures={0: "missing"})])
    create(tmp_path / "b.h5", [replace(utterance, duration_s=1.5)], [plan_for([1])])
    merge_caches(tmp_path / "out.h5", [tmp_path / "a.h5", tmp_path / "b.h5"])
    assert FeatureCache(tmp_path / "out.h5").utterances == [replace(utterance, duration_s=1.5)]


def test_a_stream_computed_in_two_ways_is_refused_with_the_field(tmp_path: Path) -> None:
    plan = plan_for([1])
    create(tmp_path / "a.h5", utterances_named("a"), [plan])
    create(tmp_path / "b.h5", utterances_named("b"), [replace(plan, spec=replace(plan.spec, precision="bfloat16"))])
    with pytest.raises(MmerError, match=r"enc was computed differently from .* \(precision float32 -> bfloat16\)"):
        merge_caches(tmp_path / "out.h5", [tmp_path / "a.h5", tmp_path / "b.h5"])


def test_weights_are_united_and_contradictions_refused(tmp_path: Path) -> None:
    create(tmp_path / "a.h5", utterances_named("a"), [plan_for([1])], enc={"w": np.ones(2)})
    create(tmp_path / "b.h5", utterances_named("b"), [plan_for([1])], enc={"v": np.zeros(1)}, other={"w": np.ones(1)})
    create(tmp_path / "c.h5", utterances_named("c"), [plan_for([1])], enc={"w": np.zeros(2)})
    merge_caches(tmp_path / "out.h5", [tmp_path / "a.h5", tmp_path / "b.h5"])
    united = read_weights(tmp_path / "out.h5")
    assert {encoder: sorted(arrays) for encoder, arrays in united.items()} == {"enc": ["v", "w"], "other": ["w"]}
    with pytest.raises(MmerError, match=r"c\.h5: weight w of enc differs from that of the files before it"):
        merge_caches(tmp_path / "out.h5", [tmp_path / "[abc].h5"], replace=True)


def test_an_existing_file_stays_unless_it_may_go(toy: tuple[Path, StreamPlan], tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    create(out, utterances_named("x"), [plan_for([1])])
    before = out.read_bytes()
    with pytest.raises(MmerError, match=r"out\.h5 already exists; .* --replace"):
        merge_caches(out, [toy[0]])
    assert out.read_bytes() == before
    merge_caches(out, [toy[0]], replace=True)
    assert everything(FeatureCache(out)) == everything(FeatureCache(toy[0]))


def test_a_file_that_is_no_cache_is_never_replaced(toy: tuple[Path, StreamPlan], tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("words")
    with pytest.raises(CacheUnreadable):
        merge_caches(tmp_path / "thesis.txt", [toy[0]], replace=True)
    assert (tmp_path / "thesis.txt").read_text() == "words"


def test_a_cache_may_be_merged_into_itself(tmp_path: Path) -> None:
    whole = write_whole(tmp_path / "whole.h5", SIX)
    write_piece(whole, tmp_path / "a.h5", "abc")
    write_piece(whole, tmp_path / "b.h5", "bcdef")
    merge_caches(tmp_path / "a.h5", [tmp_path / "a.h5", tmp_path / "b.h5"], replace=True)
    assert everything(FeatureCache(tmp_path / "a.h5")) == everything(FeatureCache(whole))


def test_a_missing_file_leaves_nothing_behind(toy: tuple[Path, StreamPlan], tmp_path: Path) -> None:
    with pytest.raises(CacheMissing, match="no cache at"):
        merge_caches(tmp_path / "new" / "out.h5", [toy[0], tmp_path / "none.h5"])
    assert not (tmp_path / "new").exists()


def test_a_merge_larger_than_the_disk_is_refused_before_any_work(tmp_path: Path) -> None:
    half = plan_for([int(free_bytes(tmp_path) * 0.6) // 8], dim=4)  # sparse: only planned
    for name in "ab":
        create(tmp_path / f"{name}.h5", utterances_named(name), [half])
    with pytest.raises(DiskFull, match="GB needed"):
        merge_caches(tmp_path / "out.h5", [tmp_path / "[ab].h5"])
    assert not (tmp_path / "out.h5").exists()


def test_a_merged_file_resumes_without_computing_anything_anew(tmp_path: Path) -> None:
    manifest = write_voices(tmp_path / "corpus", "abcd")
    (tmp_path / "corpus" / "d.wav").write_bytes(b"")
    halves = []
    for names in ("ab", "cd"):
        half = write_corpus(tmp_path / "corpus", [{"id": name} for name in names])
        half = half.rename(half.with_name(f"{names}.csv"))
        featurized(half, tmp_path / f"{names}.h5")
        halves.append(tmp_path / f"{names}.h5")
    merge_caches(tmp_path / "all.h5", halves)
    merged = contents(tmp_path / "all.h5")
    manifest = write_corpus(tmp_path / "corpus", [{"id": name} for name in "abcd"])
    assert computed_anew(manifest, tmp_path / "all.h5") == {}
    assert contents(tmp_path / "all.h5") == merged
    featurized(manifest, tmp_path / "fresh.h5")
    assert contents(tmp_path / "fresh.h5") == merged


def test_streams_computed_apart_resume_together(tmp_path: Path) -> None:
    manifest = write_voices(tmp_path / "corpus", "ab")
    featurized(manifest, tmp_path / "speech.h5", encoders=("wav2vec2-tiny",), audio_only=True)
    featurized(manifest, tmp_path / "text.h5", encoders=("roberta-tiny",), mel=False)
    merge_caches(tmp_path / "all.h5", [tmp_path / "speech.h5", tmp_path / "text.h5"])
    assert sorted(FeatureCache(tmp_path / "all.h5").streams) == VOICE_STREAMS
    assert computed_anew(manifest, tmp_path / "all.h5") == {}


def test_a_source_that_is_being_written_is_read_as_it_is(toy: tuple[Path, StreamPlan], tmp_path: Path) -> None:
    with CacheWriter(read_layout(toy[0])) as writer:
        writer.reset("enc", [1])
        merge_caches(tmp_path / "out.h5", [toy[0]])
    assert FeatureCache(tmp_path / "out.h5").stream("enc").state.tolist() == [COMMITTED, PENDING, FAILED, COMMITTED]
