from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cache.errors import MmerError
from cache.joined import open_cache
from fusion.data.features import CachedFeatures
from fusion.head import Batch, HeadOutput
from fusion.head_config import AUDIO, TEXT, HeadInputs
from fusion.training.checkpoint import BEST, load_checkpoint
from fusion.training.config import TrainConfig
from fusion.training.evaluate import dev_scores, is_better, predict_logits, predict_probabilities
from fusion.training.loop import train_fold
from tests.support.trainings import (
    CONFIG,
    DEV,
    LABELS,
    SHAPES,
    STREAMS,
    TEST,
    TRAIN,
    ToyConfig,
    ToyHead,
    assert_same,
    toy_head,
    toy_source,
    train,
    write_cache,
)


@pytest.fixture
def learnable(tmp_path: Path) -> Path:
    write_cache(tmp_path / "a.h5")
    return tmp_path / "a.h5"


def test_the_same_seed_gives_bit_equal_weights_from_held_and_mapped_features(learnable: Path) -> None:
    torch.manual_seed(0)
    first = train(learnable)
    torch.manual_seed(1)  # nothing draws from global generators
    assert_same(first, train(learnable))
    assert_same(first, train(learnable, resident_bytes=0))
    other = train(learnable, config=replace(CONFIG, seed=4))
    assert other.curves != first.curves


def test_a_head_learns_and_ends_with_the_weights_of_its_best_epoch(learnable: Path) -> None:
    head, source = toy_head(), toy_source(learnable)
    trained = train_fold(head, source, TRAIN, DEV, replace(CONFIG, epochs=30))
    assert trained.dev["wf1"] == max(scores.dev["wf1"] for scores in trained.curves) > 0.6
    assert dev_scores(predict_logits(head, source, DEV), LABELS[DEV]) == trained.dev
    assert trained.curves[-1].losses["total"] < trained.curves[0].losses["total"] / 2
    assert set(trained.curves[0].losses) == {"cross_entropy", "size", "total"}
    assert not any(name.endswith("step") for name in trained.weights)
    assert trained.seconds > 0
    assert trained.peak_bytes > 0


def test_scores_come_in_the_order_asked_for_and_leave_the_head_as_it_was(learnable: Path) -> None:
    head, source = toy_head(), toy_source(learnable)
    probabilities = predict_probabilities(head, source, np.array([7, 3, 30, 7]), batch_size=3)
    assert head.training
    assert probabilities.shape == (4, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(probabilities[1], predict_probabilities(head, source, np.array([3]))[0], rtol=1e-5)
    np.testing.assert_allclose(probabilities[0], probabilities[3], rtol=1e-5)
    without_targets = CachedFeatures(open_cache(learnable), {AUDIO: "voice", TEXT: "words"}, LABELS)
    np.testing.assert_array_equal(
        predict_probabilities(head, without_targets, np.array([7, 3, 30, 7]), batch_size=3), probabilities
    )


def test_labels_and_features_of_test_change_nothing(learnable: Path, tmp_path: Path) -> None:
    labels = LABELS.copy()
    labels[TEST] = -1
    write_cache(tmp_path / "b.h5", without={TEXT: int(TEST[0])})
    source = CachedFeatures(open_cache(tmp_path / "b.h5"), STREAMS, labels, chosen=np.concatenate([TRAIN, DEV]))
    trained = train_fold(toy_head(), source, TRAIN, DEV, CONFIG)
    assert_same(trained, train(learnable))


def test_training_stops_when_dev_gets_no_better(learnable: Path) -> None:
    trained = train(learnable, config=replace(CONFIG, epochs=50, lr=1e-9, patience=3))
    assert len({scores.dev["wf1"] for scores in trained.curves}) == 1
    assert len(trained.curves) == 4
    assert trained.best_epoch == 4  # of equal scores the lower loss, which falls with every step


@pytest.mark.parametrize(("monitor", "up"), [("wf1", True), ("mf1", True), ("loss", False)])
def test_equal_dev_scores_are_no_better(monitor: str, up: bool) -> None:
    low, high = {monitor: 0.1}, {monitor: 0.2}
    assert is_better(high, low, monitor) == up
    assert is_better(low, high, monitor) != up
    assert not is_better(low, low, monitor)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bfloat16"},
        {"precision": "float16"},
        {"optimizer": "adam", "monitor": "loss", "schedule": "linear"},
        {"class_weights": True, "label_smoothing": 0.1, "clip": 0.0, "warmup": 0.0},
    ],
)
def test_every_choice_trains(learnable: Path, changes: dict[str, Any]) -> None:
    trained = train(learnable, config=replace(CONFIG, **changes))
    assert trained.curves[-1].losses["total"] < trained.curves[0].losses["total"]


def test_modality_dropout_trains_the_vector_of_what_is_absent(learnable: Path) -> None:
    config = ToyConfig(modality_dropout=0.5)
    trained = train(learnable, head=toy_head(config))
    assert trained.weights["pool.absent"].any()
    assert_same(trained, train(learnable, head=toy_head(config)))


class Exploding(ToyHead):
    """Its loss is not finite in one step."""

    bad_step = 6  # 4 batches an epoch: the third of the second

    def forward(self, batch: Batch) -> HeadOutput:
        output = super().forward(batch)
        if self.training and int(self.dropout.step) == self.bad_step:
            return HeadOutput(output.logits, {"size": output.losses["size"] / 0})
        return output


def _exploding() -> Exploding:
    return Exploding(ToyConfig(), HeadInputs(classes=("a", "b", "c"), shapes=SHAPES))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_weights(learnable: Path, tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    with pytest.raises(MmerError, match=r"the loss size is inf in batch 3 of epoch 2; .* epoch 1 are in .*state"):
        train(learnable, head=_exploding(), checkpoint=path, save_every_s=1e9)
    best = load_checkpoint(path).tensors[BEST]
    assert all(tensor.isfinite().all() for tensor in best.values())
    with pytest.raises(
        MmerError, match=r"inf in batch 3 of epoch 2.*; delete .*state.safetensors to train the model again"
    ):
        train(learnable, head=_exploding(), checkpoint=path)
    with pytest.raises(MmerError, match=r"epoch 2; lower lr \(0.01\)$"):
        train(learnable, head=_exploding())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer must be one of adamw, adam, got 'sgd'"),
        ({"schedule": "step"}, "schedule must be one of constant, linear, cosine, got 'step'"),
        ({"monitor": "f1"}, "monitor must be one of wf1, ua, wa, mf1, loss"),
        ({"precision": "half"}, "precision must be one of float32, bfloat16, float16"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"warmup": 1.0}, r"warmup must lie in \[0, 1\)"),
        ({"lr": float("nan")}, "lr must be positive, got nan"),
        ({"warmup_steps": -1}, "warmup_steps must not be negative, got -1"),
        ({"clip": -1.0}, "clip must not be negative"),
    ],
)
def test_a_configuration_is_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes)
