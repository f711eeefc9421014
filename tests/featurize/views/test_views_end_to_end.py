"""Streams of views in a cache: added, resumed, stale and left out as every other stream."""

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import soundfile

from cache.audit import as_json, left_out, summarize, verify, verify_recordings
from cache.doctor import examine
from cache.errors import MmerError
from cache.joined import open_cache
from cache.layout import COMMITTED, FAILED
from cache.merge import merge_caches
from cache.stream import NO_VIEW
from cache.writer import Row
from featurize.extraction.estimate import estimate_extraction
from featurize.extraction.pipeline import CommitThread
from featurize.extraction.planned_job import ready_job
from featurize.extraction.report import ExtractionReport
from featurize.extraction.run import run_shards
from featurize.extraction.staleness import current_audio_digests
from tests.support.voices import (
    RATE_HZ,
    STREAMS,
    Silent,
    computed_anew,
    contents,
    featurized,
    job_over,
    tone,
    write_corpus,
    write_voices,
)

VIEWS = {"views": ("lsa", "cbca:2"), "mel": False}
LSA, TEXTS = "wav2vec2-tiny~lsa", ("roberta-tiny~cbca1", "roberta-tiny~cbca2")
OF_VIEWS = (LSA, *TEXTS)
SPLITS = {"a": "train", "b": "test", "c": "Train", "d": "val"}  # of other names: train


def rows(names: str, **changed: str) -> list[dict[str, str]]:
    return [{"id": name, "text": changed.get(name, f"we know the garden of {name}")} for name in names]


def write(folder: Path, names: str = "abc", **changed: str) -> Path:
    write_voices(folder, names)
    return write_corpus(folder, rows(names, **changed))


def split_corpus(folder: Path, names: str = "abcd") -> Path:
    write_voices(folder, names)
    return write_corpus(folder, [{**row, "split": SPLITS.get(row["id"], "train")} for row in rows(names)])


def test_views_join_a_cache_that_keeps_what_it_has(tmp_path: Path) -> None:
    manifest, cache = write(tmp_path), tmp_path / "a.h5"
    featurized(manifest, cache)
    before = contents(cache)
    assert computed_anew(manifest, cache, **VIEWS) == dict.fromkeys(OF_VIEWS, 3)
    after = contents(cache)
    assert {name: after[name] for name in before} == before
    assert set(open_cache(cache).streams) == {*STREAMS, *OF_VIEWS}
    assert computed_anew(manifest, cache, **VIEWS) == {}
    assert computed_anew(manifest, cache) == {}  # a run without views leaves them
    assert contents(cache) == after
    for name in OF_VIEWS:
        original = open_cache(cache).stream(name.partition("~")[0])
        view = open_cache(cache).stream(name)
        assert bytes(view.input_digest[0]) == bytes(original.input_digest[0])
        assert not np.array_equal(view.read(0), original.read(0)) or name == TEXTS[0]


def copy_of(kept: Path, folder: Path) -> tuple[Path, Path]:
    """Copies the corpus of `kept` and its cache with views; returns its manifest and the cache."""
    for path in kept.iterdir():
        shutil.copy(path, folder)
    cache = folder / "whole.h5"
    with h5py.File(cache, "r+") as file:
        file.attrs["corpus"] = file.attrs["corpus"].replace(str(kept), str(folder))
    return folder / "corpus.csv", cache


