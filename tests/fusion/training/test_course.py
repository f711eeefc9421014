from dataclasses import replace

import numpy as np

from fusion.training.checkpoint import EpochScores, TrainingState
from fusion.training.config import TrainConfig
from fusion.training.loop import epoch_batches, record_epoch, schedule_of

CONFIG = TrainConfig(epochs=9, patience=2, monitor="ua", batch_size=3, warmup=0.5, lr=0.25)


def run(
    scores: list[float], config: TrainConfig = CONFIG, losses: list[float] | None = None
) -> tuple[list[bool], TrainingState]:
    """Records epochs, whose losses rise by default; returns whether each was the best so far, and the progress."""
    progress, best = TrainingState(batch=3, sums={"a": (1.0, 1)}), []
    for epoch, (ua, loss) in enumerate(zip(scores, losses or range(1, 10), strict=False), start=1):
        assert not progress.finished
        dev = {"ua": ua, "loss": ua if config.monitor == "loss" else loss}
        best.append(record_epoch(progress, EpochScores(epoch=epoch, losses={}, dev=dev), config))
    return best, progress


def test_the_first_epoch_and_each_better_one_is_the_best() -> None:
    best, progress = run([0.0, 0.2, 0.2, 0.3])
    assert best == [True, True, False, True]
    assert (progress.best_epoch, progress.epoch, progress.batch, progress.sums) == (4, 4, 0, {})
    assert not progress.finished
    assert run([0.3, 0.2, 0.4], replace(CONFIG, monitor="loss"))[0] == [True, True, False]


def test_of_equal_scores_the_lower_loss_is_the_best_then_the_later_epoch() -> None:
    assert run([0.5, 0.5, 0.5], replace(CONFIG, patience=9), [0.7, 0.9, 0.6])[0] == [True, False, True]
    assert run([0.5, 0.5], losses=[0.7, 0.7])[1].best_epoch == 2
    assert run([0.3, 0.2, 0.2], replace(CONFIG, monitor="loss"))[1].best_epoch == 3


def test_a_higher_score_counts_whatever_its_loss() -> None:
    assert run([0.5, 0.6, 0.5], losses=[0.1, 0.9, 0.05])[1].best_epoch == 2


def test_patience_counts_from_the_last_better_score_and_not_from_a_tie() -> None:
    best, progress = run([0.5, 0.6, 0.6, 0.6], losses=[0.9, 0.8, 0.7, 0.6])
    assert best == [True] * 4
    assert (progress.best_epoch, progress.finished) == (4, True)


def test_a_training_that_an_earlier_version_left_at_its_first_tie_goes_on_from_there() -> None:
    curves = [EpochScores(epoch=epoch, losses={}, dev={"ua": 0.5, "loss": 1 / epoch}) for epoch in (1, 2)]
    progress = TrainingState(epoch=2, best_epoch=1, curves=curves)  # the weights that are kept are those of epoch 1
    assert not record_epoch(progress, EpochScores(epoch=3, losses={}, dev={"ua": 0.4, "loss": 0.1}), CONFIG)
    assert (progress.best_epoch, progress.finished) == (1, True)


def test_it_is_finished_after_the_last_epoch_or_without_a_better_one() -> None:
    assert run([0.3, 0.2, 0.3])[1].finished
    assert not run([0.3, 0.2])[1].finished
    assert run([0.1, 0.2, 0.3], replace(CONFIG, epochs=3))[1].finished


def test_batches_hold_every_utterance_once_and_change_with_the_epoch() -> None:
    train, lengths = np.array([5, 7, 9, 11, 20, 21, 22]), np.arange(7)
    first, second = (epoch_batches(train, lengths, CONFIG, epoch=epoch) for epoch in (1, 2))
    assert sorted(np.concatenate(first).tolist()) == train.tolist()
    assert [batch.tolist() for batch in first] != [batch.tolist() for batch in second]
    again = epoch_batches(train, lengths, replace(CONFIG, seed=5), epoch=1)
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in again]


def test_the_warm_up_is_a_share_of_all_steps() -> None:
    schedule = schedule_of(CONFIG, 4)
    assert (schedule.lr, schedule.shape, schedule.warmup_steps, schedule.steps) == (0.25, "constant", 18, 36)
    assert schedule_of(replace(CONFIG, warmup=0.0), 4).warmup_steps == 0


def test_warm_up_steps_replace_the_share_and_do_not_depend_on_the_epochs() -> None:
    for epochs in (5, 9):
        assert schedule_of(replace(CONFIG, epochs=epochs, warmup_steps=7), 4).warmup_steps == 7


def test_a_warm_up_longer_than_the_training_ends_below_the_greatest_rate() -> None:
    schedule = schedule_of(replace(CONFIG, warmup_steps=72, schedule="linear"), 4)
    assert [schedule.rate(step) for step in (0, 35)] == [0.25 / 72, 0.25 / 2]
