"""Fixtures that several folders of tests share."""

import os
from pathlib import Path

import numpy as np
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports transformers
os.environ["OMP_NUM_THREADS"] = "1"  # before anything imports torch: for tiny models threads only wait for each other

from cache.layout import StreamPlan
from tests.support.runs import write_cache
from tests.support.toys import commit, create, plan_for, utterances_named
from tests.support.voices import featurized, write_voices


@pytest.fixture
def toy(tmp_path: Path) -> tuple[Path, StreamPlan]:
    """A cache of four utterances, the third failed, everything else committed."""
    path = tmp_path / "toy.h5"
    plan = plan_for([3, 5, 0, 2], failures={2: "missing"})
    create(path, utterances_named("abcd"), [plan], enc={"w": np.arange(3.0)})
    commit(path, plan, [0, 1, 3])
    return path, plan


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """The manifest of six recordings."""
    return write_voices(tmp_path / "corpus", "abcdef")


@pytest.fixture
def cache(corpus: Path, tmp_path: Path) -> Path:
    """Its complete cache."""
    featurized(corpus, tmp_path / "a.h5")
    return tmp_path / "a.h5"


@pytest.fixture(scope="session")
def trainable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that every head can be trained on; nobody writes to it."""
    return write_cache(tmp_path_factory.mktemp("trainable") / "toy.h5")
