"""TensorBoard: writes the losses and dev scores of every epoch as events; the package is an extra."""

from collections.abc import Sequence
from typing import Any

from cache.errors import MmerError
from fusion.run.cross_validation import TrainingProgress
from fusion.run.folder import RunFolder
from fusion.training.checkpoint import EpochScores

BOARD = "tensorboard"  # folder of the events, in the folder of each model


class TensorBoardProgress:
    """Progress of a run that forwards every call and writes events into the folder of each model.

    Args:
        progress: progress to forward to.
        folder: folder of the run.

    Raises:
        MmerError: if the package is missing.
    """

    def __init__(self, progress: TrainingProgress, folder: RunFolder) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # imported here: an extra, and slow
        except ImportError as error:
            raise MmerError("--tensorboard needs the package tensorboard; pip install tensorboard") from error
        self._progress, self._folder = progress, folder
        self._open: Any = SummaryWriter
        self._writer: Any = None
        self._path = ""

    def note(self, note: str) -> None:
        """Forwards a note."""
        self._progress.note(note)

    def begin(self, folds: Sequence[str], seeds: Sequence[int], models: int) -> None:
        """Forwards folds, seeds and models."""
        self._progress.begin(folds, seeds, models)

    def start(self, fold: str, seed: int, epochs: int) -> None:
        """Starts the events of a model."""
        self._progress.start(fold, seed, epochs)
        self._path = str(self._folder.model(fold, seed).path / BOARD)

    def epoch(self, scores: EpochScores) -> None:
        """Writes the scalars of an epoch."""
        self._progress.epoch(scores)
        if self._writer is None:
            self._writer = self._open(self._path, purge_step=scores.epoch)  # a resumed run repeats no epoch
        for group, values in (("train", scores.losses), ("dev", scores.dev)):
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, scores.epoch)
        self._writer.flush()

    def end(self, best: EpochScores) -> None:
        """Ends the events of a model."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._progress.end(best)
