"""Recordings: the length of a file, and the 16 kHz mono samples of a span of it.

soundfile decodes audio files, PyAV decodes videos, soxr resamples (quality HQ). A span is cut at the nearest source
samples, then mixed down, then resampled, so that its length is known before anything is decoded.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from cache.errors import MmerError
from featurize.inputs.video import VideoError, decode_video, is_video, measure_video

RATE_HZ = 16_000
MIN_SAMPLES = 400  # receptive field of the wav2vec 2.0 feature encoder, 25 ms

# Formats whose header states the exact number of samples. The headers of MP3 and Ogg can be wrong: their samples are
# counted by decoding.
EXACT_FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "FLAC", "AIFF", "AU", "CAF", "NIST", "VOC", "IRCAM"})
DECODE_THREADS = min(8, os.cpu_count() or 2)  # on one core, decoding takes a hundredth of the time of encoding
UNKNOWN_TOTAL = 1 << 40  # libsndfile reports absurd totals for streamed files that state none
MP3_PADDING = 2 * 1152  # encoder delay and padding, at most two MPEG frames
LOUDEST = 1e9  # full scale is 1; 32-bit integers read as floats reach 2e9, and larger squares overflow soon
OGG_PAGE = 65_307  # bytes of the longest page
BLOCK = 1 << 20  # samples decoded at a time when they are only counted

# Line of libsndfile's log about a chunk that holds less than its header states.
SHORT_OF = re.compile(r"^ *(?:data|SSND|Data Size|[Rr]iff|Riff size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)

Waveform = npt.NDArray[np.float32]


class RecordingError(MmerError):
    """A recording that cannot be used; the run continues with the others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """Length and kind of a recording file, read before it is decoded.

    Attributes:
        path: the file.
        rate_hz: sample rate of the file.
        samples: number of samples per channel.
        seekable: True if seeking is exact to the sample.
        video: True if PyAV decodes it.
    """

    path: Path
    rate_hz: int
    samples: int
    seekable: bool
    video: bool = False

    @property
    def duration_s(self) -> float:
        """Duration in seconds."""
        return self.samples / self.rate_hz


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioSpan:
    """A span of a recording, in source samples ``[start, stop)``."""

    recording: Recording
    start: int
    stop: int

    @property
    def samples(self) -> int:
        """Number of samples after resampling to 16 kHz."""
        return resampled_length(self.stop - self.start, self.recording.rate_hz)

    @property
    def duration_s(self) -> float:
        """Duration in seconds."""
        return (self.stop - self.start) / self.recording.rate_hz


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedAudio:
    """The decoded audio of a span.

    Attributes:
        waveform: 16 kHz mono float32, ``(samples,)``.
        digest: 16-byte digest of the source samples as decoded, with their rate and number of channels.
        note: remarks about the audio, separated by semicolons; empty without remarks.
    """

    waveform: Waveform
    digest: bytes
    note: str


def resampled_length(samples: int, rate_hz: int) -> int:
    """Returns the number of samples at 16 kHz, rounded to nearest, halves up.

    Example:
        >>> resampled_length(44_100, 44_100), resampled_length(3, 48_000), resampled_length(1, 48_000)
        (16000, 1, 0)
    """
    return (2 * samples * RATE_HZ + rate_hz) // (2 * rate_hz)


def probe(path: Path) -> Recording:
    """Reads the rate and the length of a recording.

    Raises:
        RecordingError: if the file is missing, empty or truncated, or holds no audio.
    """
    if not path.is_file():
        raise RecordingError("missing" if not path.exists() else "not a file")
    if not path.stat().st_size:
        raise RecordingError("empty: zero bytes")
    if is_video(path):
        with _decoding_errors():
            rate_hz, samples = measure_video(path)
        return Recording(path=path, rate_hz=rate_hz, samples=samples, seekable=False, video=True)
    with _open_sound_file(path) as file:
        _check_ogg_end(path, file.format)
        exact = file.format in EXACT_FORMATS and 0 < file.frames < UNKNOWN_TOTAL
        samples = file.frames if exact else _count_samples(file)
        _check_complete(file, samples)
        if not samples:
            raise RecordingError("no samples")
        return Recording(path=path, rate_hz=file.samplerate, samples=samples, seekable=exact and file.seekable())


def cut(recording: Recording, start_s: float | None, end_s: float | None) -> AudioSpan:
    """Cuts a span at the nearest source samples.

    Raises:
        RecordingError: if the span exceeds the recording, or holds no sample at 16 kHz.
    """
    start = 0 if start_s is None else _nearest(start_s * recording.rate_hz)
    stop = recording.samples if end_s is None else _nearest(end_s * recording.rate_hz)
    if stop > recording.samples or start >= recording.samples:
        seconds = f"{(start_s or 0):g} to {end_s:g} s" if end_s is not None else f"{start_s:g} s on"
        raise RecordingError(f"span {seconds} does not lie in the recording of {recording.duration_s:.3f} s")
    span = AudioSpan(recording=recording, start=start, stop=stop)
    if span.samples < 1:
        raise RecordingError(f"only {stop - start} samples at {recording.rate_hz} Hz, too few for one at {RATE_HZ} Hz")
    return span


