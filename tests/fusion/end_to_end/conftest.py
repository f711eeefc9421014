"""The corpus whose utterances are predicted, once for all tests that predict."""

from pathlib import Path

import pytest

from fusion.experiment.request import ExperimentRequest
from fusion.run.folder import RunFolder
from tests.support.once import made_once
from tests.support.predicted import run_of, wanted, write_predictable_cache


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "spoken", write_predictable_cache) / "voices.h5"


@pytest.fixture(scope="session")
def concat(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with a final model that reads speech and text."""
    return _trained_once(tmp_path_factory, "concat", spoken, wanted("concat"), final=True)


@pytest.fixture(scope="session")
def audio(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run without a final model that reads speech alone."""
    return _trained_once(tmp_path_factory, "audio", spoken, wanted("audio", {"audio": "wav2vec2-tiny"}))


@pytest.fixture(scope="session")
def tuned(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose encoder of speech has learned, without a final model."""
    request = wanted("audio", {"audio": "wav2vec2-tiny"}, tune=("audio",), fields={"audio_lr": 1e-3})
    return _trained_once(tmp_path_factory, "tuned", spoken, request)


@pytest.fixture(scope="session")
def rated(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of ratings that reads speech alone, with a final model."""
    request = wanted("audio", {"audio": "wav2vec2-tiny"}, target="valence=1:5")
    return _trained_once(tmp_path_factory, "rated", spoken, request, final=True)


def _trained_once(
    factory: pytest.TempPathFactory, name: str, cache: Path, request: ExperimentRequest, **options: bool
) -> RunFolder:
    folder = made_once(factory, f"run-{name}", lambda folder: run_of(cache, folder / "run", request, **options))
    return RunFolder(folder / "run")
