"""The features of the demo that the guide and the notebook compute, once for both."""

import shutil
from pathlib import Path

import pytest

from tests.support.once import made_once


@pytest.fixture(scope="session")
def demo_caches(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder ``cache`` with the demo corpus and a cache of its first 128 utterances."""
    import mmer

    def featurize(folder: Path) -> None:
        encoders = ["wav2vec2-tiny", "roberta-tiny"]
        shutil.copytree(demo_corpus, folder / "cache" / "demo")
        mmer.featurize(
            "demo", cache=folder / "cache" / "demo.h5", encoders=encoders, device="cpu", mel=False, limit=128
        )

    return made_once(tmp_path_factory, "demo-caches", featurize) / "cache"
