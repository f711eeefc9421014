"""The corpus of tones whose encoder is pre-trained, once for all tests of the room."""

from pathlib import Path

import pytest

from tests.support.once import made_once
from tests.support.pretraining import featurize_sessions, write_sessions


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the built-in encoder of speech and its convolutional features; the corpus is the folder next to it."""

    def make(folder: Path) -> None:
        featurize_sessions(write_sessions(folder / "tones"), folder / "a.h5")

    return made_once(tmp_path_factory, "tones", make) / "a.h5"
