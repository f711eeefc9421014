"""Runs and reports, made once for all tests of reports, which do not write to them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.once import made_once


@pytest.fixture(scope="session")
def reported(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two modalities."""
    from tests.support.runs import finish, plan

    def train(folder: Path) -> None:
        finish(plan(trainable, "concat"), folder / "run")

    return made_once(tmp_path_factory, "reported", train) / "run"


@pytest.fixture(scope="session")
def report(reported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its report, in a folder that did not exist."""
    from fusion.report.report import write_report

    def write(folder: Path) -> None:
        path = folder / "new" / "report.html"
        written = write_report([reported], out=path, complexity=True)
        assert (written.path, written.size_bytes) == (path, path.stat().st_size)
        assert not written.notes

    return made_once(tmp_path_factory, "report", write) / "new" / "report.html"


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose labels, transcripts and speakers are markup, with its report in ``report.html``."""
    from fusion.report.report import write_report
    from tests.support.reports import train_hostile_run

    def train(folder: Path) -> None:
        write_report([train_hostile_run(folder)], sounds=2)

    return made_once(tmp_path_factory, "hostile", train) / "run"


@pytest.fixture(scope="session")
def hostile_report(hostile_run: Path) -> Path:
    """The report of that run."""
    return hostile_run / "report.html"


@pytest.fixture
def quick_pages() -> Iterator[None]:
    """Reports that have the texts of their pictures in place of them."""
    from tests.support.reports import texts_for_pictures

    with texts_for_pictures():
        yield
