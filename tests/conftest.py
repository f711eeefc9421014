"""Fixtures that several folders of tests share."""

import gc
import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports transformers
os.environ["OMP_NUM_THREADS"] = "1"  # before anything imports torch: for tiny models threads only wait for each other

if TYPE_CHECKING:  # fixtures import what they need: the process that only deals tests out then starts at once
    from cache.layout import StreamPlan

settings.register_profile("mmer", deadline=None, max_examples=30)  # a loaded machine is not a failure
settings.load_profile("mmer")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Excludes the million objects of imports from every later garbage collection, and makes those rarer."""
    gc.disable()
    gc.set_threshold(10_000, 20, 20)
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_collect_file() -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Looks for examples in docstrings of the packages alone: tests have none, and to search them takes seconds."""
    found = yield
    return [collector for collector in found if type(collector) is pytest.Module]


@pytest.fixture(autouse=True, scope="session")
def child_processes() -> None:
    """Starts the server that forks child processes, before anything else happens in this one."""
    from tests.support.processes import fork_server

    fork_server()


@pytest.fixture(autouse=True, scope="session")
def quick_pictures(child_processes: None) -> Iterator[None]:
    """Writes text in place of pictures, which take as long as a small training."""
    from tests.support.pictures import pictures_by, write_axes, write_run

    with pictures_by(write_run, write_axes):
        yield


@pytest.fixture
def true_pictures() -> Iterator[None]:
    """Draws pictures as a run and a grid do."""
    from tests.support.pictures import DRAWN, pictures_by

    with pictures_by(*DRAWN):
        yield


@pytest.fixture(autouse=True, scope="session")
def quick_files(child_processes: None) -> Iterator[None]:
    """Leaves written data to the operating system: a test ends before the machine does.

    Processes that tests start, those that are killed among them, wait for the disk as usual.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fsync", "fdatasync"):
            patch.setattr(os, name, os.fstat)  # which fails too if a file is closed
        yield


@pytest.fixture(autouse=True, scope="session")
def quick_folds() -> Iterator[None]:
    """Draws the folds of equal utterances once, which scikit-learn takes half the time of a plan for."""
    from tests.support.drawn_once import divisions_drawn_once

    with divisions_drawn_once():
        yield


@pytest.fixture(autouse=True, scope="session")
def quick_encoders(child_processes: None) -> Iterator[None]:
    """Builds an encoder without files once, which takes longer than to encode a few short recordings."""
    from tests.support.loaded_once import encoders_loaded_once

    with encoders_loaded_once():
        yield


@pytest.fixture(scope="session")
def toy_template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, "StreamPlan"]:
    """The cache that every test of `toy` has a copy of."""
    import numpy as np

    from tests.support.toys import commit, create, plan_for, utterances_named

    path = tmp_path_factory.mktemp("toy") / "toy.h5"
    plan = plan_for([3, 5, 0, 2], failures={2: "missing"})
    create(path, utterances_named("abcd"), [plan], enc={"w": np.arange(3.0)})
    commit(path, plan, [0, 1, 3])
    return path, plan


@pytest.fixture
def toy(toy_template: tuple[Path, "StreamPlan"], tmp_path: Path) -> tuple[Path, "StreamPlan"]:
    """A cache of four utterances, the third failed, everything else committed."""
    path, plan = toy_template
    return Path(shutil.copy(path, tmp_path / "toy.h5")), plan


@pytest.fixture(scope="session")
def six_voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with six recordings, their manifest and their complete cache, which tests have copies of."""
    from tests.support.once import made_once
    from tests.support.voices import featurized, write_voices

    return made_once(
        tmp_path_factory,
        "six-voices",
        lambda folder: featurized(write_voices(folder / "corpus", "abcdef"), folder / "a.h5"),
    )


@pytest.fixture
def corpus(six_voices: Path, tmp_path: Path) -> Path:
    """The manifest of six recordings."""
    shutil.copytree(six_voices / "corpus", tmp_path / "corpus")
    return tmp_path / "corpus" / "corpus.csv"


@pytest.fixture
def cache(six_voices: Path, corpus: Path, tmp_path: Path) -> Path:
    """Its complete cache."""
    import h5py

    for name in ("a.h5", "a.h5.lock"):
        shutil.copy(six_voices / name, tmp_path / name)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.attrs["corpus"] = file.attrs["corpus"].replace(str(six_voices / "corpus"), str(corpus.parent))
    return tmp_path / "a.h5"


@pytest.fixture(scope="session")
def demo_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recordings of the demo corpus and their manifest."""
    from featurize.corpora.demo.corpus import read_demo
    from tests.support.once import made_once

    return made_once(tmp_path_factory, "demo-corpus", read_demo)


@pytest.fixture(scope="session")
def trainable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that every head can be trained on; no test writes to it."""
    from tests.support.once import made_once
    from tests.support.runs import write_cache

    return made_once(tmp_path_factory, "trainable", lambda folder: write_cache(folder / "toy.h5")) / "toy.h5"
