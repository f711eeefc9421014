from pathlib import Path

import pytest

from cache.errors import MmerError
from cache.utterance import Utterance
from featurize.corpora.msp_podcast import read_msp_podcast
from tests.support.releases import write_msp_podcast, write_text


@pytest.mark.parametrize("as_json", [False, True], ids=["csv", "json"])
def test_labels_ratings_speakers_and_transcripts_become_utterances(tmp_path: Path, as_json: bool) -> None:
    first, second, hidden = read_msp_podcast(write_msp_podcast(tmp_path, as_json=as_json)).utterances
    assert first == Utterance(
        id="MSP-PODCAST_0001_0008",
        audio="Audios/MSP-PODCAST_0001_0008.wav",
        text="Well, I would say so.",
        label="neutral",
        speaker="30",
        split="Test1",
        valence=4.0,
        activation=2.2,
        dominance=2.6,
        further={"gender": "male"},
    )
    assert (second.label, second.speaker, dict(second.further), second.text) == ("no agreement", "", {}, "")
    assert (hidden.label, hidden.valence, hidden.speaker, hidden.split) == ("", None, "", "Test3")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("Labels/labels_consensus.csv", "FileName,EmoClass\na.wav,N\n", "lacks the columns 'EmoAct', 'EmoVal'"),
        ("Labels/labels_consensus.json", "[1]", "is not an object of file names; use the file of the release"),
        ("Labels/labels_consensus.json", "{", "is not JSON"),
        ("readme.txt", "", "no labels_consensus.csv of msp-podcast found in .*; expected: ROOT/Labels"),
    ],
)
def test_labels_that_cannot_be_read_are_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    write_text(tmp_path, name, text)
    with pytest.raises(MmerError, match=message):
        read_msp_podcast(tmp_path)


def test_an_unknown_letter_is_one_line(tmp_path: Path) -> None:
    table = write_msp_podcast(tmp_path) / "Labels" / "labels_consensus.csv"
    table.write_text(table.read_text().replace(",N,", ",Q,"))
    with pytest.raises(MmerError, match=r"line 2: EmoClass must be one of A, S, H, .* or empty, got 'Q'"):
        read_msp_podcast(tmp_path)
