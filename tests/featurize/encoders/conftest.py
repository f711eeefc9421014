"""Checkpoints that several tests read; no test may change them."""

from pathlib import Path

import pytest

from tests.support.checkpoints import QUANTIZER_SIZE, saved


@pytest.fixture(scope="session")
def wav2vec2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-training checkpoint with its quantizer."""
    return saved(tmp_path_factory.mktemp("checkpoint") / "mini", **QUANTIZER_SIZE)
