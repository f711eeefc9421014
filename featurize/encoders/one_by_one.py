"""Any speech encoder of Hugging Face, as its checkpoint documents it: own feature extractor, one utterance at a time.

Encoding one by one is exact by construction, without knowledge of what the model does with padding. The number of rows
of an utterance is measured: the model runs on the meta device, where tensors have a shape and no values. Families whose
own mask makes a padded batch exact (w2v-BERT 2.0: Barrault et al., 2023, arXiv:2312.05187) are batched.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cache.errors import MmerError
from cache.rows import Rows
from cache.stream import StreamSpec
from featurize.encoders.base import InputPlan, Waveform
from featurize.encoders.layers import LayerChoice
from featurize.encoders.options import in_precisions
from featurize.encoders.speech import full_float32
from featurize.inputs.audio import MIN_SAMPLES, RATE_HZ

Shapes = tuple[int, ...]  # rows of each hidden state, of the output last


class OneByOneEncoder:
    """A frozen speech encoder that is run as its checkpoint documents it, on one device.

    Args:
        model: Hugging Face's encoder, in eval mode and float32.
        counter: counter of the rows of this model, with its feature extractor.
        batched: the extractor's padding and mask leave every utterance of a batch as it is alone.
        spec: spec that all streams share; name, layers, shape and rate are set for each choice.
        choices: hidden states of each stream of frames.
        chunk_samples: length of the pieces of a longer recording, in samples; None if longer ones were refused.
        device: device on which the encoder runs.
        precision: type in which the encoder computes.

    Raises:
        MmerError: if the model returns no rows of hidden states.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        counter: "RowCounter",
        batched: bool,
        spec: StreamSpec,
        choices: Sequence[LayerChoice],
        chunk_samples: int | None,
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        self.model = model.to(device).eval()
        self.extractor = counter.extractor
        self.batched = batched
        self.choices = choices
        self.device = device
        self.start_weights: Mapping[str, npt.NDArray[Any]] = {}
        self._piece = None if chunk_samples is None else max(MIN_SAMPLES, chunk_samples)
        self._precision = precision
        self._models = in_precisions(self.model, precision)
        self._counter = counter
        self.specs = [self._spec(spec, choice) for choice in choices]

    def plan(self, sizes: Sequence[int]) -> list[InputPlan]:
        """Measures the rows of each input from its number of samples."""
        pieces = [self._sizes_of_pieces(samples) for samples in sizes]
        counts = self._counter.count({size for parts in pieces for size in parts})
        return [self._plan_input([counts[size] for size in parts]) for parts in pieces]

    def encode(self, inputs: Sequence[Waveform], *, precise: bool = False) -> list[tuple[Rows, ...]]:
        """Encodes 16 kHz waveforms ``(samples,)``: ``(frames, ...)`` per choice."""
        precision = torch.float32 if precise else self._precision
        pieces = [self._pieces(waveform) for waveform in inputs]
        if self.batched and all(len(parts) == 1 for parts in pieces):
            return self._encode_batch([parts[0] for parts in pieces], precision)
        return [self._joined(parts, precision) for parts in pieces]

    def hidden_states(self, waveforms: Sequence[Waveform], precision: torch.dtype) -> tuple[Tensor, ...]:
        """Computes all hidden states and the output, each ``(batch, frames, dim)``, as Hugging Face documents it."""
        values = inputs_of(self.extractor, waveforms)
        moved = {
            name: value.to(self.device, precision if value.is_floating_point() else None)
            for name, value in values.items()
        }
        with torch.inference_mode(), full_float32(self.device):
            return states_of(self._models[precision], moved)

    def _encode_batch(self, waveforms: Sequence[Waveform], precision: torch.dtype) -> list[tuple[Rows, ...]]:
        states = self.hidden_states(waveforms, precision)
        counts = self._counter.count({len(waveform) for waveform in waveforms})
        arrays = [_select(choice, states) for choice in self.choices]
        encoded = []
        for index, waveform in enumerate(waveforms):
            rows = self._rows(counts[len(waveform)])
            encoded.append(tuple(array[index, :count] for array, count in zip(arrays, rows, strict=True)))
        return encoded

    def _joined(self, parts: Sequence[Waveform], precision: torch.dtype) -> tuple[Rows, ...]:
        encoded = [self._encode_batch([part], precision)[0] for part in parts]
        return tuple(np.concatenate(rows) for rows in zip(*encoded, strict=True))

    def _plan_input(self, parts: Sequence[Shapes]) -> InputPlan:
        rows = tuple(sum(counts) for counts in zip(*(self._rows(shapes) for shapes in parts), strict=True))
        if not all(rows):
            return InputPlan(failure="too short for one frame")
        note = f"encoded in {len(parts)} pieces" if len(parts) > 1 else ""
        return InputPlan(rows=rows, cost=max(max(self._rows(shapes)) for shapes in parts), note=note)

    def _rows(self, shapes: Shapes) -> tuple[int, ...]:
        return tuple(shapes[choice.indices[0] if choice.indices else -1] for choice in self.choices)

    def _sizes_of_pieces(self, samples: int) -> list[int]:
        samples = max(samples, MIN_SAMPLES)
        if self._piece is None or samples <= self._piece:
            return [samples]
        whole, rest = divmod(samples, self._piece)
        return [self._piece] * whole + ([max(rest, MIN_SAMPLES)] if rest else [])

    def _pieces(self, waveform: Waveform) -> list[Waveform]:
        step = self._piece or len(waveform)
        parts = [waveform[start : start + step] for start in range(0, max(len(waveform), 1), max(step, 1))]
        return [np.pad(part, (0, max(0, MIN_SAMPLES - len(part)))) for part in parts]

    def _spec(self, spec: StreamSpec, choice: LayerChoice) -> StreamSpec:
        dims = self._counter.dims
        chosen = {dims[index] for index in choice.indices} if choice.indices else {dims[-1]}
        if len(chosen) > 1:
            raise MmerError(f"{spec.name} has hidden states of several sizes; choose layers of one size")
        ten_seconds = self._rows_of_choice(choice, self._counter.count({10 * RATE_HZ})[10 * RATE_HZ])
        return replace(
            spec,
            name=choice.stream_name(spec.name),
            layers=choice.text,
            shape=choice.row_shape(chosen.pop()),
            rate_hz=ten_seconds / 10,
        )

    def _rows_of_choice(self, choice: LayerChoice, shapes: Shapes) -> int:
        counts = {shapes[index] for index in choice.indices} if choice.indices else {shapes[-1]}
        if len(counts) > 1:
            raise MmerError("hidden states of several rates cannot be joined in one stream; choose layers of one rate")
        return counts.pop()


