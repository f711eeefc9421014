"""Trainings that read drawn views: a resumed one, one in a stack and one over mapped features draw the same."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fusion.grid.stacking.training import train_stack
from fusion.training.config import TrainConfig
from fusion.training.loop import train_fold
from fusion.training.model import TrainedModel
from tests.support.drawn_views import DEV, TRAIN, view_head, views_source, write_views_cache
from tests.support.trainings import assert_same

CONFIG = TrainConfig(epochs=3, batch_size=7, lr=0.01, seed=3)
STEPS = 12


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_views_cache(tmp_path_factory.mktemp("views") / "a.h5")


@pytest.fixture(scope="module")
def undisturbed(path: Path) -> TrainedModel:
    return train_fold(view_head(), views_source(path), TRAIN, DEV, CONFIG)


@pytest.mark.parametrize("step", [1, 4, 5, 9])
def test_a_training_stopped_in_any_batch_ends_as_if_it_had_not_been(
    path: Path, undisturbed: TrainedModel, tmp_path: Path, step: int
) -> None:
    left = [step]

    def stopping() -> bool:
        left[0] -= 1
        return left[0] == 0

    with pytest.raises(KeyboardInterrupt):
        train_fold(
            view_head(), views_source(path), TRAIN, DEV, CONFIG, checkpoint=tmp_path / "state", stopping=stopping
        )
    resumed = train_fold(view_head(), views_source(path), TRAIN, DEV, CONFIG, checkpoint=tmp_path / "state")
    assert_same(resumed, undisturbed)


def test_mapped_features_train_the_same_model(path: Path, undisturbed: TrainedModel) -> None:
    assert_same(train_fold(view_head(), views_source(path, resident_bytes=0), TRAIN, DEV, CONFIG), undisturbed)


def test_a_stack_draws_what_a_single_training_draws(path: Path) -> None:
    configs = [CONFIG, replace(CONFIG, lr=0.003, seed=5)]
    stacked = train_stack([view_head(), view_head()], views_source(path), TRAIN, DEV, configs)
    for config, found in zip(configs, stacked, strict=True):
        alone = train_fold(view_head(), views_source(path), TRAIN, DEV, config)
        assert isinstance(found, TrainedModel)
        for one, other in zip(found.curves, alone.curves, strict=True):
            assert one.losses == pytest.approx(other.losses, rel=1e-4)
        for name, weight in alone.weights.items():
            torch.testing.assert_close(found.weights[name], weight, atol=1e-4, rtol=1e-3)


def test_another_data_seed_draws_other_views(path: Path, undisturbed: TrainedModel) -> None:
    """The order of batches differs too, so all utterances are in one batch here."""
    whole = replace(CONFIG, batch_size=24, epochs=1)
    losses = [
        train_fold(view_head(), views_source(path), TRAIN, DEV, replace(whole, data_seed=seed)).curves[0].losses
        for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1]
    assert losses[0]["size"] != pytest.approx(losses[2]["size"], rel=1e-4)
