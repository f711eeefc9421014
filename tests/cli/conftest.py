"""Files that several tests of commands have copies of, made once."""

import shutil
from pathlib import Path

import pytest

from tests.support.once import made_once


@pytest.fixture(scope="session")
def six_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cache of six committed utterances, ``whole.h5``, and the same in three files, ``shard-*.h5``."""
    from tests.support.shards import SIX, write_shards, write_whole

    return made_once(
        tmp_path_factory, "six", lambda folder: write_shards(write_whole(folder / "whole.h5", SIX), folder, SIX)
    )


@pytest.fixture
def six(six_template: Path, tmp_path: Path) -> Path:
    """The folder of a test with copies of these files."""
    for path in six_template.glob("*.h5"):
        shutil.copy(path, tmp_path)
    return tmp_path
