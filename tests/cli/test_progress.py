"""The time left of a run, and the names of its models."""

import pytest

from cli.progress import TimeLeft, TrainingBar
from fusion.training.checkpoint import EpochScores


class Clock:
    """A clock that stands where it is set."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_before_a_model_is_done_every_epoch_of_every_model_is_left() -> None:
    clock = Clock()
    left = TimeLeft(waiting=3, clock=clock)
    left.start(10)
    clock.now_s = 4.0
    assert left.after_epoch(2) == "at most 112.0 s left"  # 4 s an epoch, as the first call is after epoch 2 of an
    clock.now_s = 8.0  # earlier run: 8 + 2 * 10 epochs are left
    assert left.after_epoch(3) == "at most 108.0 s left"


def test_models_that_are_done_say_how_long_the_others_take() -> None:
    clock = Clock()
    left = TimeLeft(waiting=3, clock=clock)
    left.start(100)
    clock.now_s = 60.0
    assert left.after_model() == "about 2.0 min left"
    left.start(100)
    clock.now_s = 80.0
    assert left.after_epoch(1) == "about 100.0 s left"
    clock.now_s = 200.0
    assert left.after_epoch(50) == "about 60.0 s left"  # longer than the first already: only the third is counted
    assert left.after_model() == "about 100.0 s left"  # the mean of 60 s and 140 s
    left.start(100)
    clock.now_s = 300.0
    assert left.after_model() == ""


@pytest.mark.parametrize(
    ("fold", "seed", "name"),
    [
        ("1", 5, "fold 1 of 3, seed 5 (1 of 2)"),
        ("Ses02", 6, "fold 2 of 3 (Ses02), seed 6 (2 of 2)"),
        ("final", 6, "final model, seed 6 (2 of 2)"),
    ],
)
def test_a_line_says_which_fold_of_how_many(
    fold: str, seed: int, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bar = TrainingBar()
    bar.begin(["1", "Ses02", "3"], [5, 6], 6)
    bar.start(fold, seed, 2)
    bar.end(EpochScores(epoch=2, losses={"total": 1.0}, dev={"ua": 0.5}))
    assert capsys.readouterr().err == f"{name}: chosen epoch 2, loss 1.000, dev UA 50.00\n"
