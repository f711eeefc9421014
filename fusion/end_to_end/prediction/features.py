"""Features of recordings, computed as for a cache and held in memory, and batches of them."""

from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cache.rows import StoredRows, to_stored
from cache.stream import StreamSpec
from featurize.encoders.base import InputPlan
from featurize.encoders.speech import prepare_waveform
from featurize.extraction.encode import EncodeInput, FailedInput, encode_inputs
from featurize.extraction.pipeline import TOKEN_BUDGET, load_ahead
from featurize.extraction.plan import history_of, pack_batches
from featurize.inputs.audio import RecordingError
from featurize.inputs.transcript import Turn
from fusion.arrays import Indices
from fusion.data.packing import WIDER, RowTensors
from fusion.data.views import ViewDraw
from fusion.end_to_end.prediction.encoders import StreamEncoder
from fusion.end_to_end.prediction.recordings import Span, load_waveform
from fusion.head import Batch


@dataclass(frozen=True, kw_only=True)
class Item:
    """One input of encoders.

    Attributes:
        span: span of audio, or the reason why there is none.
        turn: transcript with the turns before it; None without a transcript.
    """

    span: Span | str
    turn: Turn | None


@dataclass(kw_only=True)
class Computed:
    """Features computed for items, and the failures.

    Attributes:
        rows: identifier of a stream -> index of an item -> its rows as a cache stores them.
        failures: index of an item -> the reason why a stream has no rows.
    """

    rows: dict[str, dict[int, StoredRows]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)


def compute_rows(
    encoder: StreamEncoder, items: Mapping[int, Item], threads: ThreadPoolExecutor, *, batch_seconds: float
) -> Computed:
    """Computes the rows of an encoder, in batches of similar lengths; recordings are decoded ahead in threads.

    Args:
        encoder: encoder with its streams.
        items: inputs by index; each has what the encoder reads.
        threads: threads that decode.
        batch_seconds: seconds of speech of one batch, padding included; 0 for one recording at a time.
    """
    computed = Computed(rows={stream: {} for stream in encoder.streams})
    plans = _plans(encoder, items, computed.failures)
    possible = [index for index in plans if index not in computed.failures]
    costs = [plans[index].cost for index in possible]
    rate_hz = encoder.encoder.specs[0].rate_hz
    budget = batch_seconds * rate_hz if encoder.speech else TOKEN_BUDGET
    batches = [
        [possible[position] for position in batch] for batch in pack_batches(costs, range(len(possible)), budget)
    ]
    for _, inputs in load_ahead(batches, lambda index: _load(encoder, index, items[index], plans[index]), threads):
        _encode(encoder, inputs, computed)
    return computed


def compute_waveforms(items: Mapping[int, Item], threads: ThreadPoolExecutor, *, normalize: bool) -> Computed:
    """Decodes the waveforms that an encoder reads which has learned from recordings.

    Args:
        items: inputs by index.
        threads: threads that decode.
        normalize: zero mean and unit variance.
    """
    computed = Computed(rows={"": {}})
    for index, waveform in zip(items, threads.map(_waveform, items.values()), strict=True):
        if isinstance(waveform, str):
            computed.failures[index] = waveform
        else:
            computed.rows[""][index] = to_stored(prepare_waveform(waveform, normalize=normalize), "float32")
    return computed


