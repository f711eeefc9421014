import pytest

from cache.corpus_facts import (
    BROKEN_CLIPS,
    IEMOCAP_SESSIONS,
    MELD_DIALOGUES,
    MELD_EMOTIONS,
    MELD_SENTIMENTS,
    MELD_UTTERANCES,
    PUBLISHED,
    RAVDESS_SPEECH,
    Defect,
    Table,
    broken_clips,
)
from cache.layout import reason_bytes


def test_the_four_classes_of_iemocap_are_5531() -> None:
    assert sum(sum(counts.values()) for counts in IEMOCAP_SESSIONS.values()) == 5531


def test_the_speech_part_of_ravdess_is_60_recordings_of_24_actors() -> None:
    assert sum(RAVDESS_SPEECH.values()) == 24 * 60


@pytest.mark.parametrize("table", [MELD_EMOTIONS, MELD_SENTIMENTS], ids=["emotions", "sentiments"])
def test_the_labels_of_meld_add_up_to_its_utterances(table: Table) -> None:
    assert {split: sum(counts.values()) for split, counts in table.items()} == MELD_UTTERANCES
    assert sum(MELD_UTTERANCES.values()) == 13_708
    assert sum(MELD_DIALOGUES.values()) == 1432


def test_what_is_neutral_in_emotion_is_neutral_in_sentiment() -> None:
    for split, emotions in MELD_EMOTIONS.items():
        assert emotions["neutral"] == MELD_SENTIMENTS[split]["neutral"]
        assert MELD_SENTIMENTS[split]["positive"] >= emotions["joy"]


@pytest.mark.parametrize("defect", [defect for clips in BROKEN_CLIPS.values() for defect in clips.values()], ids=str)
def test_a_defect_leaves_room_for_the_reason_of_the_failure(defect: Defect) -> None:
    message = f"truncated: 123456789 of 123456789 bytes; {defect}"
    assert reason_bytes(message).decode() == message
    assert "issue" in defect.source


def test_a_corpus_that_nothing_is_known_of_has_no_broken_clips() -> None:
    assert broken_clips("manifest") == {}
    assert len(broken_clips("meld")) == 4


@pytest.mark.parametrize("corpus", sorted(set(PUBLISHED) - {"msp-improv"}))
def test_published_labels_and_splits_add_up_to_the_utterances(corpus: str) -> None:
    for counts in PUBLISHED[corpus]:
        assert {sum(part.values()) for part in (counts.labels, counts.splits) if part} <= {counts.utterances}


def test_the_four_classes_of_msp_improv_are_those_of_its_paper() -> None:
    (counts,) = PUBLISHED["msp-improv"]
    assert sum(counts.labels.values()) == 7798
