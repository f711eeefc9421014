import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fusion.data.batches import balanced_batches, scoring_batches, training_batches

LENGTHS = arrays(np.int64, st.integers(0, 80), elements=st.integers(1, 900))


@given(LENGTHS, st.integers(1, 33), st.integers(1, 3))
def test_every_utterance_is_in_one_training_batch(lengths: np.ndarray, batch_size: int, epoch: int) -> None:
    batches = training_batches(lengths, batch_size=batch_size, data_seed=5, epoch=epoch)
    assert sorted(np.concatenate([*batches, []]).tolist()) == list(range(len(lengths)))
    sizes = [len(batch) for batch in batches]
    assert sum(size != batch_size for size in sizes) <= 1
    if batch_size > 1 and len(lengths) > 1:
        assert min(sizes) >= 2
        assert max(sizes) <= batch_size + 1


@given(LENGTHS, st.integers(1, 33))
def test_scoring_batches_hold_everything_longest_first(lengths: np.ndarray, batch_size: int) -> None:
    batches = scoring_batches(lengths, batch_size=batch_size)
    order = np.concatenate([*batches, []]).astype(int)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert (np.diff(lengths[order]) <= 0).all()
    assert all(1 <= len(batch) <= batch_size for batch in batches)


def _batches(*, data_seed: int = 0, epoch: int = 1) -> list[list[int]]:
    lengths = np.random.default_rng(0).integers(30, 900, 500)
    made = training_batches(lengths, batch_size=8, data_seed=data_seed, epoch=epoch)
    return [batch.tolist() for batch in made]


def test_the_order_follows_from_the_data_seed_and_the_epoch() -> None:
    assert _batches() == _batches()
    assert _batches() != _batches(data_seed=1)
    assert _batches() != _batches(epoch=2)


def test_utterances_change_their_company_from_epoch_to_epoch() -> None:
    first, second = ({frozenset(batch) for batch in _batches(epoch=epoch)} for epoch in (1, 2))
    assert len(first & second) < len(first) / 10


def test_little_of_a_batch_is_padding() -> None:
    lengths = np.clip(np.random.default_rng(0).gamma(2.6, 85, 4400), 30, 1700).astype(np.int64)  # as IEMOCAP's
    batches = training_batches(lengths, batch_size=32, data_seed=0, epoch=1)
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    assert padded / lengths.sum() == pytest.approx(1.06, abs=0.02)  # 2.7 where batches are drawn at random


@given(st.integers(1, 5), st.integers(2, 9), st.integers(0, 3))
def test_balanced_batches_have_equally_many_utterances_of_each_class(rare: int, batch_size: int, epoch: int) -> None:
    classes = np.array([0] * 20 + [1] * 7 + [2] * rare)
    lengths = np.random.default_rng(0).integers(0, 50, len(classes))
    options = {"batch_size": batch_size, "data_seed": 3, "epoch": epoch}
    batches = balanced_batches(lengths, classes, **options)
    counts = [np.bincount(classes[batch], minlength=3) for batch in batches]
    assert all(np.ptp(count) <= 1 for count in counts)
    assert np.ptp(np.sum(counts, axis=0)) == 0
    drawn = np.concatenate(batches)
    assert len(drawn) == 3 * -(-len(classes) // 3)
    assert {*np.flatnonzero(classes == 2)} <= {*drawn}
    again = balanced_batches(lengths, classes, **options)
    assert all(np.array_equal(one, other) for one, other in zip(batches, again, strict=True))