def load(span: AudioSpan) -> LoadedAudio:
    """Loads a span: decodes, checks, mixes down and resamples it.

    Raises:
        RecordingError: if it does not decode to the planned length, or holds samples that are not finite or above
            `LOUDEST`.
    """
    sound = _decode(span)  # (samples, channels)
    planned = span.stop - span.start
    if len(sound) != planned:
        raise RecordingError(f"truncated or damaged: {len(sound)} samples decoded, {planned} announced")
    check_samples(sound)
    digest = blake2b(f"{span.recording.rate_hz} {sound.shape[1]} ".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(sound).data)
    return LoadedAudio(
        waveform=mixed_down(sound, span.recording.rate_hz), digest=digest.digest(), note=_note(sound, span)
    )


def mixed_down(sound: Waveform, rate_hz: int) -> Waveform:
    """Computes the 16 kHz mono waveform of a sound, ``(samples,)``.

    Args:
        sound: samples of each channel, ``(samples, channels)``.
        rate_hz: their rate.

    Raises:
        RecordingError: if resampling does not give the planned number of samples.
    """
    mono: Waveform = sound.mean(axis=1, dtype=np.float32) if sound.shape[1] > 1 else sound[:, 0]
    if rate_hz == RATE_HZ:
        return np.ascontiguousarray(mono)
    waveform: Waveform = soxr.resample(mono, rate_hz, RATE_HZ, quality="HQ")
    planned = resampled_length(len(sound), rate_hz)
    if len(waveform) != planned:
        raise RecordingError(f"resampled to {len(waveform)} samples, {planned} planned")
    return waveform


def check_samples(sound: Waveform) -> None:
    """Checks that samples are finite and not above `LOUDEST`.

    Raises:
        RecordingError: if they are not.
    """
    if not np.isfinite(sound).all():
        raise RecordingError(f"{int(np.count_nonzero(~np.isfinite(sound)))} samples are NaN or infinite")
    if len(sound) and float(np.abs(sound).max()) > LOUDEST:
        raise RecordingError(f"samples up to {float(np.abs(sound).max()):.3g} are not audio (full scale is 1)")


def _nearest(position: float) -> int:
    return int(np.floor(position + 0.5))


def _decode(span: AudioSpan) -> Waveform:
    if span.recording.video:
        with _decoding_errors():
            return decode_video(span.recording.path, span.start, span.stop)
    with _open_sound_file(span.recording.path) as file:
        # Seeking in MP3 and Ogg is not exact to the sample, so everything before the span is decoded too.
        skipped = 0 if span.recording.seekable else span.start
        if span.recording.seekable and span.start:
            file.seek(span.start)
        sound: Waveform = file.read(span.stop - span.start + skipped, dtype="float32", always_2d=True)
        return sound[skipped:]


def _note(sound: Waveform, span: AudioSpan) -> str:
    notes = []
    if not sound.any():
        notes.append("silent: every sample is 0")
    if span.samples < MIN_SAMPLES:
        notes.append(f"{1000 * span.duration_s:g} ms: shorter than one frame of 25 ms, zero-padded")
    return "; ".join(notes)


def _count_samples(file: soundfile.SoundFile) -> int:
    samples = 0
    while block := len(file.read(BLOCK, dtype="float32", always_2d=True)):
        samples += block
    return samples


def _check_complete(file: soundfile.SoundFile, samples: int) -> None:
    """Checks that the file holds what its header states.

    For WAV, libsndfile silently uses the shorter of the two lengths and reports it only in its log.
    """
    short = SHORT_OF.search(file.extra_info)
    if short and int(short[2]) < int(short[1]) < (1 << 31) - (1 << 12):  # more means a streamed file without a total
        raise RecordingError(f"truncated: {short[2]} of {short[1]} bytes of sound")
    if file.format == "MP3" and file.frames < UNKNOWN_TOTAL and samples < file.frames - MP3_PADDING:
        raise RecordingError(f"truncated: {samples} of {file.frames} samples of sound")


def _check_ogg_end(path: Path, sound_format: str) -> None:
    """Checks that an Ogg file ends with a whole page that is marked as the last (RFC 3533, section 6)."""
    if sound_format != "OGG":
        return
    with path.open("rb") as handle:
        handle.seek(max(0, path.stat().st_size - OGG_PAGE))
        page = handle.read().rpartition(b"OggS")[2]  # from its fifth byte on
    whole = len(page) > 22 and len(page) >= 23 + page[22] + sum(page[23 : 23 + page[22]])
    if not whole or not page[1] & 4:
        raise RecordingError("truncated: it does not end with its last page")


@contextmanager
def _open_sound_file(path: Path) -> Iterator[soundfile.SoundFile]:
    # By descriptor: given a name, soundfile would trust the extension.
    with _decoding_errors(), path.open("rb") as handle, soundfile.SoundFile(handle.fileno(), closefd=False) as file:
        yield file


@contextmanager
def _decoding_errors() -> Iterator[None]:
    """Converts errors of soundfile, PyAV and the file system to a RecordingError."""
    try:
        yield
    except soundfile.SoundFileError as error:
        raise RecordingError(f"cannot be decoded: {str(error).split(': ')[-1].rstrip('.')}") from error
    except VideoError as error:
        raise RecordingError(str(error)) from error
    except OSError as error:
        raise RecordingError(f"cannot be read: {error.strerror}") from error
