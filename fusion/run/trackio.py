"""Trackio: logs the losses and dev scores of every epoch, on this machine first; the package is an extra.

Its calls are those of Weights & Biases: ``init``, ``log``, ``finish``. Documentation: huggingface.co/docs/trackio.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from cache.errors import MmerError
from fusion.run.cross_validation import TrainingProgress
from fusion.run.folder import RunFolder
from fusion.training.checkpoint import EpochScores

TRACKIO = "trackio"
TRACKERS = (TRACKIO,)
PROJECT = "mmer"


class TrackioProgress:
    """Progress of a run that forwards every call and logs each model as a run of the project ``mmer``.

    Args:
        progress: progress to forward to.
        folder: folder of the run; its name begins the names of the logged runs.
        tracker: module with the calls of trackio; None to import it.

    Raises:
        MmerError: if the package is missing.
    """

    def __init__(self, progress: TrainingProgress, folder: RunFolder, tracker: ModuleType | Any = None) -> None:
        self._tracker: Any = tracker or _imported()
        self._progress, self._folder = progress, folder
        self._name = ""
        self._open = False

    def note(self, note: str) -> None:
        """Forwards a note."""
        self._progress.note(note)

    def begin(self, folds: Sequence[str], seeds: Sequence[int], models: int) -> None:
        """Forwards folds, seeds and models."""
        self._progress.begin(folds, seeds, models)

    def start(self, fold: str, seed: int, epochs: int) -> None:
        """Prepares the logged run of a model."""
        self._progress.start(fold, seed, epochs)
        self._name = f"{self._folder.path.name}/{self._folder.model(fold, seed).path.name}"

    def epoch(self, scores: EpochScores) -> None:
        """Logs the scalars of an epoch."""
        self._progress.epoch(scores)
        if not self._open:  # here, so that a model without a new epoch is not logged
            self._open = True
            self._tracker.init(project=PROJECT, name=self._name, group=self._folder.path.name, resume="allow")
        groups = (("train", scores.losses), ("dev", scores.dev))
        metrics = {f"{group}/{name}": value for group, values in groups for name, value in values.items()}
        self._tracker.log(metrics, step=scores.epoch)

    def end(self, best: EpochScores) -> None:
        """Ends the logged run of a model."""
        if self._open:
            self._tracker.finish()
            self._open = False
        self._progress.end(best)


def tracked(progress: TrainingProgress, folder: RunFolder, track: str) -> TrainingProgress:
    """Returns a progress that also logs to a tracker.

    Args:
        progress: progress to forward to.
        folder: folder of the run.
        track: ``trackio``; empty for none.

    Raises:
        MmerError: if the tracker is unknown, or its package is missing.
    """
    if not track:
        return progress
    if track not in TRACKERS:
        raise MmerError(f"unknown tracker {track!r}; known: {', '.join(TRACKERS)}")
    return TrackioProgress(progress, folder)


def _imported() -> Any:
    try:
        import trackio  # imported here: an extra, and slow
    except ImportError as error:
        raise MmerError(
            f"--track trackio needs the package trackio ({error}), which is the extra track; pip install trackio"
        ) from error
    return trackio
