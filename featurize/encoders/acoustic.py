"""Log-mel and MFCC features of 16 kHz speech by librosa: centred 25 ms windows every 10 ms, no weights.

`logmel80` is normalized to zero mean and unit variance over all values of an utterance, which keeps the shape of the
spectrum and removes the level. `mfcc39` (Davis and Mermelstein, 1980, doi:10.1109/TASSP.1980.1163420) keeps both: 13
coefficients, of which the first holds the level, with first and second differences over nine frames.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import librosa
import numpy as np
import numpy.typing as npt

from cache.rows import Rows
from cache.stream import Scalar, StreamSpec
from featurize.encoders.base import InputPlan, Waveform
from featurize.inputs.audio import RATE_HZ

WINDOW, HOP, FFT = 400, 160, 512  # samples: 25 ms, 10 ms, and the next power of two
PIECE = 3600 * RATE_HZ  # samples of a longer waveform whose spectra are computed at once
MARGIN = 8 * HOP  # more than half a window, and whole frames
FLOOR = 1e-10  # of the power; the floor that librosa uses for decibels
_WINDOWS: Mapping[str, Any] = {"sr": RATE_HZ, "n_fft": FFT, "win_length": WINDOW, "hop_length": HOP}

Features = npt.NDArray[np.float32]


class AcousticEncoder:
    """Encoder of hand-crafted features, 100 frames a second.

    Args:
        name: name of the stream.
        source: ``logmel80`` or ``mfcc39``.
        dtype: type in which values are stored.
        versions: library versions, recorded in the spec.
        limits: limits of the inputs that the run accepts, recorded in the spec.
    """

    def __init__(
        self, *, name: str, source: str, dtype: str, versions: Mapping[str, str], limits: Mapping[str, Scalar]
    ) -> None:
        self._features, role, dim = FEATURES[source]
        self.start_weights: Mapping[str, npt.NDArray[Any]] = {}
        self.specs = [
            StreamSpec(
                name=name,
                role=role,
                source=source,
                shape=(dim,),
                dtype=dtype,
                rate_hz=RATE_HZ / HOP,
                preprocessing={"window": WINDOW, "hop": HOP, "fft": FFT, "rate_hz": RATE_HZ, "resampler": "soxr HQ"},
                versions=versions,
                limits=limits,
            )
        ]

    def plan(self, sizes: Sequence[int]) -> list[InputPlan]:
        """Computes the number of frames of each input from its number of samples."""
        counts = [1 + max(samples, FFT) // HOP for samples in sizes]
        return [InputPlan(rows=(count,), cost=count) for count in counts]

    def encode(self, inputs: Sequence[Waveform], *, precise: bool = False) -> list[tuple[Rows, ...]]:
        """Computes the features of each 16 kHz waveform, ``(frames, dim)``."""
        return [(self._features(_pad_to_window(waveform)),) for waveform in inputs]


def logmel80(waveform: Waveform) -> Features:
    """Computes 80 normalized log-mel bands, ``(frames, 80)``."""
    logmel = _mel_in_pieces(waveform)
    return np.asarray((logmel - logmel.mean()) / np.sqrt(logmel.var() + FLOOR), dtype=np.float32)


def mfcc39(waveform: Waveform) -> Features:
    """Computes 13 MFCC with first and second differences, ``(frames, 39)``."""
    static = librosa.feature.mfcc(y=waveform, n_mfcc=13, **_WINDOWS)
    differences = [librosa.feature.delta(static, order=order, mode="nearest") for order in (1, 2)]
    return np.asarray(np.concatenate([static, *differences]).T, dtype=np.float32)


def _mel_in_pieces(waveform: Waveform) -> Features:
    """Computes the log of mel power, ``(frames, 80)``; of a long waveform piece by piece, for the sake of memory."""
    if len(waveform) <= PIECE:
        return _log_mel(librosa.feature.melspectrogram(y=waveform, n_mels=80, **_WINDOWS))
    rows = np.empty((80, 1 + len(waveform) // HOP), np.float32).T  # in the order of memory of a whole spectrogram
    for start in range(0, len(waveform), PIECE):  # with the windows that reach into the piece on both sides
        first, stop = max(0, start - MARGIN), min(len(waveform), start + PIECE + MARGIN)
        piece = librosa.feature.melspectrogram(y=waveform[first:stop], n_mels=80, **_WINDOWS)
        within = rows[start // HOP : (start + PIECE) // HOP]
        within[:] = _log_mel(piece[:, (start - first) // HOP :][:, : len(within)])
    return rows


def _log_mel(power: npt.NDArray[Any]) -> Features:
    logmel: Features = np.log(np.maximum(power, FLOOR)).T
    return logmel


def _pad_to_window(waveform: Waveform) -> Waveform:
    missing = FFT - len(waveform)  # librosa warns of a waveform shorter than one window
    return np.pad(waveform, (0, missing)) if missing > 0 else waveform


FEATURES: Mapping[str, tuple[Callable[[Waveform], Features], str, int]] = {  # source -> function, role, dim
    "logmel80": (logmel80, "mel", 80),
    "mfcc39": (mfcc39, "audio", 39),
}
