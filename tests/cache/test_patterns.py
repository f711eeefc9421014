from pathlib import Path

import pytest

from cache.errors import CacheMissing
from cache.joined import cache_files
from cache.patterns import is_pattern, matching_files


@pytest.mark.parametrize("folder", ["data", "data[1]", "what?", "a*b"])
def test_signs_in_a_folder_that_exists_are_no_pattern(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    for name in ("a.h5", "b.h5", ".hidden.h5"):
        (tmp_path / folder / name).touch()
    (tmp_path / folder / "c.h5").mkdir()
    assert not is_pattern(tmp_path / folder / "new.h5")
    assert is_pattern(tmp_path / folder / "*.h5")
    assert matching_files(tmp_path / folder / "*.h5") == [tmp_path / folder / name for name in ("a.h5", "b.h5")]


def test_a_file_that_exists_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "c[1].h5"
    path.touch()
    (tmp_path / "c1.h5").touch()
    assert cache_files(path) == [path]
    assert cache_files(tmp_path / "c[12].h5") == [tmp_path / "c1.h5"]


def test_a_pattern_without_a_match_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CacheMissing, match="no cache matches"):
        cache_files(tmp_path / "*.h5")


@pytest.mark.parametrize("name", ["a\0*", "x" * 300 + "*"])
def test_names_that_no_file_has_match_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(CacheMissing):
        cache_files(tmp_path / name)
