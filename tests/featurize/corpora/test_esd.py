from pathlib import Path

import pytest

from cache.errors import MmerError
from featurize.corpora.esd import read_esd, read_transcripts
from tests.support.releases import write_esd


def test_folders_and_transcripts_of_all_encodings_become_utterances(tmp_path: Path) -> None:
    reading = read_esd(write_esd(tmp_path))
    found = {item.id: (item.label, item.split, item.further["language"], item.text) for item in reading.utterances}
    assert found == {
        "0001_000351": ("angry", "train", "chinese", "打远一看\uff0c它们的确很是美丽\uff0c"),
        "0003_000001": ("neutral", "dev", "chinese", "打远一看"),
        "0011_000701": ("happy", "test", "english", "The nine the eggs, I keep."),
        "0011_001051": ("sad", "", "english", ""),
        "0016_001401": ("surprise", "", "english", "I\u2019ll go"),
    }
    assert reading.notes == ["1 recordings have no transcript"]


def test_bytes_of_no_encoding_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "0011.txt").write_bytes(b"0011_000001\t\x81\x00\x9d\tHappy\n")
    with pytest.raises(MmerError, match="is in none of the encodings UTF-8, UTF-16, GB18030 and cp1252"):
        read_transcripts(tmp_path / "0011.txt")
