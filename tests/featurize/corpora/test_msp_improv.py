from pathlib import Path

import pytest

from cache.errors import MmerError
from cache.utterance import Utterance
from featurize.corpora.msp_improv import read_msp_improv
from tests.support.releases import write_msp_improv


def test_lines_of_the_consensus_become_utterances(tmp_path: Path) -> None:
    first, second = read_msp_improv(write_msp_improv(tmp_path)).utterances
    assert first == Utterance(
        id="MSP-IMPROV-S01A-F01-P-FM01",
        audio="session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.wav",
        label="neutral",
        speaker="F01",
        session="1",
        dialogue="session1_S01A",
        valence=3.2,
        activation=3.0,
        dominance=2.8,
        further={"sentence": "01", "acted": "angry", "part": "P", "naturalness": "3.400000"},
    )
    assert (second.label, second.valence, second.speaker, "naturalness" in second.further) == (
        "no agreement",
        None,
        "M06",
        False,
    )
    assert {(tmp_path / item.audio).is_file() for item in (first, second)} == {True}


def test_a_turn_of_another_form_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "Evaluation.txt").write_text("\nUTD-IMPROV-S01A-F01-P-FM01.avi; Q; A:3;\n")
    with pytest.raises(MmerError, match=r"Evaluation.txt: line 2: expected a turn as in the release, got 'UTD-IMPROV-"):
        read_msp_improv(tmp_path)
