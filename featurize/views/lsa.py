"""LSA: views of speech with less noise, by spectral subtraction from the short-time Fourier transform.

The noise of a recording is estimated from its quietest frames; each value of the spectrum is multiplied by a gain and
keeps its phase; the result has the length of the input. Bi-modal bi-task (2024, doi:10.1080/08839514.2024.2356992)
names these steps and prints none of their parameters; docs/decisions.md#b-7 states those of mmer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from cache.rows import Rows
from cache.stream import VIEW, Scalar, StreamSpec
from featurize.encoders.base import InputPlan, Waveform, WaveformEncoder
from featurize.views.catalog import LSA

WINDOW, HOP = 400, 160  # 25 ms and 10 ms at 16 kHz
QUIETEST = 0.1  # share of the frames whose mean power is the noise
OVERSUBTRACTION = 1.5
FLOOR = 0.1  # least gain, -20 dB
PARAMETERS: Mapping[str, Scalar] = {
    "view": LSA,
    "view.window": f"hann {WINDOW}",
    "view.hop": HOP,
    "view.quietest": QUIETEST,
    "view.oversubtraction": OVERSUBTRACTION,
    "view.floor": FLOOR,
}


def suppress_noise(waveform: Waveform) -> Waveform:
    """Suppresses the stationary noise of a 16 kHz waveform, ``(samples,)``; the result has the same length."""
    samples = torch.from_numpy(waveform)
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(samples, WINDOW, HOP, window=window, pad_mode="constant", return_complex=True)
    changed = spectrum * noise_gain(spectrum.abs().square(), len(samples))
    result: Waveform = torch.istft(changed, WINDOW, HOP, window=window, length=len(samples)).numpy()
    return result


def noise_gain(power: Tensor, samples: int) -> Tensor:
    """Computes the gain of each value of a spectrum, in [0.1, 1].

    Args:
        power: squared magnitudes, ``(bins, frames)``, of frames centered every 10 ms from sample 0 on.
        samples: length of the waveform.

    Returns:
        ``(bins, frames)``.
    """
    middles = torch.arange(power.shape[1]) * HOP
    complete = (middles >= WINDOW // 2) & (middles + WINDOW // 2 <= samples)  # the others hold padding, which is silent
    frames = power[:, complete] if complete.any() else power
    count = max(1, round(QUIETEST * frames.shape[1]))
    quietest = frames.sum(dim=0).argsort(stable=True)[:count]
    noise = frames[:, quietest].mean(dim=1, keepdim=True)  # (bins, 1)
    share = noise / power.clamp(min=torch.finfo(power.dtype).tiny)
    return (1 - OVERSUBTRACTION * share).clamp(min=FLOOR**2).sqrt()


class LsaView:
    """An encoder of speech whose input is denoised; it computes vectors only, no codes.

    Args:
        encoder: encoder of waveforms.
    """

    def __init__(self, encoder: WaveformEncoder) -> None:
        self.start_weights: Mapping[str, npt.NDArray[Any]] = {}
        self._encoder = encoder
        self._kept = [index for index, spec in enumerate(encoder.specs) if spec.role == "audio"]
        self.specs = [_view_spec(encoder.specs[index]) for index in self._kept]

    def plan(self, sizes: Sequence[int]) -> list[InputPlan]:
        """Plans as the encoder does: a view is as long as its recording."""
        return [
            replace(planned, rows=tuple(planned.rows[index] for index in self._kept if planned.rows))
            for planned in self._encoder.plan(sizes)
        ]

    def encode(self, inputs: Sequence[Waveform], *, precise: bool = False) -> list[tuple[Rows, ...]]:
        """Encodes the denoised waveforms, ``(frames, ...)`` per stream of vectors."""
        outputs = self._encoder.encode([suppress_noise(waveform) for waveform in inputs], precise=precise)
        return [tuple(output[index] for index in self._kept) for output in outputs]


def _view_spec(spec: StreamSpec) -> StreamSpec:
    return replace(spec, name=f"{spec.name}{VIEW}{LSA}", preprocessing={**spec.preprocessing, **PARAMETERS})
