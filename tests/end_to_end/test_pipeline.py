"""The main job from end to end: what is computed, what is kept, what is computed anew."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from cache.audit import summarize, verify
from cache.errors import MmerError
from cache.store import FeatureCache
from featurize.extraction.run import run_job
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

SPEECH_OF_ONE = {"wav2vec2-tiny": 1, "wav2vec2-tiny.codes": 1, "logmel80": 1}


class Stopped(Exception):
    """What stands for a kill in the middle of a run."""


def test_one_run_gives_every_stream_of_every_utterance(cache: Path) -> None:
    opened = FeatureCache(cache)
    assert sorted(opened.streams) == STREAMS
    assert verify(opened) == []
    assert {one["committed"] for one in summarize(opened)["streams"].values()} == {6}
    assert opened.utterances[3].duration_s == pytest.approx(0.5)
    assert set(opened.weights("wav2vec2-tiny")) == {
        "codevectors",
        "project_q.weight",
        "project_q.bias",
        "project_hid.weight",
        "project_hid.bias",
    }


def test_streams_of_one_utterance_belong_together(cache: Path) -> None:
    opened = FeatureCache(cache)
    lengths = {name: stream.lengths.tolist() for name, stream in opened.streams.items()}
    assert lengths["wav2vec2-tiny"] == lengths["wav2vec2-tiny.codes"]
    assert lengths["roberta-tiny"] == lengths["roberta-tiny.tokens"]
    text = opened.utterances[0].text
    tokens = opened.stream("roberta-tiny.tokens").read(0)
    assert [text[start:end] for _, start, end in tokens[1:-1]][:2] == ["this", "is"]


def test_a_second_run_computes_nothing(corpus: Path, cache: Path) -> None:
    before = cache.stat().st_ino, contents(cache)
    assert computed_anew(corpus, cache) == {}
    assert (cache.stat().st_ino, contents(cache)) == before


def test_a_changed_recording_is_recomputed_and_no_other(corpus: Path, cache: Path) -> None:
    before = contents(cache)
    soundfile.write(corpus.parent / "c.wav", tone(0.4, pitch_hz=300, seed=9), RATE_HZ)  # as long as before
    assert computed_anew(corpus, cache) == SPEECH_OF_ONE
    changed = {key for key, value in contents(cache).items() if value != before[key]}
    assert changed == {(name, "c") for name in SPEECH_OF_ONE}


def test_a_recording_of_another_length_is_recomputed_and_no_other(corpus: Path, cache: Path) -> None:
    soundfile.write(corpus.parent / "c.wav", tone(1.0), RATE_HZ)
    assert computed_anew(corpus, cache) == SPEECH_OF_ONE
    assert FeatureCache(cache).utterances[2].duration_s == 1.0


def test_a_changed_transcript_is_recomputed_and_no_other(corpus: Path, cache: Path) -> None:
    write_corpus(
        corpus.parent, [{"id": name} if name != "b" else {"id": "b", "text": "that is b"} for name in "abcdef"]
    )
    assert computed_anew(corpus, cache) == {"roberta-tiny": 1, "roberta-tiny.tokens": 1, "ctc.chars": 1}


def test_a_note_of_a_transcript_is_kept_up_to_date(corpus: Path, cache: Path) -> None:
    stream = FeatureCache(cache).stream("roberta-tiny")
    write_corpus(corpus.parent, [{"id": name, "text": f"this is {name}\0"} for name in "abcdef"])
    assert computed_anew(corpus, cache) == {}
    assert stream.reason(0) == "1 NUL character removed"
    write_corpus(corpus.parent, [{"id": name} for name in "abcdef"])
    assert computed_anew(corpus, cache) == {}
    assert stream.reason(0) == ""


def test_a_changed_label_is_taken_over_without_computing(corpus: Path, cache: Path) -> None:
    write_corpus(corpus.parent, [{"id": name, "label": "happy"} for name in "abcdef"])
    assert computed_anew(corpus, cache) == {}
    assert {one.label for one in FeatureCache(cache).utterances} == {"happy"}


def test_a_stale_stream_is_pending_even_when_its_encoder_is_not_run(corpus: Path, cache: Path) -> None:
    soundfile.write(corpus.parent / "c.wav", tone(0.4, pitch_hz=300, seed=9), RATE_HZ)
    computed_anew(corpus, cache, encoders=("roberta-tiny",), mel=False)
    assert summarize(FeatureCache(cache))["streams"]["wav2vec2-tiny"]["pending"] == 1


@pytest.mark.parametrize("later", ["abcdefgh", "acf", "fedcba"])
def test_another_set_of_utterances_ends_as_a_fresh_run_does(
    corpus: Path, cache: Path, tmp_path: Path, later: str
) -> None:
    write_voices(tmp_path / "more", "abcdefgh")
    for recording in (tmp_path / "more").glob("*.wav"):
        shutil.copy(recording, corpus.parent)
    write_corpus(corpus.parent, [{"id": name} for name in later])
    new = len(set(later) - set("abcdef"))
    assert set(computed_anew(corpus, cache, replace=True).values()) == ({new} if new else set())
    featurized(corpus, tmp_path / "fresh.h5")
    assert contents(cache) == contents(tmp_path / "fresh.h5")


def test_adding_a_stream_keeps_the_others(corpus: Path, cache: Path) -> None:
    before = contents(cache)
    assert computed_anew(corpus, cache, encoders=("mfcc39",), audio_only=True) == {"mfcc39": 6}
    after = contents(cache)
    assert {key: after[key] for key in before} == before
    assert ("mfcc39", "a") in after


def test_layers_of_one_encoder_are_computed_in_one_pass(corpus: Path, tmp_path: Path) -> None:
    encoders = ("wav2vec2-tiny", "wav2vec2-tiny@2", "wav2vec2-tiny@0,4", "wav2vec2-tiny@mean1-3", "roberta-tiny@4")
    progress = Silent()
    run_job(job_over(corpus, tmp_path / "a.h5", encoders=encoders, mel=False), progress)
    assert progress.started == {"wav2vec2-tiny": 6, "roberta-tiny@4": 6, "ctc.chars": 6}
    opened = FeatureCache(tmp_path / "a.h5")
    assert opened.stream("wav2vec2-tiny@0,4").spec.shape == (2, 64)
    assert opened.stream("wav2vec2-tiny@2").spec.shape == (64,)
    assert "roberta-tiny.tokens" in opened.streams


def test_batches_give_what_one_by_one_gives(corpus: Path, cache: Path, tmp_path: Path) -> None:
    featurized(corpus, tmp_path / "batched.h5", batch_seconds=2.0)
    alone, batched = FeatureCache(cache), FeatureCache(tmp_path / "batched.h5")
    for name in STREAMS:
        for index in range(6):
            expected = alone.stream(name).read(index).astype(np.float64)
            found = batched.stream(name).read(index)
            assert np.linalg.norm(found - expected) <= 5e-4 * np.linalg.norm(expected)  # float16 as stored


@pytest.fixture(scope="module")
def undisturbed(six_voices: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[Any, ...]]:
    """What a run in batches of a second leaves."""
    path = tmp_path_factory.mktemp("undisturbed") / "a.h5"
    featurized(six_voices / "corpus" / "corpus.csv", path, batch_seconds=1.0)
    return contents(path)


@pytest.mark.parametrize("after", [1, 4, 9, 17])
def test_a_resumed_run_ends_as_an_undisturbed_one(
    corpus: Path, tmp_path: Path, undisturbed: dict[tuple[str, str], tuple[Any, ...]], after: int
) -> None:
    class Stopping(Silent):
        def advance(self, utterances: int, seconds: float) -> None:
            super().advance(utterances, seconds)
            if self.advanced >= after:
                raise Stopped

    with pytest.raises(Stopped):
        run_job(job_over(corpus, tmp_path / "b.h5", batch_seconds=1.0), Stopping())
    committed = {key: value for key, value in contents(tmp_path / "b.h5").items() if value[0] == 1}
    assert committed
    written = computed_anew(corpus, tmp_path / "b.h5", batch_seconds=1.0)
    assert sum(written.values()) == 36 - len(committed)
    after_all = contents(tmp_path / "b.h5")
    assert {key: after_all[key] for key in committed} == committed
    assert after_all == undisturbed


def test_a_failed_recording_is_tried_again(corpus: Path, tmp_path: Path) -> None:
    sound = (corpus.parent / "b.wav").read_bytes()
    (corpus.parent / "b.wav").write_bytes(sound[:2000])
    report = featurized(corpus, tmp_path / "a.h5")
    assert {(one["id"], one["stream"]) for one in report.summary["failures"]} == {
        ("b", name) for name in ("logmel80", "wav2vec2-tiny", "wav2vec2-tiny.codes")
    }
    (corpus.parent / "b.wav").write_bytes(sound)
    assert computed_anew(corpus, tmp_path / "a.h5") == SPEECH_OF_ONE


def test_long_recordings_fail_or_are_encoded_in_pieces(corpus: Path, tmp_path: Path) -> None:
    report = featurized(corpus, tmp_path / "a.h5", max_seconds=0.55)
    assert {one["id"] for one in report.summary["failures"]} == {"e", "f"}
    assert "0.6 s, longer than --max-seconds 0.55; raise it or pass --chunk" in report.summary["failures"][0]["reason"]
    before = contents(tmp_path / "a.h5")
    # only what failed is computed: --chunk changes nothing for the others
    written = computed_anew(corpus, tmp_path / "a.h5", max_seconds=0.55, chunk=True)
    assert written == dict.fromkeys(SPEECH_OF_ONE, 2)
    after = contents(tmp_path / "a.h5")
    assert {key: after[key] for key in before if key[1] in "abcd"} == {
        key: value for key, value in before.items() if key[1] in "abcd"
    }
    assert after["wav2vec2-tiny", "f"][3] == "encoded in 2 pieces"
    # other pieces are another input: the long ones are computed anew, and they alone
    assert computed_anew(corpus, tmp_path / "a.h5", max_seconds=0.45, chunk=True)["wav2vec2-tiny"] == 3


def test_defaults_follow_the_corpus(corpus: Path, tmp_path: Path) -> None:
    from featurize.extraction.planned_job import read_job

    def names(**changes: Any) -> Sequence[str]:
        return [one.name for one in read_job(job_over(corpus, tmp_path / "a.h5", **changes))[1].requests]

    assert names(encoders=()) == ["wav2vec2-base", "roberta-base"]
    assert names(encoders=("hubert-base",)) == ["hubert-base"]
    assert names(encoders=("hubert-base",), audio_only=True) == ["hubert-base"]
    assert names(encoders=(), audio_only=True) == ["wav2vec2-base"]
    with pytest.raises(MmerError, match="--audio-only excludes the text encoder bert-base"):
        names(encoders=("bert-base",), audio_only=True)
    write_corpus(corpus.parent, [{"id": "a", "text": ""}])
    assert names(encoders=()) == ["wav2vec2-base"]
