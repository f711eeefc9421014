"""Transcripts by ASR in a cache, and the streams of encoders that read them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from cache.audit import summarize
from cache.errors import MmerError
from cache.joined import open_cache
from cache.layout import COMMITTED
from cache.store import FeatureCache
from cache.transcripts import stored_transcripts, texts_read
from featurize.asr.stream import parse_asr
from featurize.asr.transcriber import Transcriber
from featurize.encoders.base import Waveform
from featurize.extraction.corpus import featurize_corpus
from featurize.inputs.audio import cut, load, probe
from tests.support.recognizers import write_ctc_model
from tests.support.voices import RATE_HZ, computed_anew, contents, featurized, job_over, tone, write_corpus

TEXTS = {"a": "this is a", "b": "", "c": "", "d": "this is d"}
QUICK: dict[str, Any] = {"encoders": ("roberta-tiny",), "mel": False}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ctc_model(tmp_path_factory.mktemp("models") / "letters")


@pytest.fixture
def half(tmp_path: Path) -> Path:
    """A manifest of a dialogue, in which two of four utterances have no text."""
    folder = tmp_path / "half"
    folder.mkdir()
    for turn, name in enumerate(TEXTS):
        soundfile.write(folder / f"{name}.wav", tone(0.4 + 0.1 * turn, pitch_hz=90 + 70 * turn, seed=turn), RATE_HZ)
    rows = [
        {"id": name, "text": text, "dialogue": "d1", "turn": turn} for turn, (name, text) in enumerate(TEXTS.items())
    ]
    return write_corpus(folder, rows)


def heard(model: Path, manifest: Path, names: Sequence[str]) -> dict[str, str]:
    """Transcripts by the model alone."""
    transcribe = Transcriber(str(model), torch.device("cpu"))
    waveforms = [load(cut(probe(manifest.parent / f"{name}.wav"), None, None)).waveform for name in names]
    return dict(zip(names, transcribe(waveforms), strict=True))


def test_utterances_without_a_text_are_transcribed_and_encoders_read_both(
    half: Path, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.h5"
    report = featurized(half, path, asr=str(model), **QUICK)
    cache = FeatureCache(path)
    assert report.word_errors is None
    expected = heard(model, half, "bc")
    assert all(expected.values())
    stream = cache.stream("letters.asr")
    assert stored_transcripts(cache, stream.key) == expected
    assert [utterance.text for utterance in cache.utterances] == list(TEXTS.values())  # the corpus' own text stays
    assert texts_read(cache, cache.stream("roberta-tiny+asr").spec) == [
        "this is a",
        expected["b"],
        expected["c"],
        "this is d",
    ]
    assert summarize(cache)["streams"]["letters.asr"]["left_out"] == 2
    assert summarize(cache)["failures"] == []
    written = write_corpus(
        half.parent, [{"id": name, "text": expected.get(name, text)} for name, text in TEXTS.items()]
    )
    featurized(written, tmp_path / "own.h5", **QUICK)
    own = FeatureCache(tmp_path / "own.h5")
    for name in ("roberta-tiny", "roberta-tiny.tokens", "ctc.chars"):
        with_asr = name.replace("tiny", "tiny+asr") if "tiny" in name else f"{name}+asr"
        np.testing.assert_array_equal(cache.stream(with_asr).values, own.stream(name).values)


def test_the_same_command_computes_nothing_again(half: Path, model: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"asr": str(model), "asr_all": True, **QUICK}
    report = featurized(half, tmp_path / "a.h5", **options)
    before = contents(tmp_path / "a.h5")
    assert report.word_errors is not None
    assert (report.word_errors.utterances, report.word_errors.words) == (2, 6)
    assert computed_anew(half, tmp_path / "a.h5", **options) == {}
    featurized(half, tmp_path / "a.h5", **QUICK)  # a run without transcripts keeps all of them
    assert {key: value for key, value in contents(tmp_path / "a.h5").items() if key in before} == before
    assert computed_anew(half, tmp_path / "a.h5", asr=str(model), replace=True, **QUICK).keys() == {
        "roberta-tiny+asr",
        "roberta-tiny+asr.tokens",
        "ctc.chars+asr",
    }  # other texts from the same transcripts


def test_a_changed_recording_makes_its_transcript_and_all_that_read_it_stale(
    half: Path, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.h5"
    options: dict[str, Any] = {"asr": str(model), "history": 1, **QUICK}
    featurized(half, path, **options)
    soundfile.write(half.parent / "b.wav", tone(0.5, pitch_hz=1234, seed=9), RATE_HZ)
    featurized(half, path, encoders=("wav2vec2-tiny",), audio_only=True, mel=False)  # does not transcribe
    cache = FeatureCache(path)
    states = {name: (cache.stream(name).state == COMMITTED).tolist() for name in cache.streams}
    assert states["letters.asr"] == [False, False, True, False]
    assert states["ctc.chars+asr"] == [True, False, True, True]
    assert states["roberta-tiny+asr+history1"] == [True, False, False, True]  # c reads b as its history
    assert computed_anew(half, path, **options)["roberta-tiny+asr+history1"] == 2
    cache = FeatureCache(path)
    key = cache.stream("letters.asr").key
    assert stored_transcripts(cache, key) == heard(model, half, "bc")


def test_a_killed_run_goes_on_with_the_transcripts_that_it_has(
    half: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.h5"
    transcribe, calls = Transcriber._transcribe, list[int]()

    def killed(transcriber: Transcriber, waveform: Waveform) -> str:
        calls.append(len(waveform))
        if len(calls) > 2:
            raise KeyboardInterrupt
        return transcribe(transcriber, waveform)

    monkeypatch.setattr(Transcriber, "_transcribe", killed)
    with pytest.raises(KeyboardInterrupt):
        featurized(half, path, asr=str(model), asr_all=True, **QUICK)
    monkeypatch.undo()
    assert computed_anew(half, path, asr=str(model), asr_all=True, **QUICK)["letters.asr"] == 2
    cache = FeatureCache(path)
    assert stored_transcripts(cache, cache.stream("letters.asr").key) == heard(model, half, "abcd")


def test_another_model_under_the_same_name_is_an_error(half: Path, model: Path, tmp_path: Path) -> None:
    featurized(half, tmp_path / "a.h5", asr=str(model), **QUICK)
    other = write_ctc_model(tmp_path / "letters", seed=5)
    with pytest.raises(
        MmerError, match=r"letters.asr of .* was computed differently \(weights .*--asr letters-2=letters"
    ):
        featurized(half, tmp_path / "a.h5", asr=str(other), **QUICK)
    featurized(half, tmp_path / "a.h5", asr=str(other), replace=True, **QUICK)
    cache = FeatureCache(tmp_path / "a.h5")
    assert stored_transcripts(cache, cache.stream("letters.asr").key) == heard(other, half, "bc")


def test_shards_together_have_every_transcript(half: Path, model: Path, tmp_path: Path) -> None:
    (half.parent / "d.wav").rename(half.parent / "g.wav")  # of another shard than the others
    manifest = write_corpus(half.parent, [{"id": name, "text": TEXTS.get(name, "")} for name in "abg"])
    job = job_over(manifest, tmp_path / "a.h5", asr=str(model), asr_all=True, **QUICK)
    report = featurize_corpus(job, shards=2)
    cache = open_cache(report.cache)
    assert stored_transcripts(cache, cache.stream("letters.asr").key) == heard(model, manifest, "abg")
    assert report.word_errors is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"asr_all": True}, "--asr-all needs --asr MODEL"),
        ({"asr": "nothing"}, "unknown ASR model 'nothing'; name a folder or a hub id"),
        (
            {"asr": "a/b", "audio_only": True, "encoders": ()},
            "--asr is for text encoders, and --audio-only excludes them",
        ),
    ],
)
def test_invalid_requests_are_one_line(half: Path, tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(MmerError, match=message):
        featurized(half, tmp_path / "a.h5", **{**QUICK, **options})


def test_a_corpus_with_all_texts_needs_asr_all(corpus: Path, tmp_path: Path, model: Path) -> None:
    with pytest.raises(MmerError, match="every utterance of manifest has a transcript of the corpus; pass --asr-all"):
        featurized(corpus, tmp_path / "a.h5", asr=str(model), **QUICK)


def test_a_request_may_name_its_stream(model: Path) -> None:
    assert parse_asr(f"mine={model}").stream == "mine.asr"
    with pytest.raises(MmerError, match="needs a plain name"):
        parse_asr("a@b=owner/name")
