"""Curves in trackio: the calls that a run makes, and the real package where it is installed."""

import inspect
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cache.errors import MmerError
from fusion.run.cross_validation import cross_validate
from fusion.run.folder import RunFolder
from fusion.run.trackio import PROJECT, TrackioProgress, tracked
from fusion.training.checkpoint import EpochScores
from tests.support.runs import Told, plan


class Recorder:
    """The calls of trackio that a run makes, written down."""

    def __init__(self) -> None:
        self.runs: dict[str, list[tuple[int, dict[str, float]]]] = {}
        self.open = ""

    def init(self, project: str, name: str | None = None, group: str | None = None, resume: str = "never") -> None:
        assert (project, resume, self.open) == (PROJECT, "allow", "")
        self.open = str(name)
        self.runs.setdefault(self.open, [])

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        self.runs[self.open].append((step, metrics))

    def finish(self) -> None:
        self.open = ""


def test_every_epoch_of_every_model_is_logged(trainable: Path, tmp_path: Path) -> None:
    folder, told, recorder = RunFolder(tmp_path / "run"), Told(), Recorder()
    progress = TrackioProgress(told, folder, recorder)
    cross_validate(plan(trainable, "audio"), folder, device=torch.device("cpu"), progress=progress)
    assert list(recorder.runs) == [f"run/{fold}-seed0" for fold in (1, 2, 3)]
    assert recorder.open == ""
    steps = [step for logged in recorder.runs.values() for step, _ in logged]
    assert steps == [scores.epoch for scores in told.epochs]
    first = recorder.runs["run/1-seed0"][0][1]
    assert first["train/total"] == told.epochs[0].losses["total"]
    assert first["dev/ua"] == told.epochs[0].dev["ua"]


def test_without_the_package_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(MmerError, match=r"^--track trackio needs .* the extra track; pip install trackio$"):
        tracked(Told(), RunFolder(tmp_path), "trackio")
    with pytest.raises(MmerError, match="unknown tracker 'wandb'; known: trackio"):
        tracked(Told(), RunFolder(tmp_path), "wandb")


def test_the_package_has_the_calls_and_keeps_what_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "logged"))
    trackio: Any = pytest.importorskip("trackio", reason="trackio is an extra: pip install trackio")
    expected = inspect.signature(Recorder.init).parameters.keys() - {"self"}
    assert expected <= inspect.signature(trackio.init).parameters.keys()
    progress = TrackioProgress(Told(), RunFolder(tmp_path / "run"))
    progress.start("1", 0, 1)
    progress.epoch(EpochScores(epoch=1, losses={"total": 1.5}, dev={"ua": 0.5}))
    progress.end(EpochScores(epoch=1, losses={}, dev={}))
    assert any((tmp_path / "logged").rglob("mmer*"))
