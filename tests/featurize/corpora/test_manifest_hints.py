"""Common changes that spreadsheets make to a table, and the hint in the error."""

from pathlib import Path

import pytest

from cache.errors import MmerError
from featurize.corpora.manifest import read_manifest

HEADER = "id,audio,text,label,speaker,session"


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (HEADER.replace(",", ";").encode(), "separate columns by commas in .csv and by tabs in .tsv"),
        (HEADER.replace(",", "\t").encode(), "separate columns by commas in .csv and by tabs in .tsv"),
        (HEADER.upper().encode(), "write their names in lower case"),
        (HEADER.encode("utf-16"), "is in UTF-16; save it as UTF-8"),
        (f"{HEADER}\nu1,a.wav,hi,fröhlich,s,1\n".encode("latin-1"), "line 2: label holds bytes that are not UTF-8"),
    ],
)
def test_a_table_saved_otherwise_is_refused_with_a_way_out(tmp_path: Path, content: bytes, hint: str) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(MmerError, match=hint):
        read_manifest(tmp_path / "table.csv")


def test_a_column_of_nearly_a_known_name_is_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(f"{HEADER},start,gender\nu1,a.wav,hi,x,s,1,0.5,f\n")
    assert read_manifest(tmp_path / "table.csv").notes == [
        "unknown columns are ignored: start, gender (meant start for start_s?)"
    ]