class RowCounter:
    """The number of rows of every hidden state of a model, by the number of samples.

    Args:
        model: Hugging Face's encoder.
        extractor: its feature extractor.

    Attributes:
        extractor: the feature extractor.
        dims: number of values of a row of each hidden state, of the output last.

    Raises:
        MmerError: if the model returns no rows of hidden states.
    """

    def __init__(self, model: nn.Module, extractor: Any) -> None:
        self._model, self.extractor = model, extractor
        self._meta = _without_values(model)
        self._counts: dict[int, Shapes] = {}
        self.dims = tuple(int(state.shape[-1]) for state in self._states(RATE_HZ))

    @property
    def layers(self) -> int:
        """Number of layers: hidden states count from 0 to this number."""
        return len(self.dims) - 2

    def count(self, sizes: set[int]) -> Mapping[int, Shapes]:
        """Counts the rows for each number of samples; between two lengths with equal counts nothing is measured."""
        ordered = sorted(sizes)
        if ordered:
            self._count_between(ordered, 0, len(ordered) - 1)
        return {size: self._counts[size] for size in ordered}

    def _count_between(self, sizes: Sequence[int], first: int, last: int) -> None:
        low, high = self._count_one(sizes[first]), self._count_one(sizes[last])
        if low == high:
            self._counts.update(dict.fromkeys(sizes[first : last + 1], low))
        elif last - first > 1:
            middle = (first + last) // 2
            self._count_between(sizes, first, middle)
            self._count_between(sizes, middle, last)

    def _count_one(self, samples: int) -> Shapes:
        if samples not in self._counts:
            states = self._states(samples)
            self._counts[samples] = tuple(int(state.shape[1]) for state in states) or (0,) * len(self.dims)
        return self._counts[samples]

    def _states(self, samples: int) -> tuple[Tensor, ...]:
        """Computes hidden states of silence; empty if it is too short for one frame."""
        values = inputs_of(self.extractor, [np.zeros(samples, dtype=np.float32)])
        valid = {name: _without_padding(value, values.get("attention_mask")) for name, value in values.items()}
        if not all(value.numel() for value in valid.values()):
            return ()
        if self._meta is not None:
            try:
                with torch.inference_mode():
                    return states_of(self._meta, {name: value.to("meta") for name, value in valid.items()})
            except (NotImplementedError, RuntimeError):
                self._meta = None  # the model looks at values, which the meta device does not have
        device = next(self._model.parameters()).device
        with torch.inference_mode():
            return states_of(self._model, {name: value.to(device) for name, value in valid.items()})


def inputs_of(extractor: Any, waveforms: Sequence[Waveform]) -> dict[str, Tensor]:
    """Computes the inputs of a model by the checkpoint's feature extractor, padded by it if there are several."""
    several = {"padding": True} if len(waveforms) > 1 else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # statistics of an input of one frame, which is not an input
        return dict(extractor(list(waveforms), sampling_rate=RATE_HZ, return_tensors="pt", **several))


def states_of(model: Any, values: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Runs a model; returns its hidden states and its output last, each ``(batch, frames, dim)``.

    Raises:
        MmerError: if it returns no rows of hidden states.
    """
    output = model(**values, output_hidden_states=True)
    last, hidden = getattr(output, "last_hidden_state", None), getattr(output, "hidden_states", None)
    if last is None or hidden is None or any(state.ndim != 3 for state in (*hidden, last)):
        raise MmerError(
            f"{type(model).__name__} returns no rows of hidden states (batch, frames, dim); use another encoder"
        )
    return (*hidden, last)


def _without_values(model: nn.Module) -> nn.Module | None:
    """Builds the model on the meta device; None if it cannot be built from its configuration there."""
    try:
        with torch.device("meta"):
            return type(model)(model.config).eval()
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        return None


def _without_padding(value: Tensor, mask: Tensor | None) -> Tensor:
    """Cuts the frames of one utterance that its own mask calls padding."""
    if mask is None or value.shape[:2] != mask.shape[:2]:
        return value
    return value[:, : int(mask.sum())]


def _select(choice: LayerChoice, states: Sequence[Tensor]) -> Rows:
    selected = choice.select(dict(enumerate(states[:-1])), states[-1])
    rows: Rows = selected.float().cpu().numpy()
    return rows
