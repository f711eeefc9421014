"""Progress on stderr: bars on a terminal, a line now and then in a log file."""

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from tqdm import tqdm

from cli.output import echo

if TYPE_CHECKING:
    from fusion.grid.combinations import Model, ModelOutcome
    from fusion.training.checkpoint import EpochScores

SHOWN = ("ua", "wf1", "mf1", "ccc", "mae")  # development scores of an epoch; an epoch of an older version may lack one
FINAL = "final"  # name in place of a fold, as `fusion.run.folder.FINAL`
QUIET_S = 60.0  # between two lines in a log file


class _Bar:
    """Bar of tqdm that is closed at the end of a block."""

    def __init__(self) -> None:
        self._bar: Any = None  # tqdm has no types

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _NotingBar(_Bar):
    """Bar that prints notes above itself."""

    def note(self, note: str) -> None:
        """Prints a note above the bar."""
        tqdm.write(f"note: {note}", file=sys.stderr)


class ProgressBar(_Bar):
    """Bar of each encoder: utterances, seconds of audio per second, time left; in a log file, a line per encoder."""

    def __init__(self) -> None:
        super().__init__()
        self._done_s = 0.0

    def note(self, notes: Sequence[str]) -> None:
        """Prints the notes on the corpus, before anything is computed."""
        for line in notes:
            echo(f"note: {line}", err=True)

    def start(self, name: str, utterances: int, seconds: float) -> None:
        """Starts the bar of an encoder."""
        self._close()
        self._done_s = 0.0
        self._bar = tqdm(total=utterances, desc=name, unit="utt", mininterval=_interval_s())

    def advance(self, utterances: int, seconds: float) -> None:
        """Advances the bar of the running encoder."""
        self._done_s += seconds
        elapsed_s = self._bar.format_dict["elapsed"] or 1e-9
        if self._done_s:
            self._bar.set_postfix_str(f"{self._done_s / elapsed_s:.0f} audio-s/s", refresh=False)
        self._bar.update(utterances)


class TrainingBar(_NotingBar):
    """Bar of epochs of each model, with its development scores; in a log file, a line a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._name = ""
        self._epochs = 0
        self._printed_s = time.monotonic()

    def start(self, fold: str, seed: int, epochs: int) -> None:
        """Starts the bar of a model."""
        self._name, self._epochs = f"{'final model' if fold == FINAL else f'fold {fold}'}, seed {seed}", epochs
        self._bar = tqdm(total=epochs, desc=self._name, unit="epoch", leave=False, disable=not _terminal())

    def epoch(self, scores: "EpochScores") -> None:
        """Advances the bar to an epoch; a resumed run starts in the middle."""
        self._bar.set_postfix_str(_scores_text(scores), refresh=False)
        self._bar.update(scores.epoch - self._bar.n)
        if not _terminal() and time.monotonic() - self._printed_s >= QUIET_S:
            self._line(f"epoch {scores.epoch} of at most {self._epochs}, {_scores_text(scores)}")

    def end(self, best: "EpochScores") -> None:
        """Closes the bar and prints the scores of the chosen epoch."""
        self._close()
        self._line(f"{'chosen' if best.dev else 'last'} epoch {best.epoch}, {_scores_text(best)}")

    def _line(self, text: str) -> None:
        self._printed_s = time.monotonic()
        echo(f"{self._name}: {text}", err=True)


class GridBar(_NotingBar):
    """Bar of epochs over a whole grid, with the time left; in a log file, a line a minute.

    A model that stops early counts with its maximum number of epochs.
    """

    def __init__(self) -> None:
        super().__init__()
        self._left: dict[str, int] = {}
        self._failed = 0

    def start(self, models: "Sequence[Model]") -> None:
        """Starts the bar of all models that will be trained."""
        self._close()
        self._left = {model.key: model.training.epochs for model in models}
        total = sum(self._left.values())
        name = f"{len(models)} models"
        self._bar = tqdm(total=total, desc=name, unit="epoch", mininterval=_interval_s())

    def epoch(self, model: "Model", scores: "EpochScores") -> None:
        """Advances the bar by an epoch of a model."""
        if self._left.get(model.key, 0) > 0:  # a model that was split from its stack starts again
            self._left[model.key] -= 1
            self._bar.update(1)

    def done(self, model: "Model", outcome: "ModelOutcome") -> None:
        """Advances the bar by the epochs that a model did not need, and counts failed models."""
        self._failed += bool(outcome.failure)
        if self._failed:
            self._bar.set_postfix_str(f"{self._failed} failed", refresh=False)
        self._bar.update(self._left.pop(model.key, 0))


class PretrainBar(_NotingBar):
    """Bar of steps of each fold of a pre-training, with the last losses; in a log file, a line a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._name = ""
        self._printed_s = time.monotonic()

    def start(self, fold: str, steps: int) -> None:
        """Starts the bar of a fold."""
        self._name = f"fold {fold}"
        self._bar = tqdm(total=steps, desc=self._name, unit="step", leave=False, disable=not _terminal())

    def step(self, done: int) -> None:
        """Advances the bar to a number of finished steps; a resumed fold starts in the middle."""
        self._bar.update(done - self._bar.n)

    def epoch(self, scores: "EpochScores") -> None:
        """Shows the losses of an epoch."""
        self._bar.set_postfix_str(_losses_text(scores), refresh=False)
        if not _terminal() and time.monotonic() - self._printed_s >= QUIET_S:
            self._line(f"epoch {scores.epoch}, {_losses_text(scores)}")

    def end(self, scores: "EpochScores") -> None:
        """Closes the bar and prints the losses of the last epoch."""
        self._close()
        self._line(f"epoch {scores.epoch}, {_losses_text(scores)}")

    def _line(self, text: str) -> None:
        self._printed_s = time.monotonic()
        echo(f"{self._name}: {text}", err=True)


class PredictionBar(_NotingBar):
    """Bar of recordings with the time left; in a log file, a line a minute."""

    def start(self, recordings: int) -> None:
        """Starts the bar."""
        self._bar = tqdm(total=recordings, unit="rec", mininterval=_interval_s())

    def advance(self, recordings: int) -> None:
        """Advances the bar by recordings that are done."""
        self._bar.update(recordings)


def _losses_text(scores: "EpochScores") -> str:
    """Formats the losses of an epoch of a pre-training."""
    losses = scores.losses
    dev = f", dev loss {scores.dev['total']:.3f}" if "total" in scores.dev else ""
    return f"loss {losses['total']:.3f}{dev}, code perplexity {losses['perplexity']:.1f}"


def _scores_text(scores: "EpochScores") -> str:
    """Formats loss and development scores of an epoch."""
    dev = [f"dev {name} {scores.dev[name]:.3f}" for name in SHOWN if name in scores.dev]
    return ", ".join([f"loss {scores.losses['total']:.3f}", *dev])


def _interval_s() -> float:
    return 0.1 if _terminal() else QUIET_S


def _terminal() -> bool:
    return sys.stderr.isatty()
