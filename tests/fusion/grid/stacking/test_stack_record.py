import pytest
import torch

from fusion.grid.stacking.training import StackLossRecord
from fusion.training.loss_monitor import LOOK_EVERY


def test_means_are_of_each_model() -> None:
    record = StackLossRecord(1, 2)
    record.add(1, {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([5.0, 6.0])})
    record.add(2, {"a": torch.tensor([3.0, 8.0])})
    assert record.flush() == {}
    assert [record.means(place) for place in range(2)] == [{"a": 2.0, "b": 5.0}, {"a": 5.0, "b": 6.0}]
    assert record.flush() == {}


def test_the_first_loss_that_is_not_finite_is_named_for_its_model_alone() -> None:
    record = StackLossRecord(3, 3)
    record.add(1, {"a": torch.tensor([1.0, 1.0, 1.0])})
    record.add(2, {"a": torch.tensor([1.0, float("nan"), 1.0]), "b": torch.tensor([1.0, 1.0, float("inf")])})
    record.add(3, {"a": torch.tensor([1.0, float("inf"), 1.0])})
    errors = record.flush()
    assert {place: str(error) for place, error in errors.items()} == {
        1: "the loss a is nan in batch 2 of epoch 3",
        2: "the loss b is inf in batch 2 of epoch 3",
    }
    record.keep([0])
    record.add(4, {"a": torch.tensor([5.0])})
    assert record.flush() == {}
    assert record.means(0) == pytest.approx({"a": 2.0, "b": 1.0})


def test_a_look_is_due_now_and_then() -> None:
    record = StackLossRecord(1, 1)
    for batch in range(LOOK_EVERY):
        assert not record.due
        record.add(batch + 1, {"a": torch.zeros(1)})
    assert record.due
