"""Bundles, exported once for all tests of the room, which do not write to them."""

from pathlib import Path

import pytest

from fusion.run.folder import RunFolder
from tests.support.bundles import bundle_of
from tests.support.once import made_once


@pytest.fixture(scope="session")
def exported(concat: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a final model that reads speech and text."""
    return made_once(tmp_path_factory, "exported", lambda folder: bundle_of(concat.path, folder / "bundle")) / "bundle"


@pytest.fixture(scope="session")
def learned(tuned: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of three folds whose encoders of speech have learned."""
    return made_once(tmp_path_factory, "learned", lambda folder: bundle_of(tuned.path, folder / "bundle")) / "bundle"
