from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cache.joined import open_cache
from fusion.data.packing import PackBuffer, RowTensors, copy_slices, gather_rows, hold_rows
from tests.support.toys import commit, create, plan_for, utterances_named


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.booleans())
def test_a_gather_gives_what_slices_give(lengths: list[int], scaled: bool) -> None:
    counts = np.array(lengths)
    total = int(counts.sum())
    values = torch.randint(-127, 128, (total + 1, 3), dtype=torch.int8) if scaled else torch.randn(total + 1, 3).half()
    values[-1] = 0
    rows = RowTensors(values=values, scales=torch.rand(total + 1).half() if scaled else None)
    order = np.random.default_rng(total).permutation(len(counts))
    starts = (np.cumsum(counts) - counts)[order]
    sliced, mask = rows.padded(starts, counts[order])
    assert torch.equal(gather_rows(rows, starts, mask), sliced)
    assert torch.equal(copy_slices(rows, starts, counts[order], mask.shape[1]), sliced)
    assert mask.sum(dim=1).tolist() == counts[order].tolist()


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "uint16"])
def test_held_rows_and_packed_ones_are_the_same_numbers(tmp_path: Path, dtype: str) -> None:
    plan = plan_for([3, 5, 1, 2], dtype=dtype)
    create(tmp_path / "a.h5", utterances_named("abcd"), [plan])
    commit(tmp_path / "a.h5", plan, range(4))
    stream = open_cache(tmp_path / "a.h5").stream("enc")
    chosen, lengths = np.array([3, 1]), np.array([2, 5])
    held, _ = hold_rows(stream, chosen, 7, torch.device("cpu"), stream.check_rows).padded(np.array([0, 2]), lengths)
    packed, _ = RowTensors(values=PackBuffer(stream, pinned=False).fill(chosen)).padded(np.array([0, 2]), lengths)
    assert torch.equal(held, packed)
    assert held.dtype == (torch.int64 if dtype == "uint16" else torch.float32)


def test_a_buffer_grows_and_is_used_again(tmp_path: Path) -> None:
    plan = plan_for([3, 5, 1, 2])
    create(tmp_path / "a.h5", utterances_named("abcd"), [plan])
    commit(tmp_path / "a.h5", plan, range(4))
    buffer = PackBuffer(open_cache(tmp_path / "a.h5").stream("enc"), pinned=False)
    first = buffer.fill(np.array([0, 1]))
    assert first.shape == (9, 4)
    assert not first[-1].any()
    assert buffer.fill(np.array([2])).data_ptr() == first.data_ptr()
