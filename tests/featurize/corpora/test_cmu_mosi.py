import shutil
from pathlib import Path

import pytest

from cache.errors import MmerError
from featurize.corpora.cmu_mosi import read_cmu_mosi
from tests.support.releases import write_cmu_mosi


def test_rows_become_turns_of_videos(tmp_path: Path) -> None:
    utterances = read_cmu_mosi(write_cmu_mosi(tmp_path)).utterances
    assert [(item.id, item.audio, item.turn, item.label, item.valence, item.split) for item in utterances] == [
        ("03bSnISJMiM_10", "Raw/03bSnISJMiM/10.mp4", 1, "positive", 2.4, "train"),
        ("03bSnISJMiM_1", "Raw/03bSnISJMiM/1.mp4", 0, "negative", -0.6, "train"),
        ("_dI--eQ6qVU_2", "Raw/_dI--eQ6qVU/0002.mp4", 0, "neutral", 0.0, "valid"),
    ]
    assert utterances[2].text == "WELL, YES"
    assert {item.sentiment for item in utterances} == {"positive", "negative", "neutral"}


def test_the_table_alone_is_a_corpus_of_text(tmp_path: Path) -> None:
    shutil.rmtree(write_cmu_mosi(tmp_path) / "Raw")
    reading = read_cmu_mosi(tmp_path)
    assert {utterance.audio for utterance in reading.utterances} == {""}
    assert reading.notes == [f"no folder Raw next to {tmp_path / 'label.csv'}: its sentences have text only"]


def test_a_rating_that_is_no_number_is_one_line(tmp_path: Path) -> None:
    table = write_cmu_mosi(tmp_path) / "label.csv"
    table.write_text(table.read_text().replace("-0.6", "low"))
    with pytest.raises(MmerError, match=r"label.csv: line 3: label must be a finite number or empty, got 'low'"):
        read_cmu_mosi(tmp_path)
