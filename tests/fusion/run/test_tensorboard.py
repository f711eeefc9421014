import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cache.errors import MmerError
from fusion.run.cross_validation import cross_validate
from fusion.run.folder import RunFolder
from fusion.run.tensorboard import BOARD, TensorBoardProgress
from fusion.training.checkpoint import EpochScores
from tests.support.runs import Told, plan

MODULE = "torch.utils.tensorboard"


def events(folder: Path) -> Any:
    """Reads what TensorBoard shows of a model."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder / BOARD))
    read.Reload()
    return read


def steps(folder: Path, name: str) -> list[int]:
    return [event.step for event in events(folder).Scalars(name)]


def test_every_epoch_of_every_model_is_written(trainable: Path, tmp_path: Path) -> None:
    folder, told = RunFolder(tmp_path), Told()
    cross_validate(
        plan(trainable, "audio"), folder, device=torch.device("cpu"), progress=TensorBoardProgress(told, folder)
    )
    for number in (1, 2, 3):
        part = tmp_path / f"{number}-seed0"
        assert steps(part, "train/total") == steps(part, "dev/ua") == [1, 2]
        names = set(events(part).Tags()["scalars"])
        assert names >= {"train/cross_entropy", "dev/wf1", "dev/mf1", "dev/ua", "dev/loss"}
    first = [one.losses["total"] for one in told.epochs[:2]]
    assert [event.value for event in events(tmp_path / "1-seed0").Scalars("train/total")] == pytest.approx(first)
    assert told.notes
    assert len(told.epochs) == 6


def test_a_run_that_goes_on_repeats_no_epoch(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for epochs in ((1, 2, 3), (3, 4)):  # the third was lost by a kill
        board = TensorBoardProgress(Told(), folder)
        board.start("1", 0, 4)
        for epoch in epochs:
            board.epoch(EpochScores(epoch=epoch, losses={"total": 1.0}, dev={"ua": 0.5}))
        if epochs[-1] == 4:
            board.end(EpochScores(epoch=4, losses={}, dev={}))
    assert steps(tmp_path / "1-seed0", "dev/ua") == [1, 2, 3, 4]


def test_without_the_package_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MODULE, None)
    with pytest.raises(MmerError, match=r"^--tensorboard needs .*; pip install tensorboard$"):
        TensorBoardProgress(Told(), RunFolder(tmp_path))
