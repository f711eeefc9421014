from pathlib import Path

import pytest

from cache.errors import MmerError
from cache.utterance import Utterance
from featurize.corpora.columns import parse_columns, rename_columns
from featurize.corpora.crema_d import read_crema_d
from tests.support.releases import make_files, write_crema_d, write_text


def test_names_actors_and_votes_become_utterances(tmp_path: Path) -> None:
    reading = read_crema_d(write_crema_d(tmp_path))
    neutral, anger, happy = (reading.utterances[index] for index in (1, 0, 2))
    assert neutral == Utterance(
        id="1001_IEO_NEU_XX",
        audio="AudioWAV/1001_IEO_NEU_XX.wav",
        text="It's eleven o'clock",
        label="neutral",
        speaker="1001",
        votes="neutral:10,happy:1",
        further={
            "sentence": "IEO",
            "level": "unspecified",
            "gender": "male",
            "age": "51",
            "vote": "neutral",
        },
    )
    assert (anger.label, anger.votes, "vote" in anger.further) == (
        "anger",
        "anger:5,disgust:5,neutral:1,sad:1",
        False,
    )
    assert dict(happy.further) == {"sentence": "TIE", "level": "unspecified"}
    assert reading.notes == [
        "skipped 1 files with an impossible code: 1001_IEO_BAD_XX.wav",
        "skipped 4 files that are neither wav nor flac",
    ]


def test_the_majority_of_votes_becomes_the_label(tmp_path: Path) -> None:
    reading = rename_columns(read_crema_d(write_crema_d(tmp_path)), parse_columns(["label=vote"]), "crema-d")
    assert [utterance.label for utterance in reading.utterances] == ["", "neutral", ""]


def test_recordings_without_the_tables_are_read(tmp_path: Path) -> None:
    reading = read_crema_d(make_files(tmp_path, "1001_DFA_ANG_XX.wav"))
    assert len(reading.notes) == 3
    assert reading.notes[0] == f"no VideoDemographics.csv in {tmp_path} or below: its columns are left out"


def test_a_table_without_a_column_is_one_line(tmp_path: Path) -> None:
    write_text(write_crema_d(tmp_path), "VideoDemographics.csv", "ActorID,Age\n1001,51\n")
    with pytest.raises(MmerError, match=r"VideoDemographics.csv lacks the columns 'Sex'; use the table of the release"):
        read_crema_d(tmp_path)
