from pathlib import Path

import pytest

from cache.errors import MmerError
from featurize.corpora.savee import read_savee
from tests.support.releases import write_savee


def test_folders_and_names_become_utterances(tmp_path: Path) -> None:
    reading = read_savee(write_savee(tmp_path))
    assert [(item.id, item.label, item.speaker, item.further["sentence"]) for item in reading.utterances] == [
        ("JE_su02", "surprise", "JE", "02"),
        ("DC_a01", "anger", "DC", "01"),
        ("DC_sa15", "sadness", "DC", "15"),
        ("KL_n30", "neutral", "KL", "30"),
    ]
    assert reading.notes == ["skipped 1 files with an impossible code: x01.wav"]


def test_an_empty_folder_is_refused_with_the_expected_tree(tmp_path: Path) -> None:
    with pytest.raises(MmerError, match=r"no recording of savee found in .*; expected: ROOT/AudioData"):
        read_savee(tmp_path)
