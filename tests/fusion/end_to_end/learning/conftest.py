"""The cache from which encoders learn, once for all tests of the room."""

from pathlib import Path

import pytest

from tests.support.once import made_once
from tests.support.tuned import write_learning_cache


@pytest.fixture(scope="session")
def learning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "learning", write_learning_cache) / "voices.h5"
