from pathlib import Path

import h5py
import pytest

from cache.errors import CacheUnreadable
from cache.layout import StreamPlan, read_layout
from tests.support.toys import create, plan_for, utterances_named


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A file as it was before sentiment became a column."""
    create(tmp_path / "a.h5", utterances_named("ab"), [plan_for([1, 2])])
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["utterances/sentiment"]
    return tmp_path / "a.h5"


def test_a_file_without_a_column_that_came_later_reads_with_its_default(older: Path) -> None:
    assert list(read_layout(older).utterances) == utterances_named("ab")


def test_a_file_without_any_other_column_is_damaged(toy: tuple[Path, StreamPlan]) -> None:
    with h5py.File(toy[0], "r+") as file:
        del file["utterances/text"]
    with pytest.raises(CacheUnreadable, match="is damaged"):
        read_layout(toy[0])
