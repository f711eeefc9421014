"""Long recordings in pieces: as many frames as in one piece, each piece encoded on its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.rows import Rows
from featurize.encoders.base import Planned, SpeechInput, Waveform

HOP, FIELD = 320, 400  # stride and receptive field of the wav2vec 2.0 feature encoder, in samples


class ChunkedEncoder:
    """Encodes recordings longer than a limit in pieces, all others as they are.

    Args:
        encoder: a speech encoder of 50 frames a second.
        max_samples: longest piece.
    """

    def __init__(self, encoder: SpeechInput, *, max_samples: int) -> None:
        if max_samples < FIELD:
            raise ValueError(f"pieces must hold at least {FIELD} samples, one frame; got {max_samples}")
        self.specs = encoder.specs
        self.start_weights: Mapping[str, npt.NDArray[Any]] = encoder.start_weights
        self.whole = encoder
        self._max_samples = max_samples

    def plan(self, sizes: Sequence[int]) -> list[Planned]:
        """Counts frames of the whole; a long recording costs as much as its longest piece."""
        whole = self.whole.plan(sizes)
        longest = self.whole.plan([min(samples, self._max_samples) for samples in sizes])
        return [
            Planned(rows=one.rows, cost=piece.cost, note=self._note(samples), failure=one.failure)
            for one, piece, samples in zip(whole, longest, sizes, strict=True)
        ]

    def encode(self, inputs: Sequence[Waveform], *, precise: bool = False) -> list[tuple[Rows, ...]]:
        """Encodes 16 kHz waveforms, piece by piece where they are long."""
        if all(len(waveform) <= self._max_samples for waveform in inputs):
            return self.whole.encode(inputs, precise=precise)
        return [self._encode_one(waveform, precise) for waveform in inputs]

    def _encode_one(self, waveform: Waveform, precise: bool) -> tuple[Rows, ...]:
        pieces = [self.whole.encode([piece], precise=precise)[0] for piece in self._pieces(waveform)]
        return tuple(np.concatenate(rows) for rows in zip(*pieces, strict=True))

    def _pieces(self, waveform: Waveform) -> list[Waveform]:
        if len(waveform) <= self._max_samples:
            return [waveform]
        total, each = _frames(len(waveform)), _frames(self._max_samples)
        starts = range(0, total, each)
        return [waveform[start * HOP : (min(start + each, total) - 1) * HOP + FIELD] for start in starts]

    def _note(self, samples: int) -> str:
        pieces = 1 if samples <= self._max_samples else -(-_frames(samples) // _frames(self._max_samples))
        return f"encoded in {pieces} pieces" if pieces > 1 else ""


def _frames(samples: int) -> int:
    return (samples - FIELD) // HOP + 1
