import shutil
from pathlib import Path

import pytest

from cache.errors import MmerError
from cache.utterance import Utterance
from featurize.corpora.base import check_reading
from featurize.corpora.iemocap import read_iemocap


def by_id(root: Path) -> dict[str, Utterance]:
    return {utterance.id: utterance for utterance in read_iemocap(root).utterances}


def test_a_turn_carries_everything_the_release_says_of_it(iemocap_root: Path) -> None:
    assert by_id(iemocap_root)["Ses01F_impro01_F000"] == Utterance(
        id="Ses01F_impro01_F000",
        audio="Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav",
        text="Excuse me. [LAUGHTER]",
        label="neu",
        speaker="Ses01F",
        session="1",
        dialogue="Ses01F_impro01",
        turn=0,
        style="improvised",
        valence=2.5,
        activation=2.5,
        dominance=2.5,
        votes="neu:1",
    )


def test_each_category_that_an_annotator_chose_is_a_vote_and_those_of_actors_are_not(iemocap_root: Path) -> None:
    found = by_id(iemocap_root)
    assert found["Ses01F_impro01_F001"].votes == "fru:1,ang:1"
    assert found["Ses01F_impro01_M000"].votes == ""


def test_only_turn_headers_at_the_top_level_become_utterances(iemocap_root: Path) -> None:
    reading = read_iemocap(iemocap_root)
    check_reading(reading, "iemocap")
    assert [utterance.id for utterance in reading.utterances] == [
        "Ses01F_impro01_F000",
        "Ses01F_impro01_M000",
        "Ses01F_impro01_F001",
        "Ses05M_script01_1b_M000",
        "Ses05M_script01_1b_F000",
    ]


def test_turns_are_numbered_by_start_time_from_0_in_each_dialogue(iemocap_root: Path) -> None:
    assert [utterance.turn for utterance in read_iemocap(iemocap_root).utterances] == [0, 1, 2, 0, 1]


def test_the_turn_and_not_the_dialogue_names_the_speaker(iemocap_root: Path) -> None:
    speakers = [utterance.speaker for utterance in read_iemocap(iemocap_root).utterances]
    assert speakers == ["Ses01F", "Ses01M", "Ses01F", "Ses05M", "Ses05F"]


def test_a_script_with_a_second_underscore_is_one_scripted_dialogue(iemocap_root: Path) -> None:
    turn = by_id(iemocap_root)["Ses05M_script01_1b_F000"]
    assert (turn.session, turn.dialogue, turn.style, turn.label) == ("5", "Ses05M_script01_1b", "scripted", "exc")
    assert turn.audio == "Session5/sentences/wav/Ses05M_script01_1b/Ses05M_script01_1b_F000.wav"


def test_ratings_are_read_as_valence_activation_dominance(iemocap_root: Path) -> None:
    turn = by_id(iemocap_root)["Ses01F_impro01_F001"]
    assert (turn.valence, turn.activation, turn.dominance) == (2.0, 3.5, 4.0)


def test_bytes_that_are_no_utf8_survive_as_lone_surrogates(iemocap_root: Path) -> None:
    text = by_id(iemocap_root)["Ses01F_impro01_M000"].text
    assert text.encode("utf-8", "surrogateescape") == b"Do you have your caf\xe9 forms?"


def test_an_overlapping_transcript_keeps_the_first_line_and_says_so(iemocap_root: Path) -> None:
    reading = read_iemocap(iemocap_root)
    assert reading.utterances[1].text.startswith("Do you")
    assert reading.remarks["Ses01F_impro01_M000"] == "more than one transcript line, kept the first"


def test_exactly_the_turns_without_a_transcript_are_empty_and_remarked(iemocap_root: Path) -> None:
    reading = read_iemocap(iemocap_root)
    silent = {name for name, remark in reading.remarks.items() if "no transcript line" in remark}
    assert silent == {utterance.id for utterance in reading.utterances if not utterance.text}
    assert silent == {"Ses01F_impro01_F001", "Ses05M_script01_1b_M000", "Ses05M_script01_1b_F000"}
    assert set(reading.remarks) == silent | {"Ses01F_impro01_M000"}


def test_notes_name_what_is_missing_from_the_release(iemocap_root: Path) -> None:
    assert read_iemocap(iemocap_root).notes == [
        f"no folder Session2, Session3, Session4 in {iemocap_root}: their turns are left out",
        "no transcription file for Ses05M_script01_1b: their turns have no text",
        "no EmoEvaluation file for Ses01F_impro02: their turns are left out",
        "1 lines of EmoEvaluation look like a turn but cannot be read (first: Ses01F_impro01.txt line 13)",
        "5 turns found, the full release has 10039",
        "1 lines of transcripts have bytes that are not UTF-8 (first: Ses01F_impro01.txt line 4): the bytes are left "
        "out; name the encoding to keep them, as in --encoding cp1252",
    ]


def test_the_parent_of_the_release_folder_reads_the_same(iemocap_root: Path, tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    expected = read_iemocap(iemocap_root).utterances
    shutil.copytree(iemocap_root / "Session1", parent / "IEMOCAP_full_release" / "Session1")
    shutil.copytree(iemocap_root / "Session5", parent / "IEMOCAP_full_release" / "Session5")
    reading = read_iemocap(parent)
    assert reading.root == parent / "IEMOCAP_full_release"
    assert reading.utterances == expected


def test_a_dialogue_copied_into_a_second_session_folder_is_a_duplicate(iemocap_root: Path) -> None:
    shutil.copytree(iemocap_root / "Session1", iemocap_root / "Session2")
    with pytest.raises(MmerError, match=r"duplicate id Ses01F_impro01_F000 in iemocap \(Session1/.*Session2/"):
        check_reading(read_iemocap(iemocap_root), "iemocap")


def test_a_root_without_any_session_is_told_the_expected_tree(tmp_path: Path) -> None:
    with pytest.raises(MmerError, match=r"no folder Session1 to Session5 in .*expected: ROOT/Session\{1\.\.5\}/"):
        read_iemocap(tmp_path)


def test_transcripts_of_another_encoding_are_read_if_it_is_named(iemocap_root: Path) -> None:
    reading = read_iemocap(iemocap_root, encoding="cp1252")
    assert not any("not UTF-8" in note for note in reading.notes)
    assert not any("\udc80" <= character <= "\udcff" for item in reading.utterances for character in item.text)
