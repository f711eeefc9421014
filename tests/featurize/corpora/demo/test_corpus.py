from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cache.errors import MmerError
from cache.utterance import Utterance
from featurize.corpora.base import CorpusReading, check_reading
from featurize.corpora.demo import corpus as demo
from featurize.corpora.demo.corpus import MANIFEST, read_demo
from featurize.corpora.demo.script import EMOTIONS, PAIRS, write_script
from featurize.corpora.demo.voice import RATE_HZ, RMS, Voice, speak
from featurize.corpora.manifest import read_manifest
from featurize.encoders.tiny import build_roberta_tiny, build_roberta_tiny_tokenizer, build_wav2vec2_tiny

Floats = npt.NDArray[np.float64]
TURNS = 8  # of a dialogue


@pytest.fixture(scope="session")
def corpus(demo_corpus: Path) -> CorpusReading:
    return read_demo(demo_corpus)


@pytest.fixture(scope="session")
def waves(corpus: CorpusReading) -> list[Floats]:
    return [soundfile.read(corpus.root / utterance.audio)[0] for utterance in corpus.utterances]


@pytest.fixture(scope="session")
def probed(corpus: CorpusReading) -> list[Utterance]:
    """Every other dialogue, which is what the probes hear and read."""
    return [utterance for place, utterance in enumerate(corpus.utterances) if place // TURNS % 2 == 0]


@pytest.fixture(scope="session")
def heard(corpus: CorpusReading, probed: list[Utterance]) -> Floats:
    """Mean last hidden state of wav2vec2-tiny, ``(160, 64)``."""
    encoder = build_wav2vec2_tiny()
    rows = []
    for utterance in probed:
        wave = soundfile.read(corpus.root / utterance.audio)[0]
        normalized = torch.from_numpy((wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)).float()
        with torch.inference_mode():
            rows.append(encoder.wav2vec2(normalized[None]).last_hidden_state[0].mean(dim=0).numpy())
    return np.array(rows, dtype=np.float64)


@pytest.fixture(scope="session")
def read(probed: list[Utterance]) -> Floats:
    """Mean last hidden state of roberta-tiny, ``(160, 64)``."""
    encoder, tokenizer = build_roberta_tiny(), build_roberta_tiny_tokenizer()
    rows = []
    for utterance in probed:
        with torch.inference_mode():
            tokens = encoder(**tokenizer(utterance.text, return_tensors="pt")).last_hidden_state[0]
        rows.append(tokens.mean(dim=0).numpy())
    return np.array(rows, dtype=np.float64)


@pytest.fixture
def short_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "write_script", lambda: write_script()[:6])


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def skeleton(utterance: Utterance) -> tuple[str, ...]:
    return tuple("".join(sorted(word)) for word in utterance.text.split())


def test_counts_are_those_of_the_issue_and_every_speaker_shows_every_emotion_equally_often(
    corpus: CorpusReading,
) -> None:
    check_reading(corpus, "demo")
    assert len(corpus.utterances) == 320
    assert (corpus.utterances[0].id, corpus.utterances[0].audio) == ("Ses01F_d01_000", "Session1/Ses01F_d01_000.wav")
    shown = Counter((utterance.speaker, utterance.label) for utterance in corpus.utterances)
    assert len(shown) == 10 * 4
    assert set(shown.values()) == {8}
    assert Counter(utterance.session for utterance in corpus.utterances) == dict.fromkeys("12345", 64)
    assert Counter(utterance.style for utterance in corpus.utterances) == {"scripted": 160, "improvised": 160}


def test_a_dialogue_is_eight_turns_of_alternating_speakers_of_one_session(corpus: CorpusReading) -> None:
    dialogues: dict[str, list[Utterance]] = {}
    for utterance in corpus.utterances:
        dialogues.setdefault(utterance.dialogue, []).append(utterance)
    assert len(dialogues) == 40
    for turns in dialogues.values():
        assert [turn.turn for turn in turns] == list(range(TURNS))
        assert len({turn.session for turn in turns}) == len({turn.style for turn in turns}) == 1
        assert all(turn.speaker != following.speaker for turn, following in pairwise(turns))


