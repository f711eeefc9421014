"""Recordings to predict: a file or an array with a span and a text, measured before anything is decoded."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from featurize.encoders.base import Waveform
from featurize.inputs.audio import (
    OVERSHOOT_S,
    RATE_HZ,
    AudioSpan,
    RecordingError,
    check_samples,
    cut,
    load,
    mixed_down,
    nearest_sample,
    probe,
    resampled_length,
)
from featurize.inputs.audio import Recording as SoundFile
from featurize.inputs.transcript import Turn, clean_text

REMEMBERED = 64  # measured files; windows of one recording follow each other


@dataclass(frozen=True, kw_only=True, eq=False)
class Sound:
    """Samples in memory.

    Attributes:
        samples: float32 ``(samples, channels)``, full scale is 1.
        rate_hz: samples per second.
    """

    samples: npt.NDArray[np.float32]
    rate_hz: int

    @property
    def duration_s(self) -> float:
        """Duration in seconds."""
        return len(self.samples) / self.rate_hz


@dataclass(frozen=True, kw_only=True, eq=False)
class SoundSpan:
    """A span of a sound in memory, in its samples ``[start, stop)``."""

    sound: Sound
    start: int
    stop: int

    @property
    def samples(self) -> int:
        """Number of samples after resampling to 16 kHz."""
        return resampled_length(self.stop - self.start, self.sound.rate_hz)

    @property
    def duration_s(self) -> float:
        """Duration in seconds."""
        return (self.stop - self.start) / self.sound.rate_hz


Span: TypeAlias = AudioSpan | SoundSpan


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """A recording, or a span of it, to predict.

    Attributes:
        file: name in the output.
        source: file or sound in memory; None if there is only a text.
        start_s: start of the span in seconds; None for the start of the recording.
        end_s: end of the span in seconds; None for the end of the recording.
        text: transcript; None if it is not known.
        before: transcripts of the turns before it in its dialogue, oldest first.
    """

    file: str
    source: Path | Sound | None
    start_s: float | None = None
    end_s: float | None = None
    text: str | None = None
    before: tuple[str, ...] = ()

    @property
    def turn(self) -> Turn | None:
        """The cleaned transcript with the turns before it; None without a transcript."""
        if self.text is None:
            return None
        return Turn(clean_text(self.text).text, tuple(clean_text(text).text for text in self.before))

    def measured(self) -> Span | str:
        """Returns the span of audio, or the reason why there is none."""
        try:
            if isinstance(self.source, Sound):
                return _cut_sound(self.source, self.start_s, self.end_s)
            return "no recording given" if self.source is None else cut(_probe(self.source), self.start_s, self.end_s)
        except RecordingError as error:
            return str(error)

    def piece(self, start_s: float, end_s: float) -> "Recording":
        """Returns a piece of the recording; times count from the start of the file."""
        return replace(self, start_s=start_s, end_s=end_s)


def sound_of(samples: npt.NDArray[Any], rate_hz: int) -> Sound:
    """Returns an array as a sound.

    Args:
        samples: ``(samples,)`` or ``(samples, channels)``; integers are scaled by the range of their type.
        rate_hz: samples per second.

    Raises:
        ValueError: if the shape or the rate is not that of a sound.
        RecordingError: if samples are not finite, or not audio.
    """
    array = np.asarray(samples)
    if array.ndim not in {1, 2} or not array.size or array.dtype.kind not in "fiu":
        raise ValueError(
            f"samples must be numbers of shape (samples,) or (samples, channels), got {array.dtype} {array.shape}"
        )
    if int(rate_hz) != rate_hz or rate_hz < 1:
        raise ValueError(f"the rate must be a whole number of samples per second, got {rate_hz}")
    if array.dtype.kind == "u":
        raise ValueError(f"samples must be floats or signed integers, got {array.dtype}; subtract the middle first")
    scale = -float(np.iinfo(array.dtype).min) if array.dtype.kind == "i" else 1.0
    sound = np.asarray(array / scale if scale != 1 else array, dtype=np.float32)
    check_samples(sound)
    return Sound(samples=sound.reshape(len(sound), -1), rate_hz=int(rate_hz))


def load_waveform(span: Span) -> Waveform:
    """Loads the 16 kHz mono waveform of a span, ``(samples,)``.

    Raises:
        RecordingError: if it does not decode.
    """
    if isinstance(span, SoundSpan):
        return mixed_down(span.sound.samples[span.start : span.stop], span.sound.rate_hz)
    return load(span).waveform


def decode(recording: Recording) -> Waveform | str:
    """Returns the 16 kHz mono waveform of a recording, ``(samples,)``, or the reason why there is none."""
    span = recording.measured()
    try:
        return span if isinstance(span, str) else load_waveform(span)
    except RecordingError as error:
        return str(error)


@lru_cache(REMEMBERED)
def _probe_once(path: Path, size_bytes: int, changed_ns: int) -> SoundFile:
    return probe(path)


def _probe(path: Path) -> SoundFile:
    """Measures a file, once for all its spans."""
    try:
        state = path.stat()
    except (OSError, ValueError):
        return probe(path)  # raises the reason
    return _probe_once(path, state.st_size, state.st_mtime_ns)


def _cut_sound(sound: Sound, start_s: float | None, end_s: float | None) -> SoundSpan:
    start = 0 if start_s is None else nearest_sample(start_s, sound.rate_hz)
    stop = len(sound.samples) if end_s is None else nearest_sample(end_s, sound.rate_hz)
    if 0 < stop - len(sound.samples) <= OVERSHOOT_S * sound.rate_hz:
        stop = len(sound.samples)
    if not 0 <= start < stop <= len(sound.samples):
        raise RecordingError(f"span {start_s} to {end_s} s does not lie in the sound of {sound.duration_s:.3f} s")
    span = SoundSpan(sound=sound, start=start, stop=stop)
    if span.samples < 1:
        raise RecordingError(f"{stop - start} samples at {sound.rate_hz} Hz are too few for a sample at {RATE_HZ} Hz")
    return span
