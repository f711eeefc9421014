from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from cache.layout import COMMITTED, FAILED, StreamPlan, read_layout
from cache.rows import StoredRows, to_stored
from cache.store import FeatureCache
from cache.stream import StreamSpec
from cache.writer import CacheWriter, Row, writing_lock
from featurize.encoders.base import InputPlan
from featurize.extraction.encode import encode_split
from featurize.extraction.pipeline import QUEUED_BATCHES, CommitThread
from tests.support.toys import create, plan_for, utterances_named

Values = Sequence[npt.NDArray[np.float32]]


class Hungry:
    """An encoder whose memory holds so many inputs, and none that is longer than a limit."""

    def __init__(self, inputs: int, error: Callable[[], BaseException], *, longest: int = 1000) -> None:
        self.specs = [StreamSpec(name="a", role="audio", source="a", shape=(1,), dtype="float32")]
        self.start_weights: Mapping[str, npt.NDArray[Any]] = {}
        self.batches: list[int] = []
        self._inputs, self._error, self._longest = inputs, error, longest

    def plan(self, sizes: Sequence[int]) -> list[InputPlan]:
        return [InputPlan(rows=(size,), cost=size) for size in sizes]

    def encode(self, inputs: Values, *, precise: bool = False) -> list[tuple[Any, ...]]:
        self.batches.append(len(inputs))
        if len(inputs) > self._inputs or max(map(len, inputs)) > self._longest:
            raise self._error()
        return [(2 * one[:, None],) for one in inputs]


def no_memory_on_the_gpu() -> BaseException:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def no_memory_in_python() -> BaseException:
    return MemoryError()


def no_memory_on_the_cpu() -> BaseException:
    """What torch itself raises."""
    try:
        torch.empty(1 << 60)
    except RuntimeError as error:
        return error
    raise AssertionError("there is room for 4 EiB")


NO_MEMORY = [no_memory_on_the_gpu, no_memory_in_python, no_memory_on_the_cpu]
INPUTS = [np.arange(size, dtype=np.float32) + size for size in (9, 8, 7, 5, 3, 2, 1)]


@pytest.mark.parametrize("error", NO_MEMORY)
@pytest.mark.parametrize("fitting", [1, 2, 3, 6, 7])
def test_a_batch_that_runs_out_of_memory_is_split_and_gives_all_rows(
    fitting: int, error: Callable[[], BaseException]
) -> None:
    encoder = Hungry(fitting, error)
    found = encode_split(encoder, INPUTS)
    assert len(found) == len(INPUTS)
    for rows, one in zip(found, INPUTS, strict=True):
        assert not isinstance(rows, str)
        np.testing.assert_array_equal(rows[0], 2 * one[:, None])
    assert encoder.batches[0] == len(INPUTS)
    assert (len(encoder.batches) == 1) == (fitting >= len(INPUTS))


@pytest.mark.parametrize("error", NO_MEMORY)
def test_one_input_that_never_fits_gives_the_reason_and_the_rest_its_rows(error: Callable[[], BaseException]) -> None:
    found = encode_split(Hungry(4, error, longest=8), INPUTS)
    assert found[0] == "out of memory for this utterance alone; try --chunk or another --device"
    for rows, one in zip(found[1:], INPUTS[1:], strict=True):
        np.testing.assert_array_equal(rows[0], 2 * one[:, None])


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("bad"), KeyboardInterrupt()])
def test_any_other_error_is_raised_on(error: BaseException) -> None:
    encoder = Hungry(3, lambda: error)
    with pytest.raises(type(error)) as raised:
        encode_split(encoder, INPUTS)
    assert raised.value is error
    assert encoder.batches == [len(INPUTS)]


@pytest.fixture
def plan() -> StreamPlan:
    return plan_for([3] * 30)


@pytest.fixture
def writer(tmp_path: Path, plan: StreamPlan) -> Iterator[CacheWriter]:
    """A writer into a real cache of thirty utterances, nothing committed."""
    create(tmp_path / "a.h5", utterances_named([f"u{index}" for index in range(30)]), [plan])
    with writing_lock(tmp_path / "a.h5"), CacheWriter(read_layout(tmp_path / "a.h5")) as opened:
        yield opened


def row(index: int, value: float = 1.0, rows: int = 3) -> Row:
    stored = to_stored(np.full((rows, 4), value, np.float32), "float16")
    return Row(stream="enc", index=index, stored=stored, digest=bytes(16))


def values_in(writer: CacheWriter, index: int) -> float:
    stored: StoredRows = FeatureCache(writer.layout.path).stream("enc").stored(index)
    (value,) = np.unique(stored.values)
    return float(value)


def test_everything_handed_over_is_written_when_the_thread_is_left(writer: CacheWriter) -> None:
    with CommitThread(writer) as commits:
        for index in range(0, 28, 2):  # more than may wait
            commits.put([row(index, index), row(index + 1, index + 1)])
        commits.fail(["enc"], 28, "missing")
        commits.put([])
    assert QUEUED_BATCHES < 14
    states = writer.states["enc"].tolist()
    assert states == [COMMITTED] * 28 + [FAILED, 0]
    assert [values_in(writer, index) for index in range(28)] == list(range(28))
    stream = FeatureCache(writer.layout.path).stream("enc")
    assert stream.state.tolist() == states
    assert stream.reason(28) == "missing"


def test_what_is_handed_over_later_is_written_later(writer: CacheWriter) -> None:
    with CommitThread(writer) as commits:
        for value in range(50):
            commits.put([row(7, value)])
        commits.fail(["enc"], 8, "first")
        commits.fail(["enc"], 8, "second")
    assert values_in(writer, 7) == 49
    assert FeatureCache(writer.layout.path).stream("enc").reason(8) == "second"


@pytest.mark.parametrize("later", [True, False])
def test_rows_and_failures_of_one_utterance_keep_their_order(writer: CacheWriter, *, later: bool) -> None:
    commits = CommitThread(writer)
    if not later:
        commits.fail(["enc"], 3, "no sound")  # both wait before the thread starts
    commits.put([row(3)])
    if later:
        commits.fail(["enc"], 3, "no sound")
    with commits:
        pass
    assert writer.states["enc"][3] == (FAILED if later else COMMITTED)


def test_an_error_of_the_writer_surfaces_when_the_thread_is_left(writer: CacheWriter) -> None:
    with pytest.raises(ValueError, match="enc of utterance 2 must be"), CommitThread(writer) as commits:
        commits.put([row(2, rows=4)])


def test_an_error_of_the_writer_surfaces_at_a_later_call(writer: CacheWriter) -> None:
    handed: list[int] = []

    def work() -> None:
        with CommitThread(writer) as commits:
            commits.put([row(2, rows=4)])
            for one in range(10_000):
                handed.append(one)
                commits.put([row(5)])

    with pytest.raises(ValueError, match="enc of utterance 2 must be"):
        work()
    assert len(handed) < 10_000
    assert writer.states["enc"][2] != COMMITTED


def test_an_error_of_the_caller_is_not_covered_by_one_of_the_writer(writer: CacheWriter) -> None:
    def work() -> None:
        with CommitThread(writer) as commits:
            commits.put([row(2, rows=4)])
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        work()


def test_what_was_handed_over_before_an_error_of_the_caller_is_written(writer: CacheWriter) -> None:
    def work() -> None:
        with CommitThread(writer) as commits:
            for index in range(20):
                commits.put([row(index)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert writer.states["enc"][:20].tolist() == [COMMITTED] * 20
