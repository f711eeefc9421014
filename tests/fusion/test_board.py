import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from cache.errors import MmerError
from fusion.board import Board
from fusion.crossval import cross_validate
from fusion.run import RunFolder
from tests.runs import Told, plan

MODULE = "torch.utils.tensorboard"


class Writer:
    """Stands in for the writer of the package."""

    written: dict[str, list[tuple[str, float, int]]]
    closed: int

    def __init__(self, folder: str) -> None:
        self.scalars = Writer.written.setdefault(folder, [])

    def add_scalar(self, name: str, value: float, epoch: int) -> None:
        self.scalars.append((name, value, epoch))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        Writer.closed += 1


def test_every_epoch_of_every_model_is_written(
    trainable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType(MODULE)
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, MODULE, module)
    Writer.written, Writer.closed = {}, 0
    folder, told = RunFolder(tmp_path), Told()
    cross_validate(plan(trainable, "audio"), folder, device=torch.device("cpu"), watcher=Board(told, folder))
    assert list(Writer.written) == [str(tmp_path / f"{fold}-seed0" / "tensorboard") for fold in (1, 2, 3)]
    first = Writer.written[str(tmp_path / "1-seed0" / "tensorboard")]
    assert [epoch for name, _, epoch in first if name == "train/total"] == [1, 2]
    assert {name for name, _, _ in first} >= {"train/cross_entropy", "dev/wf1", "dev/ua", "dev/loss"}
    assert Writer.closed == 3
    assert len(told.epochs) == 6
    assert told.notes


def test_without_the_package_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MODULE, None)
    with pytest.raises(MmerError, match=r"^--tensorboard needs .*; pip install 'mmer\[tensorboard\]'$"):
        Board(Told(), RunFolder(tmp_path))
