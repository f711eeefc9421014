import configparser
from pathlib import Path

import pytest

from cache.version import DISTRIBUTION, mmer_version

ROOT = Path(__file__).parents[2]


def test_the_distribution_is_the_one_that_is_installed_from_here() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    assert settings["metadata"]["name"] == DISTRIBUTION


def test_a_bare_clone_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache.version.DISTRIBUTION", "mmer-toolkit-that-is-not-installed")
    assert mmer_version() == "uninstalled"