class Killed(Exception):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus with its cache without views, ``plain.h5``, and with views, ``whole.h5``."""
    folder = tmp_path_factory.mktemp("kept")
    manifest = write(folder)
    featurized(manifest, folder / "plain.h5", mel=False, batch_seconds=0)
    featurized(manifest, folder / "whole.h5", **VIEWS, batch_seconds=0)
    return folder


@pytest.mark.parametrize("written", [1, 2, 3])
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(kept: Path, tmp_path: Path, written: int) -> None:
    manifest, cache = kept / "corpus.csv", Path(shutil.copy(kept / "plain.h5", tmp_path / "a.h5"))
    put, left = CommitThread.put, [written]

    def dying(commits: CommitThread, rows: list[Row]) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        put(commits, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CommitThread, "put", dying)
        with pytest.raises(Killed):
            featurized(manifest, cache, **VIEWS, batch_seconds=0)
    committed = {name: int((open_cache(cache).stream(name).state == COMMITTED).sum()) for name in OF_VIEWS}
    assert 0 < sum(committed.values()) < 9
    again = computed_anew(manifest, cache, **VIEWS, batch_seconds=0)
    assert {name: committed[name] + again.get(name, 0) for name in OF_VIEWS} == dict.fromkeys(OF_VIEWS, 3)
    assert contents(cache) == contents(kept / "whole.h5")


def test_a_changed_transcript_makes_its_views_stale_whatever_runs(kept: Path, tmp_path: Path) -> None:
    _, cache = copy_of(kept, tmp_path)
    changed = write(tmp_path, b="they never see the sea")
    featurized(changed, cache, encoders=("mfcc39",), mel=False, audio_only=True)
    states = {name: open_cache(cache).stream(name).state.tolist() for name in OF_VIEWS}
    assert states == {LSA: [1, 1, 1], TEXTS[0]: [1, 0, 1], TEXTS[1]: [1, 0, 1]}
    renewed = ("roberta-tiny", "roberta-tiny.tokens", "ctc.chars", *TEXTS)
    assert computed_anew(changed, cache, **VIEWS) == dict.fromkeys(renewed, 1)
    featurized(changed, tmp_path / "fresh.h5", **VIEWS)
    fresh = contents(tmp_path / "fresh.h5")
    assert {name: value for name, value in contents(cache).items() if name in fresh} == fresh


def test_a_changed_recording_makes_its_view_stale(kept: Path, tmp_path: Path) -> None:
    manifest, cache = copy_of(kept, tmp_path)
    soundfile.write(tmp_path / "b.wav", tone(0.3, seed=7), RATE_HZ)
    problems = verify_recordings(open_cache(cache), current_audio_digests(tmp_path))
    assert {(one["stream"], one["id"]) for one in as_json(problems)} == {
        (name, "b") for name in ("wav2vec2-tiny", "wav2vec2-tiny.codes", LSA)
    }
    assert computed_anew(manifest, cache, **VIEWS) == dict.fromkeys(("wav2vec2-tiny", "wav2vec2-tiny.codes", LSA), 1)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> ExtractionReport:
    """The report on views of a corpus with a published split."""
    folder = tmp_path_factory.mktemp("published")
    return featurized(split_corpus(folder), folder / "a.h5", **VIEWS)


def test_t001_7_no_view_belongs_to_an_utterance_of_a_published_dev_or_test_subset(published: ExtractionReport) -> None:
    report, cache = published, open_cache(published.cache)
    for name in OF_VIEWS:
        stream = cache.stream(name)
        assert stream.state.tolist() == [COMMITTED, FAILED, COMMITTED, FAILED]
        assert [int(stream.lengths[index]) for index in (1, 3)] == [0, 0]
        assert stream.reason(1) == f"{NO_VIEW}views are for training, the utterance is in test"
        assert stream.reason(3) == f"{NO_VIEW}views are for training, the utterance is in dev"
        assert left_out(stream) == {1, 3}
    held_out = (
        "1 (views are for training, the utterance is in test), 1 (views are for training, the utterance is in dev)"
    )
    assert f"{LSA}: utterances without a view: {held_out}" in report.notes
    assert report.empty == []


def test_what_is_left_out_on_purpose_is_no_failure(published: ExtractionReport) -> None:
    cache = open_cache(published.cache)
    summary = summarize(cache)
    assert summary["failures"] == []
    for name, stream in summary["streams"].items():
        expected = {"committed": 2, "failed": 0, "pending": 0, "left_out": 2} if name in OF_VIEWS else {"committed": 4}
        assert {key: stream[key] for key in expected} == expected
        assert ("left_out" in stream) == (name in OF_VIEWS)
    assert verify(cache) == []
    findings = {finding.what: finding for finding in examine(cache)}
    assert not any(finding.differs for finding in findings.values())
    assert findings[f"committed in {LSA}"].detail == "no views of 2 utterances"


def test_a_view_that_failed_is_still_a_finding(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "b.wav").unlink()
    path = tmp_path / "a.h5"
    featurized(tmp_path / "corpus.csv", path, **VIEWS)
    findings = {finding.what: finding for finding in examine(open_cache(path))}
    assert findings[f"committed in {LSA}"].differs
    assert {one["id"] for one in summarize(open_cache(path))["failures"]} == {"b"}


def test_an_utterance_without_words_has_no_view_of_its_text_only(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    report = featurized(write(tmp_path, b="[LAUGHTER]"), path, **VIEWS)
    cache = open_cache(path)
    assert [left_out(cache.stream(name)) for name in OF_VIEWS] == [set(), {1}, {1}]
    assert f"{TEXTS[0]}: utterances without a view: 1 (the transcript has no word to replace)" in report.notes
    assert not any(finding.differs for finding in examine(cache))


def test_shards_hold_the_views_of_the_whole(tmp_path: Path) -> None:
    manifest = split_corpus(tmp_path, "bdg")  # b and d, of test and dev, are a shard of their own
    featurized(manifest, tmp_path / "whole.h5", **VIEWS)
    report = run_shards(job_over(manifest, tmp_path / "part.h5", **VIEWS), 2, Silent())
    assert report.empty == []
    merge_caches(tmp_path / "merged.h5", [tmp_path / "part-[0-9]-of-2.h5"])
    whole, merged = contents(tmp_path / "whole.h5"), contents(tmp_path / "merged.h5")
    assert {name: (value[0], *value[2:]) for name, value in merged.items()} == {
        name: (value[0], *value[2:]) for name, value in whole.items()
    }


def test_an_encoder_that_is_replaced_takes_its_views_along(tmp_path: Path) -> None:
    manifest, path = write(tmp_path), tmp_path / "a.h5"
    how: dict[str, Any] = {"mel": False, "audio_only": True}
    featurized(manifest, path, encoders=("x=wav2vec2-tiny",), views=("lsa",), **how)
    assert "x~lsa" in open_cache(path).streams
    with pytest.raises(
        MmerError, match=r"x~lsa of .* belongs to another encoder called x|x of .* computed differently"
    ):
        featurized(manifest, path, encoders=("x=mfcc39",), **how)
    featurized(manifest, path, encoders=("x=mfcc39",), replace=True, **how)
    assert set(open_cache(path).streams) == {"x"}


def test_a_dry_run_counts_the_rows_of_views(tmp_path: Path) -> None:
    found = estimate_extraction(ready_job(job_over(split_corpus(tmp_path), tmp_path / "a.h5", **VIEWS)))
    by_name = {stream.name: stream for stream in found.streams}
    assert 0 < by_name[LSA].rows < by_name["wav2vec2-tiny"].rows
    assert [by_name[name].failed for name in OF_VIEWS] == [2, 2, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"views": ("cbca:5",), "audio_only": True, "encoders": ("wav2vec2-tiny",)},
            "--view cbca needs an encoder of tr",
        ),
        (
            {"views": ("lsa",), "encoders": ("logmel80", "roberta-tiny")},
            "--view lsa needs an encoder of frames of speech",
        ),
        ({"views": ("noise",)}, "unknown view 'noise'; allowed: lsa, or cbca:K for K texts, 1 to 20"),
    ],
)
def test_a_view_that_no_encoder_computes_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MmerError, match=message):
        featurized(write(tmp_path), tmp_path / "a.h5", **changes)
    assert not (tmp_path / "a.h5").exists()
