"""The course of a training, whichever engine runs it: its batches, its rates, its best epoch and its end."""

from fusion.batches import training_batches
from fusion.checkpoint import EpochScores, Progress
from fusion.packing import Indices
from fusion.schedule import Schedule
from fusion.scoring import is_better
from fusion.train_config import TrainConfig


def epoch_batches(train: Indices, costs: Indices, config: TrainConfig, *, epoch: int) -> list[Indices]:
    """Gives the utterances of each batch of an epoch.

    Args:
        train: the utterances to learn from, ``(n,)``.
        costs: how long each of them is, ``(n,)``.
        config: of the training; its batch size and data seed count.
        epoch: counted from 1.
    """
    places = training_batches(costs, batch_size=config.batch_size, data_seed=config.data_seed, epoch=epoch)
    return [train[batch] for batch in places]


def schedule_of(config: TrainConfig, batches: int) -> Schedule:
    """Gives the learning rate of every step, where an epoch has so many batches."""
    steps = config.epochs * batches
    return Schedule(lr=config.lr, course=config.schedule, warmup_steps=round(config.warmup * steps), steps=steps)


def add_epoch(progress: Progress, scores: EpochScores, config: TrainConfig) -> bool:
    """Adds an epoch to those that are complete, and sees whether it was the last; tells whether it is the best."""
    progress.curves.append(scores)
    progress.epoch, progress.batch, progress.sums = scores.epoch, 0, {}
    best = progress.curves[max(0, progress.best_epoch - 1)]
    better = not progress.best_epoch or is_better(scores.dev, best.dev, config.monitor)
    if better:
        progress.best_epoch = scores.epoch
    waited = scores.epoch - progress.best_epoch
    progress.finished = scores.epoch >= config.epochs or waited >= config.patience
    return better
