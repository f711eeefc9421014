import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cache.errors import MmerError
from fusion.data.features import CachedFeatures
from fusion.grid.stacking.stack import HeadStack
from fusion.grid.stacking.training import train_stack
from fusion.head import Batch, HeadOutput
from fusion.training.checkpoint import EpochScores
from fusion.training.evaluate import dev_scores, predict_logits
from fusion.training.loop import train_fold
from fusion.training.model import TrainedModel
from tests.support.stacks import CONFIG, DEV, STACKED, TEST, TRAIN, Made, assert_close, models, source_of

Alone = Callable[[Made], TrainedModel]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> CachedFeatures:
    return source_of(tmp_path_factory.mktemp("cache") / "a.h5")


@pytest.fixture(scope="module")
def alone(source: CachedFeatures) -> Alone:
    """Trains a model by itself; that of several tests once."""
    done: dict[str, TrainedModel] = {}

    def train(one: Made) -> TrainedModel:
        if str(one) not in done:
            done[str(one)] = train_fold(one.head(source), source, TRAIN, DEV, one.config)
        return done[str(one)]

    return train


def stacked(every: Sequence[Made], source: CachedFeatures, **how: Any) -> list[TrainedModel | MmerError]:
    heads = [one.head(source) for one in every]
    return train_stack(heads, source, TRAIN, DEV, [one.config for one in every], **how)


def trained(came: TrainedModel | MmerError) -> TrainedModel:
    assert isinstance(came, TrainedModel)
    return came


@pytest.mark.parametrize("name", STACKED)
def test_losses_and_scores_are_those_of_separate_trainings(name: str, source: CachedFeatures, alone: Alone) -> None:
    every = models(name)
    for one, came in zip(every, stacked(every, source), strict=True):
        assert_close(trained(came), alone(one))


def test_losses_stay_equal_over_a_hundred_steps(source: CachedFeatures, alone: Alone) -> None:
    every = models("audio", replace(CONFIG, epochs=7, batch_size=1))[:2]
    for one, came in zip(every, stacked(every, source), strict=True):
        assert_close(trained(came), alone(one))


@pytest.mark.parametrize(
    "changes",
    [
        {"class_weights": True, "label_smoothing": 0.1, "optimizer": "adam", "monitor": "loss"},
        {"batch_size": 16, "clip": 1e-3, "warmup": 0.9},
        {"batch_size": 16, "warmup_steps": 7},
    ],
)
def test_every_choice_of_training_is_kept(changes: dict[str, Any], source: CachedFeatures, alone: Alone) -> None:
    every = models("label-guided", replace(CONFIG, **changes))
    for one, came in zip(every, stacked(every, source), strict=True):
        assert_close(trained(came), alone(one))


@pytest.mark.parametrize("name", ["rescmfa", "tab"])
def test_half_precision_trains(name: str, source: CachedFeatures, alone: Alone) -> None:
    every = models(name, replace(CONFIG, precision="bfloat16", epochs=1))
    for one, came in zip(every, stacked(every, source), strict=True):
        assert_close(trained(came), alone(one), tolerance=0.1)


def test_heads_end_with_the_weights_of_their_best_epochs(source: CachedFeatures, alone: Alone) -> None:
    every = models("concat")
    heads = [one.head(source) for one in every]
    came = train_stack(heads, source, TRAIN, DEV, [one.config for one in every])
    for one, head in zip(came, heads, strict=True):
        made = trained(one)
        assert all(torch.equal(weight, made.weights[name]) for name, weight in head.state_dict().items())
        assert dev_scores(predict_logits(head, source, DEV), source.labels[DEV]) == pytest.approx(
            dict(made.dev), abs=1e-5
        )
        mine = alone(every[heads.index(head)])
        head.load_state_dict(mine.weights)
        expected = predict_logits(head, source, TEST)
        head.load_state_dict(made.weights)
        torch.testing.assert_close(predict_logits(head, source, TEST), expected, atol=1e-5, rtol=1e-5)


