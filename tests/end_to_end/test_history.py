"""Dialogue history from the manifest to the file: what is recomputed when somebody's words change."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from cache.errors import MmerError
from cache.store import FeatureCache
from tests.support.voices import RATE_HZ, computed_anew, contents, featurized, tone, write_corpus, write_voices

STREAMS = ("roberta-tiny+history2", "roberta-tiny+history2.tokens")
HISTORY: Mapping[str, Any] = {"encoders": ("roberta-tiny",), "history": 2, "mel": False}
WORDS = {"a": "i know", "b": "the garden", "c": "so what", "d": "no", "e": "good morning", "f": "yes"}


def write_dialogue(folder: Path, words: Mapping[str, str], order: Sequence[str] = "abcdef") -> Path:
    """One dialogue of five turns and an utterance outside of it."""
    folder.mkdir(exist_ok=True)
    for name in words:
        soundfile.write(folder / f"{name}.wav", tone(0.2, seed=ord(name)), RATE_HZ)
    rows = [
        {"id": name, "text": words[name], "dialogue": "d" * (name != "f"), "turn": ord(name) - 97} for name in order
    ]
    return write_corpus(folder, [{**row, "turn": row["turn"] if row["dialogue"] else ""} for row in rows])


@pytest.fixture
def dialogue(tmp_path: Path) -> Path:
    return write_dialogue(tmp_path / "corpus", WORDS)


def recomputed(before: Mapping[Any, Any], path: Path, stream: str = STREAMS[0]) -> str:
    after = contents(path)
    return "".join(name for name in WORDS if before[stream, name] != after[stream, name])


def test_rows_hold_the_history_and_say_which_tokens_are_their_own(dialogue: Path, tmp_path: Path) -> None:
    featurized(dialogue, tmp_path / "a.h5", **HISTORY)
    cache = FeatureCache(tmp_path / "a.h5")
    assert set(STREAMS) <= set(cache.streams)
    words = [len(text.split()) for text in WORDS.values()]
    expected = [2 + sum(words[max(0, turn - 2) : turn + 1]) for turn in range(5)] + [2 + words[5]]
    assert cache.stream(STREAMS[0]).lengths.tolist() == expected
    tokens = cache.stream(STREAMS[1]).read(2)
    assert [WORDS["c"][start:end] for _, start, end in tokens if end] == ["so", "what"]


@pytest.mark.parametrize(("edited", "rows"), [("a", "abc"), ("c", "cde"), ("e", "e"), ("f", "f")])
def test_an_edited_transcript_recomputes_exactly_the_rows_that_contain_it(
    dialogue: Path, tmp_path: Path, edited: str, rows: str
) -> None:
    featurized(dialogue, tmp_path / "a.h5", **HISTORY)
    before = contents(tmp_path / "a.h5")
    write_dialogue(dialogue.parent, {**WORDS, edited: "other words"})
    written = computed_anew(dialogue, tmp_path / "a.h5", **HISTORY)
    assert [written[stream] for stream in STREAMS] == [len(rows)] * 2
    assert recomputed(before, tmp_path / "a.h5") == rows
    featurized(dialogue, tmp_path / "b.h5", **HISTORY)
    assert contents(tmp_path / "a.h5") == contents(tmp_path / "b.h5")


def test_a_turn_that_did_not_fit_is_not_contained(dialogue: Path, tmp_path: Path) -> None:
    short = {**HISTORY, "max_tokens": 6}  # of c, "so what" and "the garden"
    featurized(dialogue, tmp_path / "a.h5", **short)
    before = contents(tmp_path / "a.h5")
    write_dialogue(dialogue.parent, {**WORDS, "a": "you see"})
    assert computed_anew(dialogue, tmp_path / "a.h5", **short)[STREAMS[0]] == 2
    assert recomputed(before, tmp_path / "a.h5") == "ab"


def test_a_run_of_another_encoder_finds_the_rows_that_contain_an_edit(dialogue: Path, tmp_path: Path) -> None:
    featurized(dialogue, tmp_path / "a.h5", **HISTORY)
    write_dialogue(dialogue.parent, {**WORDS, "c": "other words"})
    report = featurized(dialogue, tmp_path / "a.h5", encoders=("roberta-tiny",), mel=False)
    assert [report.summary["streams"][stream]["pending"] for stream in STREAMS] == [3, 3]


def test_neither_a_limit_nor_the_order_of_the_rows_changes_a_history(dialogue: Path, tmp_path: Path) -> None:
    featurized(dialogue, tmp_path / "a.h5", **HISTORY)
    backwards = write_dialogue(dialogue.parent, WORDS, order="fedcba")
    featurized(backwards, tmp_path / "b.h5", **HISTORY, limit=3)
    whole, limited = FeatureCache(tmp_path / "a.h5"), FeatureCache(tmp_path / "b.h5")
    assert limited.ids == ["f", "e", "d"]
    for place, name in enumerate(limited.ids):
        found = limited.stream(STREAMS[0]).read(place)
        np.testing.assert_array_equal(found, whole.stream(STREAMS[0]).read(whole.ids.index(name)))


def test_it_stands_beside_the_plain_stream_of_the_same_encoder(dialogue: Path, tmp_path: Path) -> None:
    featurized(dialogue, tmp_path / "a.h5", **{**HISTORY, "history": 0})
    before = contents(tmp_path / "a.h5")
    featurized(dialogue, tmp_path / "a.h5", **HISTORY)
    after = contents(tmp_path / "a.h5")
    assert before.items() <= after.items()
    assert after["roberta-tiny+history2", "a"][1] == before["roberta-tiny", "a"][1]  # it has no turn before it
    assert after["roberta-tiny+history2", "b"][1] != before["roberta-tiny", "b"][1]


def test_turns_that_did_not_fit_are_counted(dialogue: Path, tmp_path: Path) -> None:
    report = featurized(dialogue, tmp_path / "a.h5", **HISTORY, max_tokens=6)
    assert report.notes == [f"{STREAMS[0]}: the oldest turns of the history did not fit for 3 utterances"]


def test_a_corpus_without_dialogues_has_no_history(tmp_path: Path) -> None:
    corpus = write_voices(tmp_path / "corpus", "ab")
    with pytest.raises(MmerError, match="--history 2 needs dialogues, and manifest has none"):
        featurized(corpus, tmp_path / "a.h5", **HISTORY)


def test_a_run_without_a_text_encoder_has_no_history(dialogue: Path, tmp_path: Path) -> None:
    sound: Mapping[str, Any] = {"encoders": ("mfcc39",), "audio_only": True, "history": 2}
    with pytest.raises(MmerError, match="--history 2 is for text encoders, and this run has none"):
        featurized(dialogue, tmp_path / "a.h5", **sound)
