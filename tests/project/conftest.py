"""The features of the demo that the guide and the notebook compute, once for both."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def demo_caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder ``cache`` with the demo corpus and a cache of its first 128 utterances."""
    import mmer

    folder = tmp_path_factory.mktemp("demo") / "cache"
    encoders = ["wav2vec2-tiny", "roberta-tiny"]
    mmer.featurize("demo", cache=folder / "demo.h5", encoders=encoders, device="cpu", mel=False, limit=128)
    return folder
