from pathlib import Path

import pytest

from cache.errors import MmerError
from cache.utterance import Utterance
from featurize.corpora.nemo import read_nemo
from tests.support.releases import write_nemo


def test_rows_become_utterances(tmp_path: Path) -> None:
    first, second = read_nemo(write_nemo(tmp_path)).utterances
    assert first == Utterance(
        id="WR0_surprised_64",
        audio="samples/WR0_surprised_64.wav",
        text="Ucho wykrywa dźwięki.",
        label="surprised",
        speaker="WR0",
        further={"gender": "male", "age": "23", "sentence": "64"},
    )
    assert second.text == "„Ród smoka” to serial."


def test_a_folder_without_the_table_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MmerError, match=r"no data.tsv of nemo found in .*; expected: ROOT/data.tsv"):
        read_nemo(tmp_path)
