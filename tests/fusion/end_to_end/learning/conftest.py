"""The cache from which encoders learn, once for all tests of the room."""

from pathlib import Path

import pytest

from tests.support.tuned import write_learning_cache


@pytest.fixture(scope="session")
def learning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_learning_cache(tmp_path_factory.mktemp("learning"))