def test_recordings_are_16_khz_mono_16_bit_and_last_from_0_6_to_6_seconds(corpus: CorpusReading) -> None:
    infos = [soundfile.info(corpus.root / utterance.audio) for utterance in corpus.utterances]
    assert {(info.samplerate, info.channels, info.subtype) for info in infos} == {(RATE_HZ, 1, "PCM_16")}
    assert min(info.duration for info in infos) >= 0.6
    assert max(info.duration for info in infos) <= 6.0


def test_recordings_are_equally_loud_and_not_clipped(waves: list[Floats]) -> None:
    np.testing.assert_allclose([np.sqrt(np.mean(wave**2)) for wave in waves], RMS, rtol=1e-4)
    assert max(np.abs(wave).max() for wave in waves) < 0.9


def test_every_transcript_has_room_for_its_ctc_alignment(corpus: CorpusReading, waves: list[Floats]) -> None:
    for utterance, wave in zip(corpus.utterances, waves, strict=True):
        repeats = sum(letter == following for letter, following in pairwise(utterance.text))
        assert (len(wave) - 400) // 320 + 1 >= len(utterance.text) + repeats


def test_the_words_of_a_pair_are_different_anagrams() -> None:
    assert all(sorted(pleasant) == sorted(unpleasant) and pleasant != unpleasant for pleasant, unpleasant in PAIRS)
    assert len({word for pair in PAIRS for word in pair}) == 2 * len(PAIRS)


def test_a_session_says_the_same_letters_word_for_word_in_every_emotion(corpus: CorpusReading) -> None:
    for session in "12345":
        turns = [utterance for utterance in corpus.utterances if utterance.session == session]
        said = [Counter(skeleton(turn) for turn in turns if turn.label == label) for label in EMOTIONS]
        assert said == [said[0]] * 4


def test_every_charged_word_is_said_equally_often_and_only_with_its_valence(corpus: CorpusReading) -> None:
    sides = {word: side for pair in PAIRS for side, word in enumerate(pair)}
    counts = Counter(word for utterance in corpus.utterances for word in utterance.text.split() if word in sides)
    assert len(counts) == len(sides)
    assert len(set(counts.values())) == 1
    for utterance in corpus.utterances:
        said = [sides[word] for word in utterance.text.split() if word in sides]
        assert 1 <= len(said) <= 3
        assert set(said) == {0 if utterance.label in {"happy", "calm"} else 1}


def test_ratings_lie_around_the_quadrant_of_the_label(corpus: CorpusReading) -> None:
    for label, centre in EMOTIONS.items():
        turns = [utterance for utterance in corpus.utterances if utterance.label == label]
        ratings = np.array([(turn.activation, turn.valence) for turn in turns], dtype=np.float64)
        assert 1.0 <= ratings.min() <= ratings.max() <= 5.0
        np.testing.assert_allclose(ratings.mean(axis=0), centre, atol=0.15)
        assert ratings.std(axis=0).min() > 0.2


def test_the_manifest_describes_the_corpus_completely(corpus: CorpusReading) -> None:
    reading = read_manifest(corpus.root / "demo.csv")
    assert list(reading.utterances) == list(corpus.utterances)
    assert not reading.notes


def test_another_folder_gets_the_same_bytes(
    corpus: CorpusReading, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "write_script", lambda: write_script()[:40])
    reading = read_demo(tmp_path / "new" / "demo")
    whole, part = contents(corpus.root), contents(reading.root)
    assert whole.pop(MANIFEST).startswith(part.pop(MANIFEST))
    assert part == {utterance.audio: whole[utterance.audio] for utterance in corpus.utterances[:40]}
    assert reading.utterances == corpus.utterances[:40]


