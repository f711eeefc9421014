"""Progress on stderr: bars on a terminal, a line now and then in a log file."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from tqdm import tqdm

from cli.output import duration_text, echo

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


@dataclass(kw_only=True)
class TimeLeft:
    """Time left of a run, by the models that are done; before one is done, by the epochs of the first.

    Attributes:
        waiting: number of models that have not started.
        clock: seconds since any point in time.
    """

    waiting: int = 0
    clock: Callable[[], float] = time.monotonic
    _done_s: list[float] = field(default_factory=list)
    _started_s: float = 0.0
    _epochs: int = 0
    _before: int | None = None  # epochs of the running model that an earlier run has trained

    def start(self, epochs: int) -> None:
        """Starts a model of at most so many epochs."""
        self._started_s, self._epochs, self._before = self.clock(), epochs, None
        self.waiting = max(0, self.waiting - 1)

    def after_epoch(self, epoch: int) -> str:
        """Returns the time left after an epoch of the running model, in words."""
        elapsed_s = self.clock() - self._started_s
        self._before = epoch - 1 if self._before is None else self._before
        if self._done_s:
            model_s = self._mean_s
            return self._text("about", max(0.0, model_s - elapsed_s) + model_s * self.waiting)
        epoch_s = elapsed_s / (epoch - self._before)
        return self._text("at most", epoch_s * (self._epochs - epoch + self._epochs * self.waiting))

    def after_model(self) -> str:
        """Returns the time left after the running model, in words; empty after the last."""
        self._done_s.append(self.clock() - self._started_s)
        return self._text("about", self._mean_s * self.waiting)

    @property
    def _mean_s(self) -> float:
        return sum(self._done_s) / len(self._done_s)

    def _text(self, word: str, left_s: float) -> str:
        return f"{word} {duration_text(left_s)} left" if left_s >= 1 else ""


class TrainingBar(_NotingBar):
    """Bar of epochs of each model, with development scores and the time left of the run; in a log, a line a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._name = ""
        self._epochs = 0
        self._printed_s = time.monotonic()
        self._folds: list[str] = []
        self._seeds: list[int] = []
        self._left = TimeLeft()

    def begin(self, folds: Sequence[str], seeds: Sequence[int], models: int) -> None:
        """Receives folds and seeds of the run, and the number of models to train."""
        self._folds, self._seeds, self._left = list(folds), list(seeds), TimeLeft(waiting=models)

    def start(self, fold: str, seed: int, epochs: int) -> None:
        """Starts the bar of a model."""
        self._name, self._epochs = self._named(fold, seed), epochs
        self._left.start(epochs)
        self._bar = tqdm(total=epochs, desc=self._name, unit="epoch", leave=False, disable=not _terminal())

    def epoch(self, scores: "EpochScores") -> None:
        """Advances the bar to an epoch; a resumed run starts in the middle."""
        text = ", ".join(filter(None, [_scores_text(scores), self._left.after_epoch(scores.epoch)]))
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(scores.epoch - self._bar.n)
        if not _terminal() and time.monotonic() - self._printed_s >= QUIET_S:
            self._line(f"epoch {scores.epoch} of at most {self._epochs}, {text}")

    def end(self, best: "EpochScores") -> None:
        """Closes the bar and prints the scores of the chosen epoch."""
        self._close()
        text = ", ".join(filter(None, [_scores_text(best), self._left.after_model()]))
        self._line(f"{'chosen' if best.dev else 'last'} epoch {best.epoch}, {text}")

    def _named(self, fold: str, seed: int) -> str:
        """Returns a model in words, such as ``fold 2 of 6, seed 1``, with the name of a fold that is not its number."""
        seeds = f" ({self._seeds.index(seed) + 1} of {len(self._seeds)})" if len(self._seeds) > 1 else ""
        if fold not in self._folds:
            return f"{'final model' if fold == FINAL else f'fold {fold}'}, seed {seed}{seeds}"
        number = self._folds.index(fold) + 1
        name = "" if fold == str(number) else f" ({fold})"
        return f"fold {number} of {len(self._folds)}{name}, seed {seed}{seeds}"

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
    from fusion.evaluation.catalog import TASKS

    dev = [
        f"dev {score.title} {score.text(value)}"
        for score in {score.name: score for task in TASKS.values() for score in task.scores}.values()
        if score.name in SHOWN and (value := scores.dev.get(score.name)) is not None
    ]
    return ", ".join([f"loss {scores.losses['total']:.3f}", *dev])


def _interval_s() -> float:
    return 0.1 if _terminal() else QUIET_S


def _terminal() -> bool:
    return sys.stderr.isatty()
