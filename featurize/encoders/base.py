"""The encoder protocol: the interface through which the pipeline plans and computes the rows of streams."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from cache.rows import Rows
from cache.stream import StreamSpec
from featurize.inputs.transcript import Turn

Waveform = npt.NDArray[np.float32]
Size_contra = TypeVar("Size_contra", contravariant=True)
Input_contra = TypeVar("Input_contra", contravariant=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class InputPlan:
    """The rows that an encoder will compute from one input, or the reason why it cannot.

    Attributes:
        rows: number of rows in each of the encoder's streams, in the order of its specs; empty for a failure.
        cost: share of a batch's budget, in rows of the encoder.
        turns: number of preceding turns that are joined to the input.
        note: remark about the input, empty if there is none.
        failure: reason why the input cannot be encoded, empty if it can.
    """

    rows: tuple[int, ...] = ()
    cost: int = 0
    turns: int = 0
    note: str = ""
    failure: str = ""


class Encoder(Protocol[Size_contra, Input_contra]):
    """An encoder of waveforms or transcripts. A batch gives each input the rows that the input alone would give.

    Attributes:
        specs: one per stream, all of one modality.
        start_weights: pre-trained weights that heads start from, by name.
    """

    specs: list[StreamSpec]
    start_weights: Mapping[str, npt.NDArray[Any]]

    def plan(self, sizes: Sequence[Size_contra]) -> list[InputPlan]:
        """Plans each input from its size alone: its number of samples at 16 kHz, or the turn itself."""
        ...

    def encode(self, inputs: Sequence[Input_contra], *, precise: bool = False) -> list[tuple[Rows, ...]]:
        """Computes the rows of each stream for each input; in float32 regardless of the precision if `precise`."""
        ...


WaveformEncoder = Encoder[int, Waveform]
TranscriptEncoder = Encoder[Turn, Turn]
