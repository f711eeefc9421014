"""What a run may not lose: features whose recordings are gone, utterances it does not name, files of others."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cache.errors import CacheBusy, MmerError
from cache.store import FeatureCache
from cache.writer import writing_lock
from featurize.corpora.demo import corpus as demo_corpus
from featurize.corpora.demo.script import write_script
from featurize.extraction import prepare
from featurize.extraction.run import run_job
from tests.support.voices import (
    STREAMS,
    Silent,
    computed_anew,
    contents,
    featurized,
    job_over,
    write_corpus,
    write_voices,
)


def test_recordings_that_vanish_do_not_take_their_features_along(corpus: Path, cache: Path) -> None:
    before = contents(cache)
    (corpus.parent / "b.wav").unlink()
    told = r"features of 1 .* would drop \(first: b: missing: not found .*\); restore them, .* --replace"
    with pytest.raises(MmerError, match=told):
        featurized(corpus, cache)
    (corpus.parent / "b.wav").write_bytes((corpus.parent / "a.wav").read_bytes()[:2000])
    with pytest.raises(MmerError, match="b: truncated"):
        featurized(corpus, cache)
    assert contents(cache) == before
    report = featurized(corpus, cache, replace=True)
    assert {one["id"] for one in report.summary["failures"]} == {"b"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"limit": 2}, r"4 utterances .* \(first: c: not among the utterances of this run\)"),
        ({"max_seconds": 0.55}, r"2 utterances .* \(first: e: 0.6 s, longer than --max-seconds 0.55"),
    ],
)
def test_a_smaller_run_drops_features_only_when_told_so(
    corpus: Path, cache: Path, changes: dict[str, Any], told: str
) -> None:
    before = contents(cache)
    with pytest.raises(MmerError, match=told):
        featurized(corpus, cache, **changes)
    assert contents(cache) == before
    assert computed_anew(corpus, cache, **changes, replace=True) == {}
    after = contents(cache)
    assert after.items() & before.items()
    assert {key for key, value in before.items() if value[0] == 1} - {
        key for key, value in after.items() if value[0] == 1
    }


def test_a_limit_of_one_encoder_costs_the_others_nothing(corpus: Path, cache: Path) -> None:
    before = contents(cache)
    written = computed_anew(corpus, cache, encoders=("mfcc39",), audio_only=True, mel=False, max_seconds=0.55)
    assert written == {"mfcc39": 4}
    after = contents(cache)
    assert {key: after[key] for key in before} == before


def test_no_stale_row_is_ever_in_the_file(corpus: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": name, "label": "new"} if name != "b" else {"id": "b", "text": "that was b"} for name in "abcdef"]
    write_corpus(corpus.parent, rows)

    def killed(*args: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(prepare, "CacheWriter", killed)  # a kill right after the rename
    with pytest.raises(InterruptedError):
        featurized(corpus, cache)
    after = FeatureCache(cache)
    assert after.utterances[1].text == "that was b"
    assert [int(after.stream(name).state[1]) for name in STREAMS] == [0, 1, 0, 0, 1, 1]


def test_a_link_to_a_cache_is_followed(corpus: Path, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "link.h5").symlink_to(cache)
    write_corpus(corpus.parent, [{"id": name, "label": "happy"} for name in "abcdef"])
    with writing_lock(cache), pytest.raises(CacheBusy):
        featurized(corpus, tmp_path / "link.h5")
    featurized(corpus, tmp_path / "link.h5")
    assert (tmp_path / "link.h5").is_symlink()
    assert FeatureCache(cache).utterances[0].label == "happy"


def test_a_cache_of_another_corpus_is_left_alone(corpus: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_corpus, "write_script", lambda: write_script()[:6])
    demo = replace(job_over(corpus, cache), corpus="demo", root=corpus.parent / "demo")
    with pytest.raises(MmerError, match="holds the corpus manifest, not demo"):
        run_job(demo, Silent())


def test_a_cache_of_other_utterances_altogether_is_left_alone(cache: Path, tmp_path: Path) -> None:
    before = contents(cache)
    with pytest.raises(MmerError, match=r"holds 6 other utterances \(first: a\) and none of .*; choose another file"):
        featurized(write_voices(tmp_path / "other", "xyz"), cache)
    assert contents(cache) == before
