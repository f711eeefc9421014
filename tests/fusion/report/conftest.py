"""One run for all tests of reports."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def reported(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two modalities; nobody writes to it."""
    from tests.support.runs import finish, plan

    folder = tmp_path_factory.mktemp("reported") / "run"
    finish(plan(trainable, "concat"), folder)
    return folder


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose labels, transcripts and speakers are markup."""
    from tests.support.reports import train_hostile_run

    return train_hostile_run(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="session")
def hostile_report(hostile_run: Path) -> Path:
    """Its report."""
    from fusion.report.report import write_report

    return write_report([hostile_run], sounds=2).path