def test_models_leave_the_stack_when_their_epochs_are_over(
    source: CachedFeatures, alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = [
        replace(one, config=replace(one.config, epochs=epochs))
        for one, epochs in zip(models("concat"), (3, 1, 2), strict=True)
    ]
    sizes: list[int] = []
    forward = HeadStack.__call__

    def noted(stack: HeadStack, batch: Batch) -> HeadOutput:
        sizes.append(len(stack))
        return forward(stack, batch)

    monkeypatch.setattr(HeadStack, "__call__", noted)
    came = stacked(every, source)
    assert sizes == [3] * 2 + [2] * 2 + [1] * 2  # 2 batches an epoch
    for one, mine in zip(every, came, strict=True):
        assert_close(trained(mine), alone(one))


def test_each_model_has_its_own_patience(source: CachedFeatures, alone: Alone) -> None:
    every = [
        replace(one, config=replace(one.config, epochs=9, lr=lr, patience=patience))
        for one, lr, patience in zip(models("concat"), (1e-9, 1e-9, 1e-2), (1, 3, 9), strict=True)
    ]
    came = stacked(every, source)
    assert [len(trained(one).curves) for one in came] == [2, 4, 9]
    for one, mine in zip(every, came, strict=True):
        assert_close(trained(mine), alone(one))


def test_what_no_loss_reaches_stays_as_it_is(source: CachedFeatures, alone: Alone) -> None:
    every = [replace(one, fields={**one.fields, "alpha": 0.0}) for one in models("rescmfa")]
    for one, mine in zip(every, stacked(every, source), strict=True):
        assert one.config.weight_decay
        assert torch.equal(trained(mine).weights["ctc.weight"], one.head(source).state_dict()["ctc.weight"])
        assert_close(trained(mine), alone(one))


def test_a_result_does_not_depend_on_the_company(source: CachedFeatures) -> None:
    every = models("rescmfa")
    together = stacked(every, source)
    for company in ([2], [2, 0], [1, 2]):
        for place, came in zip(company, stacked([every[place] for place in company], source), strict=True):
            assert_close(trained(came), trained(together[place]))


def test_a_model_that_diverges_leaves_with_its_error(source: CachedFeatures, alone: Alone) -> None:
    first, second, third = models("rescmfa")
    every = [first, replace(second, fields={**second.fields, "alpha": 1e38}), third]
    head = every[1].head(source)
    with pytest.raises(MmerError) as stopped:
        train_fold(head, source, TRAIN, DEV, every[1].config)
    came = stacked(every, source)
    assert isinstance(came[1], MmerError)
    assert str(came[1]) == str(stopped.value).removesuffix("; no weights are kept")
    assert str(came[1].__cause__) == "the loss total is inf in batch 1 of epoch 1"
    for place in (0, 2):
        assert_close(trained(came[place]), alone(every[place]))


def test_dev_logits_that_are_not_finite_end_a_model(source: CachedFeatures, alone: Alone) -> None:
    first, second, third = models("concat", replace(CONFIG, batch_size=16, warmup=0.0))
    every = [first, replace(second, config=replace(second.config, lr=1e38)), replace(third)]
    came = stacked(every, source)
    assert "the logits of dev are not finite after epoch 1; lower lr (1e+38)" in str(came[1])
    assert_close(trained(came[0]), alone(first))


def test_a_stack_may_lose_all_its_models(source: CachedFeatures) -> None:
    first = models("concat", replace(CONFIG, warmup=0.0, clip=0.0))[0]
    every = [replace(first, config=replace(first.config, lr=1e38))] * 2
    assert all(isinstance(one, MmerError) for one in stacked(every, source))


def test_epochs_are_told_and_time_is_shared(source: CachedFeatures) -> None:
    told: list[tuple[int, EpochScores]] = []
    began = time.monotonic()
    came = [
        trained(one)
        for one in stacked(models("concat"), source, on_epoch=lambda place, scores: told.append((place, scores)))
    ]
    spent = time.monotonic() - began
    assert [(place, scores.epoch) for place, scores in told] == [
        (place, epoch) for epoch in (1, 2) for place in (0, 1, 2)
    ]
    assert [scores for place, scores in told if place == 1] == list(came[1].curves)
    assert 0.3 * spent < sum(one.seconds for one in came) <= spent
    assert all(one.peak_bytes > 0 for one in came)


def test_memory_that_runs_out_is_not_taken_for_a_result(
    source: CachedFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(stack: HeadStack, batch: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(HeadStack, "__call__", full)
    with pytest.raises(torch.OutOfMemoryError):
        stacked(models("concat"), source)


def test_features_that_are_not_held_give_the_same(source: CachedFeatures, tmp_path: Path) -> None:
    held = source_of(tmp_path / "a.h5")
    mapped = CachedFeatures(held.cache, {role: role for role in held.streams}, held.labels, resident_bytes=0)
    every = models("concat")
    for one, other in zip(stacked(every, mapped), stacked(every, held), strict=True):
        assert trained(one).curves == trained(other).curves
