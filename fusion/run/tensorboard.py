"""Writes the scalars of every epoch for TensorBoard, which is an extra."""

from typing import Any

from cache.errors import MmerError
from fusion.run.cross_validation import TrainingProgress
from fusion.run.folder import RunFolder
from fusion.training.checkpoint import EpochScores

BOARD = "tensorboard"  # folder of a model's events


class Board:
    """Passes on to a watcher what a run tells, and writes losses and dev scores beside each model.

    Args:
        watcher: to pass on to.
        folder: of the run.

    Raises:
        MmerError: if the package is missing.
    """

    def __init__(self, watcher: TrainingProgress, folder: RunFolder) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # only here: an extra, and slow to import
        except ImportError as error:
            raise MmerError("--tensorboard needs the package tensorboard; pip install tensorboard") from error
        self._watcher, self._folder = watcher, folder
        self._open: Any = SummaryWriter
        self._writer: Any = None
        self._path = ""

    def note(self, note: str) -> None:
        """Passes it on."""
        self._watcher.note(note)

    def start(self, fold: str, seed: int, epochs: int) -> None:
        """Begins the events of a model."""
        self._watcher.start(fold, seed, epochs)
        self._path = str(self._folder.model(fold, seed).path / BOARD)

    def epoch(self, scores: EpochScores) -> None:
        """Writes the scalars of an epoch."""
        self._watcher.epoch(scores)
        if self._writer is None:
            self._writer = self._open(self._path, purge_step=scores.epoch)  # a run that goes on repeats no epoch
        for group, values in (("train", scores.losses), ("dev", scores.dev)):
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, scores.epoch)
        self._writer.flush()

    def end(self, best: EpochScores) -> None:
        """Ends the events of a model."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._watcher.end(best)
