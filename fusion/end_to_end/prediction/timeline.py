"""Time lines: a long recording as windows, or as stretches of speech between pauses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from cache.errors import MmerError
from featurize.encoders.base import Waveform
from featurize.inputs.audio import RATE_HZ
from fusion.end_to_end.prediction.recordings import Span, load_waveform

VAD_PACKAGE = "silero-vad"


class Cutter(Protocol):
    """Cuts a recording into pieces."""

    def __call__(self, span: Span) -> Sequence[tuple[float, float]]:
        """Returns start and end of each piece in seconds, counted from the start of the span."""
        ...


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows of equal length at equal distances; the last ends with the recording.

    Attributes:
        window_s: length in seconds.
        hop_s: distance of two starts in seconds.

    Example:
        >>> Windows(window_s=6.0, hop_s=3.0).of(10.0)
        [(0.0, 6.0), (3.0, 9.0), (6.0, 10.0)]
    """

    window_s: float
    hop_s: float

    def __post_init__(self) -> None:
        if not 0 < self.hop_s <= self.window_s < float("inf"):
            raise MmerError(
                f"--window must be above 0 and --hop at most the window, got {self.window_s:g} and {self.hop_s:g}"
            )

    def __call__(self, span: Span) -> list[tuple[float, float]]:
        """Returns the windows of a span."""
        return self.of(span.duration_s)

    def of(self, duration_s: float) -> list[tuple[float, float]]:
        """Returns the windows of a duration in seconds."""
        count = 1 + max(0, int(np.ceil(round((duration_s - self.window_s) / self.hop_s, 9))))
        starts = [number * self.hop_s for number in range(count)]
        return [(start, min(start + self.window_s, duration_s)) for start in starts]


@dataclass(frozen=True, kw_only=True)
class Pauses:
    """Stretches of speech between pauses, by Silero VAD (github.com/snakers4/silero-vad, MIT).

    Attributes:
        windows: windows that cut a stretch which is longer than one of them; None to leave stretches whole.
        timestamps: returns the stretches of a waveform in seconds.
    """

    windows: Windows | None
    timestamps: Callable[[Waveform], Sequence[tuple[float, float]]]

    def __call__(self, span: Span) -> list[tuple[float, float]]:
        """Returns the stretches of speech of a span; the whole span without any."""
        end = span.duration_s
        spoken = [(start, min(stop, end)) for start, stop in self.timestamps(load_waveform(span))] or [(0.0, end)]
        if self.windows is None:
            return spoken
        return [
            (start + first, start + last) for start, stop in spoken for first, last in self.windows.of(stop - start)
        ]


def load_pauses(windows: Windows | None = None) -> Pauses:
    """Loads the detector of pauses.

    Args:
        windows: windows that cut long stretches; None to leave them whole.

    Raises:
        MmerError: if the package silero-vad cannot be imported.
    """
    try:
        from silero_vad import get_speech_timestamps, load_silero_vad
    except ImportError as error:
        raise MmerError(f"--vad needs the package {VAD_PACKAGE}; install it with pip install {VAD_PACKAGE}") from error
    detector: Any = load_silero_vad()

    def timestamps(waveform: Waveform) -> list[tuple[float, float]]:
        found = get_speech_timestamps(torch.from_numpy(waveform), detector, sampling_rate=RATE_HZ)
        return [(speech["start"] / RATE_HZ, speech["end"] / RATE_HZ) for speech in found]

    return Pauses(windows=windows, timestamps=timestamps)


def cutter_of(window_s: float | None, hop_s: float | None, *, vad: bool) -> Cutter | None:
    """Returns the cutter that options ask for; None for whole recordings.

    Args:
        window_s: length of a window in seconds.
        hop_s: distance of two windows in seconds; the length of a window if None.
        vad: cut at pauses.

    Raises:
        MmerError: if a value is invalid, or the package for pauses is missing.
    """
    if hop_s is not None and window_s is None:
        raise MmerError(f"--hop {hop_s:g} needs --window SECONDS, the length of the windows")
    windows = None if window_s is None else Windows(window_s=window_s, hop_s=window_s if hop_s is None else hop_s)
    return load_pauses(windows) if vad else windows