class ComputedFeatures:
    """Batches of items whose rows are held in memory, a `fusion.data.features.BatchSource`.

    Args:
        rows: role -> rows of each item, None for an item that lacks the role.
        blanks: role -> a row of zeros, in the shape and type of its rows.
        device: device of the batches.
    """

    def __init__(
        self,
        rows: Mapping[str, Sequence[StoredRows | None]],
        blanks: Mapping[str, StoredRows],
        device: torch.device,
    ) -> None:
        self._rows, self._blanks = rows, blanks
        self.device = device
        count = max(map(len, rows.values()), default=0)
        self.ids = [str(index) for index in range(count)]
        self.labels: npt.NDArray[np.int64] = np.full(count, -1)

    def lengths(self, indices: Indices, roles: Collection[str]) -> Indices:
        """Counts the rows of each item over roles, int64 ``(n,)``."""
        counts = [[_count(self._rows[role][index]) for role in roles] for index in indices.tolist()]
        rows: Indices = np.array(counts, dtype=np.int64).reshape(len(indices), -1).sum(axis=1)
        return rows

    def batches(
        self, groups: Iterable[Indices], roles: Collection[str], draw: ViewDraw | None = None
    ) -> Generator[Batch]:
        """Yields a batch for each group of items."""
        for indices in groups:
            padded = {role: self._padded(role, indices) for role in roles}
            on_device = torch.from_numpy(indices).to(self.device)
            yield Batch(
                features={role: features for role, (features, _) in padded.items()},
                masks={role: mask for role, (_, mask) in padded.items()},
                labels=torch.full_like(on_device, -1),
                indices=on_device,
            )

    def describe(self) -> str:
        """Returns a text for the user that states where the rows are."""
        return "features are held in main memory"

    def identity(self, roles: Collection[str]) -> Mapping[str, str]:
        """Returns an empty text for each role: there is nothing to resume."""
        return dict.fromkeys(roles, "")

    def nonfinite_text(self, index: int, role: str) -> str:
        """Returns the error text for features that are not finite."""
        return f"features of recording {index} for {role} are not finite"

    def _padded(self, role: str, indices: Indices) -> tuple[torch.Tensor, torch.Tensor]:
        held = [self._rows[role][index] for index in indices.tolist()]
        lengths = np.array([_count(rows) for rows in held], dtype=np.int64)
        present = [rows for rows in [*held, self._blanks[role]] if rows is not None]
        values = _tensor(np.concatenate([rows.values for rows in present])).to(self.device)
        stored = [rows.scales for rows in present if rows.scales is not None]
        scales = torch.from_numpy(np.concatenate(stored)).to(self.device) if stored else None
        starts = np.cumsum(lengths) - lengths
        return RowTensors(values=values, scales=scales).padded(starts, lengths)


def blank_row(spec: StreamSpec, *, wave: bool) -> StoredRows:
    """Returns a row of zeros in the shape and type of a stream, or a sample of silence in place of its rows."""
    shape, dtype = ((), "float32") if wave else (spec.shape, spec.dtype)
    kind = np.float32 if dtype == "int8" else dtype
    return to_stored(np.zeros((1, *shape), kind), dtype)


def _plans(encoder: StreamEncoder, items: Mapping[int, Item], failures: dict[int, str]) -> dict[int, InputPlan]:
    """Plans every item; collects those that cannot be encoded."""
    sizes: dict[int, Any] = {}
    history = history_of(encoder.encoder.specs[0])
    for index, item in items.items():
        if not encoder.speech:
            sizes[index] = item.turn.latest(history) if item.turn else Turn("")
        elif isinstance(item.span, str):
            failures[index] = item.span
        elif item.span.duration_s > encoder.max_seconds:
            limit = f"{encoder.max_seconds:g} s, the limit that the run was featurized with"
            failures[index] = f"{item.span.duration_s:g} s, longer than {limit}; pass --window SECONDS"
        else:
            sizes[index] = item.span.samples
    plans = dict(zip(sizes, encoder.encoder.plan(list(sizes.values())), strict=True))
    failures |= {index: plan.failure.partition("; pass")[0] for index, plan in plans.items() if plan.failure}
    return plans


def _load(encoder: StreamEncoder, index: int, item: Item, plan: InputPlan) -> EncodeInput | FailedInput:
    value: Any = _waveform(item) if encoder.speech else item.turn.latest(plan.turns) if item.turn else ""
    if isinstance(value, str):
        return FailedInput(index, value)
    return EncodeInput(index=index, value=value, digests=(b"",) * len(encoder.encoder.specs), note="")


def _encode(encoder: StreamEncoder, inputs: Sequence[EncodeInput | FailedInput], computed: Computed) -> None:
    """Encodes a batch, and keeps the rows of the streams of the run."""
    streams = {name: stream for stream, name in encoder.streams.items()}
    for result in encode_inputs(encoder.encoder, inputs):
        if isinstance(result, FailedInput):
            computed.failures[result.index] = result.reason
        elif result.stream in streams:
            computed.rows[streams[result.stream]][result.index] = result.stored


def _waveform(item: Item) -> npt.NDArray[np.float32] | str:
    """Decodes an item, or returns the reason why it cannot be decoded."""
    if isinstance(item.span, str):
        return item.span
    try:
        return load_waveform(item.span)
    except RecordingError as error:
        return str(error)


def _tensor(values: npt.NDArray[Any]) -> torch.Tensor:
    tensor = torch.from_numpy(values)
    return tensor.to(WIDER.get(tensor.dtype, tensor.dtype))


def _count(rows: StoredRows | None) -> int:
    return 0 if rows is None else len(rows.values)
