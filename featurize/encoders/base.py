"""What the pipeline asks of an encoder."""

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
    """What an encoder will make of one input.

    Attributes:
        rows: rows in each of the encoder's streams, in their order; empty for a failure.
        cost: what it takes of a batch's budget, in rows of the encoder.
        turns: how many turns before it are spliced in.
        note: what is noticed about the input, empty where nothing is.
        failure: why the input cannot be encoded, empty where it can.
    """

    rows: tuple[int, ...] = ()
    cost: int = 0
    turns: int = 0
    note: str = ""
    failure: str = ""


class Encoder(Protocol[Size_contra, Input_contra]):
    """Turns inputs into rows of its streams; a batch gives what its inputs would give alone.

    Attributes:
        specs: one per stream, all of one modality.
        start_weights: what heads start from, by name.
    """

    specs: list[StreamSpec]
    start_weights: Mapping[str, npt.NDArray[Any]]

    def plan(self, sizes: Sequence[Size_contra]) -> list[InputPlan]:
        """Says what each input will take, from its size alone: samples at 16 kHz, or the turn itself."""
        ...

    def encode(self, inputs: Sequence[Input_contra], *, precise: bool = False) -> list[tuple[Rows, ...]]:
        """Gives the rows of each stream for each input; in float32 whatever the precision if `precise`."""
        ...


SpeechInput = Encoder[int, Waveform]
TextInput = Encoder[Turn, Turn]