@pytest.mark.usefixtures("short_script")
def test_a_complete_corpus_is_not_touched(tmp_path: Path) -> None:
    first = read_demo(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert read_demo(tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.usefixtures("short_script")
@pytest.mark.parametrize("lost", ["demo.csv", "Session1/Ses01M_d01_003.wav"])
def test_an_incomplete_corpus_is_synthesized_again(tmp_path: Path, lost: str) -> None:
    read_demo(tmp_path)
    whole = contents(tmp_path)
    (tmp_path / lost).unlink()
    (tmp_path / "Session1" / "Ses01F_d01_000.wav").write_bytes(b"RIFF")
    read_demo(tmp_path)
    assert contents(tmp_path) == whole


@pytest.mark.usefixtures("short_script")
def test_a_killed_synthesis_leaves_no_manifest_and_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents(read_demo(tmp_path / "whole").root)
    spoken: list[str] = []

    def speak_until_killed(text: str, *, voice: Voice, arousal: float, generator: np.random.Generator) -> Floats:
        spoken.append(text)
        if len(spoken) > 3:
            raise KeyboardInterrupt
        return speak(text, voice=voice, arousal=arousal, generator=generator)

    with monkeypatch.context() as patch:
        patch.setattr(demo, "speak", speak_until_killed)
        with pytest.raises(KeyboardInterrupt):
            read_demo(tmp_path / "killed")
    left = contents(tmp_path / "killed")
    assert len(left) == 3
    assert left.items() < whole.items()
    assert contents(read_demo(tmp_path / "killed").root) == whole


@pytest.mark.usefixtures("short_script")
def test_an_edited_manifest_is_refused_and_kept(tmp_path: Path) -> None:
    read_demo(tmp_path)
    edited = (tmp_path / "demo.csv").read_text().replace("happy", "joyful")
    (tmp_path / "demo.csv").write_text(edited)
    with pytest.raises(MmerError, match="not the table of this demo; choose another folder with --root"):
        read_demo(tmp_path)
    assert (tmp_path / "demo.csv").read_text() == edited


def test_a_root_that_cannot_be_a_folder_is_a_clean_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MmerError, match=r"cannot write the demo corpus to .*file: "):
        read_demo(tmp_path / "file")


def probe(features: Floats, utterances: Sequence[Utterance], classes: dict[str, str]) -> float:
    """Accuracy of a linear probe, mean over the five held-out sessions."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    truth, sessions = zip(*((classes[utterance.label], utterance.session) for utterance in utterances), strict=True)
    return float(cross_val_score(classifier, features, truth, groups=sessions, cv=GroupKFold(5)).mean())


AROUSAL = {"angry": "high", "happy": "high", "sad": "low", "calm": "low"}
VALENCE = {"angry": "bad", "happy": "good", "sad": "bad", "calm": "good"}
EMOTION = {label: label for label in EMOTIONS}


def test_sound_tells_arousal_but_neither_valence_nor_the_four_emotions(probed: list[Utterance], heard: Floats) -> None:
    assert probe(heard, probed, AROUSAL) >= 0.85
    assert probe(heard, probed, VALENCE) <= 0.6
    assert probe(heard, probed, EMOTION) <= 0.55


def test_words_tell_valence_but_neither_arousal_nor_the_four_emotions(probed: list[Utterance], read: Floats) -> None:
    assert probe(read, probed, VALENCE) >= 0.85
    assert probe(read, probed, AROUSAL) <= 0.6
    assert probe(read, probed, EMOTION) <= 0.55


def test_sound_and_words_together_tell_the_four_emotions(probed: list[Utterance], heard: Floats, read: Floats) -> None:
    assert probe(np.concatenate([heard, read], axis=1), probed, EMOTION) >= 0.75


def test_neither_loudness_nor_duration_tells_arousal(corpus: CorpusReading, waves: list[Floats]) -> None:
    rms = np.array([[np.sqrt(np.mean(wave**2))] for wave in waves])
    durations_s = np.array([[len(wave) / RATE_HZ] for wave in waves])
    assert probe(rms, corpus.utterances, AROUSAL) <= 0.6
    assert probe(durations_s, corpus.utterances, AROUSAL) <= 0.75
