"""The corpus whose utterances are predicted, once for all tests that predict."""

from pathlib import Path

import pytest

from fusion.run.folder import RunFolder
from tests.support.predicted import run_of, wanted, write_predictable_cache


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_predictable_cache(tmp_path_factory.mktemp("spoken"))


@pytest.fixture(scope="session")
def concat(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with a final model that reads speech and text."""
    return run_of(spoken, tmp_path_factory.mktemp("concat") / "run", wanted("concat"), final=True)


@pytest.fixture(scope="session")
def audio(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run without a final model that reads speech alone."""
    return run_of(spoken, tmp_path_factory.mktemp("audio") / "run", wanted("audio", {"audio": "wav2vec2-tiny"}))


@pytest.fixture(scope="session")
def tuned(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose encoder of speech has learned, without a final model."""
    request = wanted("audio", {"audio": "wav2vec2-tiny"}, tune=("audio",), fields={"audio_lr": 1e-3})
    return run_of(spoken, tmp_path_factory.mktemp("tuned") / "run", request)


@pytest.fixture(scope="session")
def rated(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of ratings that reads speech alone, with a final model."""
    request = wanted("audio", {"audio": "wav2vec2-tiny"}, target="valence=1:5")
    return run_of(spoken, tmp_path_factory.mktemp("rated") / "run", request, final=True)
