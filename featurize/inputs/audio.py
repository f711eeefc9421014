"""Recordings: the length of a file, and the 16 kHz mono samples of a span of it.

soundfile decodes audio files, PyAV decodes videos and what libsndfile cannot read, soxr resamples (quality HQ). A span
is cut at the nearest source samples, then mixed down, then resampled, so that its length is known before it is encoded.
Everything is decoded block by block; only the 16 kHz waveform is held, and not even that of a long recording in pieces.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from cache.errors import MmerError
from featurize.inputs.containers import read_contents
from featurize.inputs.hearing import Hearing
from featurize.inputs.pieces import ContainerError, Contents, Part, PartFile
from featurize.inputs.unreadable import HEAD_BYTES, foreign_kind, not_a_file
from featurize.inputs.video import VideoError, is_other_sound, is_video, measure_video, video_blocks

RATE_HZ = 16_000
MIN_SAMPLES = 400  # receptive field of the wav2vec 2.0 feature encoder, 25 ms

# Formats whose header states the exact number of samples. The headers of MP3 and Ogg can be wrong: their samples are
# counted by decoding.
EXACT_FORMATS = frozenset({"WAV", "WAVEX", "RF64", "W64", "FLAC", "AIFF", "AU", "CAF", "NIST", "VOC", "IRCAM"})
DECODE_THREADS = min(8, os.cpu_count() or 2)  # on one core, decoding takes a hundredth of the time of encoding
UNKNOWN_TOTAL = 1 << 40  # libsndfile reports absurd totals for streamed files that state none
MP3_TRIMMED = 9000  # samples: the delay and padding that a LAME header may state, at most 4095 each, and the decoder's
LOUDEST = 1e9  # full scale is 1; 32-bit integers read as floats reach 2e9, and larger squares overflow soon
BLOCK = 1 << 20  # samples decoded at a time
OVERSHOOT_S = 0.005  # by which a span may exceed its recording: half of the last digit of times like 3.42
LONGEST_S = 86_400.0  # of one span: a day, whose waveform takes 5.5 GB

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
        parts: what is decoded, one after the other; empty for the file as it is.
        note: remarks about the file, separated by semicolons.
    """

    path: Path
    rate_hz: int
    samples: int
    seekable: bool
    video: bool = False
    parts: tuple[Part, ...] = ()
    note: str = ""

    @property
    def duration_s(self) -> float:
        """Duration in seconds."""
        return self.samples / self.rate_hz


@dataclass(frozen=True, kw_only=True, slots=True)
class AudioSpan:
    """A span of a recording, in source samples ``[start, stop)``; `note` says if it was clipped."""

    recording: Recording
    start: int
    stop: int
    note: str = ""

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
    reason = not_a_file(path)
    if reason:
        raise RecordingError(reason)
    with _decoding_errors():
        if is_video(path):
            return _probe_by_pyav(path)
        with path.open("rb") as file:
            contents = read_contents(file)
    refused = _refused(path, contents)
    if refused is None:
        with _decoding_errors():
            return _probe_sound(path, contents)
    if is_other_sound(path):
        with _decoding_errors():
            return replace(_probe_by_pyav(path), note=contents.note)
    raise RecordingError(refused)


def cut(recording: Recording, start_s: float | None, end_s: float | None) -> AudioSpan:
    """Cuts a span at the nearest source samples; an end behind the recording by up to `OVERSHOOT_S` is clipped.

    Raises:
        RecordingError: if the span exceeds the recording, lasts more than `LONGEST_S`, or holds no sample at 16 kHz.
    """
    start = 0 if start_s is None else nearest_sample(start_s, recording.rate_hz)
    stop = recording.samples if end_s is None else nearest_sample(end_s, recording.rate_hz)
    over = stop - recording.samples
    if over > OVERSHOOT_S * recording.rate_hz or start >= recording.samples:
        seconds = f"{(start_s or 0):g} to {end_s:g} s" if end_s is not None else f"{start_s:g} s on"
        raise RecordingError(f"span {seconds} does not lie in the recording of {recording.duration_s:.3f} s")
    note = f"span ends {over} samples behind the recording: clipped" if over > 0 else ""
    span = AudioSpan(recording=recording, start=start, stop=min(stop, recording.samples), note=note)
    if span.samples < 1:
        raise RecordingError(f"only {stop - start} samples at {recording.rate_hz} Hz, too few for one at {RATE_HZ} Hz")
    if span.duration_s > LONGEST_S:
        hours = span.duration_s / 3600
        raise RecordingError(f"{hours:.0f} hours in one utterance; cut it into spans of at most {LONGEST_S / 3600:.0f}")
    return span


def nearest_sample(seconds: float, rate_hz: int) -> int:
    """Returns the sample nearest to a time, halves rounded up."""
    return int(np.floor(seconds * rate_hz + 0.5))


def load(span: AudioSpan, *, pieces: bool = False) -> LoadedAudio:
    """Loads a span: decodes, checks, mixes down and resamples it, block by block.

    Args:
        span: the span.
        pieces: hold no waveform; slices of it are decoded again when they are read, in order.

    Raises:
        RecordingError: if it does not decode to the planned length, holds samples that are not finite or above
            `LOUDEST`, or does not fit the memory.
    """
    hearing = _Heard(span)
    try:
        if pieces:
            for _ in hearing.waveform():
                pass
            waveform: Any = PiecewiseWaveform(span)
        else:
            waveform = _gathered(hearing.waveform(), span.samples)
    except MemoryError:
        size = f"{4 * span.samples / (1 << 30):.1f} GiB"
        raise RecordingError(f"its {span.duration_s:g} s do not fit the memory ({size}); pass --chunk") from None
    return LoadedAudio(waveform=waveform, digest=hearing.digest.digest(), note=hearing.note())


class PiecewiseWaveform:
    """The 16 kHz waveform of a span, decoded as slices of it are read; slices that go forward are fast.

    Args:
        span: the span; it was loaded before, so that it decodes.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, span: AudioSpan) -> None:
        self._span = span
        self._blocks: Iterator[Waveform] = iter(())
        self._held, self._start = np.empty(0, np.float32), span.samples  # of the waveform, and where it begins

    def __len__(self) -> int:
        """Returns the number of samples."""
        return self._span.samples

    def __getitem__(self, key: slice) -> Waveform:
        """Returns a slice of the waveform, ``(samples,)``."""
        start, stop, step = key.indices(len(self))
        if step != 1:
            raise ValueError(f"a waveform in pieces has slices of step 1, got {step}")
        if start < self._start:
            self._blocks, self._held, self._start = _Heard(self._span).waveform(), np.empty(0, np.float32), 0
        while self._start + len(self._held) < stop:
            kept = self._held[max(0, start - self._start) :]
            self._start += len(self._held) - len(kept)
            block = next(self._blocks, None)
            if block is None:
                raise RecordingError("it became shorter while it was read")
            self._held = np.concatenate([kept, block])
        return self._held[start - self._start : max(start, stop) - self._start].copy()


def mixed_down(sound: Waveform, rate_hz: int) -> Waveform:
    """Computes the 16 kHz mono waveform of a sound, ``(samples,)``.

    Args:
        sound: samples of each channel, ``(samples, channels)``.
        rate_hz: their rate.

    Raises:
        RecordingError: if resampling does not give the planned number of samples.
    """
    mono = _mono(sound)
    if rate_hz == RATE_HZ:
        return mono
    waveform: Waveform = soxr.resample(mono, rate_hz, RATE_HZ, quality="HQ")
    _check_resampled(len(waveform), resampled_length(len(sound), rate_hz))
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


class _Heard:
    """The sound of a span while it is decoded: its digest, its remarks, and whether it can be used."""

    def __init__(self, span: AudioSpan) -> None:
        self.span = span
        self.digest = blake2b(digest_size=16)
        self._hearing: Hearing | None = None
        self._decoded = self._wrong = 0
        self._loudest = 0.0

    def waveform(self) -> Iterator[Waveform]:
        """Yields the 16 kHz waveform in blocks; checks it at the end."""
        rate_hz = self.span.recording.rate_hz
        resampler = None if rate_hz == RATE_HZ else _resampler(rate_hz)
        given = 0
        for sound, last in _marked(_blocks(self.span)):
            mono = self._listen(sound)
            if mono is None:
                continue
            block = mono if resampler is None else resampler.resample_chunk(mono, last=last)
            given += len(block)
            yield block
        self._check()
        _check_resampled(given, self.span.samples)

    def note(self) -> str:
        """Returns the remarks about the recording, the span and its sound, separated by semicolons."""
        notes = [self.span.recording.note, self.span.note, *(self._hearing.remarks() if self._hearing else ())]
        if self.span.samples < MIN_SAMPLES:
            notes.append(f"{1000 * self.span.duration_s:g} ms: shorter than one frame of 25 ms, zero-padded")
        return "; ".join(filter(None, notes))

    def _listen(self, sound: Waveform) -> Waveform | None:
        """Hears a block ``(samples, channels)``; returns it mixed down, None if it cannot be used."""
        if self._hearing is None:
            self._hearing = Hearing(sound.shape[1])
            self.digest.update(f"{self.span.recording.rate_hz} {sound.shape[1]} ".encode())
        self._decoded += len(sound)
        self.digest.update(np.ascontiguousarray(sound).data)
        wrong = sound.size - int(np.count_nonzero(np.isfinite(sound)))
        self._wrong += wrong
        if not wrong and len(sound):
            self._loudest = max(self._loudest, float(np.abs(sound).max()))
        if self._wrong or self._loudest > LOUDEST:
            return None
        mono = _mono(sound)
        self._hearing.add(sound, mono)
        return mono

    def _check(self) -> None:
        planned = self.span.stop - self.span.start
        if self._decoded != planned:
            raise RecordingError(f"truncated or damaged: {self._decoded} samples decoded, {planned} announced")
        if self._wrong:
            raise RecordingError(f"{self._wrong} samples are NaN or infinite")
        if self._loudest > LOUDEST:
            raise RecordingError(f"samples up to {self._loudest:.3g} are not audio (full scale is 1)")


def _resampler(rate_hz: int) -> Any:
    return soxr.ResampleStream(rate_hz, RATE_HZ, 1, dtype="float32", quality="HQ")


def _gathered(blocks: Iterator[Waveform], samples: int) -> Waveform:
    """Joins the blocks of a waveform without holding it twice."""
    first = next(blocks, np.empty(0, np.float32))
    if len(first) == samples:
        for _ in blocks:  # runs the checks at the end
            pass
        return first
    waveform = np.empty(samples, np.float32)
    filled = 0
    for block in _chained(first, blocks):
        waveform[filled : filled + len(block)] = block[: samples - filled]
        filled += len(block)
    return waveform


def _chained(first: Waveform, blocks: Iterator[Waveform]) -> Iterator[Waveform]:
    yield first
    yield from blocks


def _marked(blocks: Iterator[Waveform]) -> Iterator[tuple[Waveform, bool]]:
    """Yields each block, and True with the last one."""
    before = next(blocks, None)
    for block in blocks:
        assert before is not None
        yield before, False
        before = block
    if before is not None:
        yield before, True


def _mono(sound: Waveform) -> Waveform:
    mono: Waveform = sound.mean(axis=1, dtype=np.float32) if sound.shape[1] > 1 else sound[:, 0]
    return np.ascontiguousarray(mono)


def _check_resampled(samples: int, planned: int) -> None:
    if samples != planned:
        raise RecordingError(f"resampled to {samples} samples, {planned} planned")


def _blocks(span: AudioSpan) -> Iterator[Waveform]:
    """Yields the decoded samples of a span in blocks, ``(samples, channels)``."""
    recording, left = span.recording, span.stop - span.start
    if recording.video:
        with _decoding_errors():
            yield from _gathered_frames(video_blocks(recording.path, span.start, span.stop))
        return
    with _decoding_errors(), recording.path.open("rb") as handle:
        # Seeking in MP3 and Ogg is not exact to the sample, so everything before the span is decoded too.
        skipped = 0 if recording.seekable else span.start
        for part in recording.parts or (None,):
            with _sound_file(handle, part) as file:
                if recording.seekable and span.start:
                    file.seek(span.start)
                while left and len(block := _read(file, min(BLOCK, left + skipped))):
                    sound = block[skipped:]
                    skipped -= len(block) - len(sound)
                    left -= len(sound)
                    if len(sound):
                        yield sound


def _gathered_frames(frames: Iterator[Waveform]) -> Iterator[Waveform]:
    """Joins the frames of a coder, which hold about a thousand samples, to blocks."""
    gathered: list[Waveform] = []
    count = 0
    for frame in frames:
        gathered.append(frame)
        count += len(frame)
        if count >= BLOCK:
            yield np.concatenate(gathered)
            gathered, count = [], 0
    if gathered:
        yield np.concatenate(gathered)


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read forward: SoundFile seeks after each read, which in MP3 changes the next samples."""

    def seekable(self) -> bool:
        """Returns False, so that reading does not seek."""
        return False


def _read(file: soundfile.SoundFile, samples: int) -> Waveform:
    sound: Waveform = file.read(samples, dtype="float32", always_2d=True)
    return sound


def _refused(path: Path, contents: Contents) -> str | None:
    """Returns the reason why libsndfile does not open a file, with the way out; None if it does."""
    try:
        with path.open("rb") as handle, _sound_file(handle, contents.parts[0] if contents.parts else None):
            return None
    except soundfile.SoundFileError as error:
        with path.open("rb") as handle:
            kind = foreign_kind(handle.read(HEAD_BYTES))
        if kind:
            return f"cannot be decoded: it is {kind}"
        return f"cannot be decoded: {_text_of(error)}; if others play it, convert it: ffmpeg -i FILE FILE.wav"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _probe_by_pyav(path: Path) -> Recording:
    rate_hz, samples = measure_video(path)
    return Recording(path=path, rate_hz=rate_hz, samples=samples, seekable=False, video=True)


def _probe_sound(path: Path, contents: Contents) -> Recording:
    """Measures a file that libsndfile opens."""
    kinds: list[tuple[int, int]] = []
    samples, seekable = 0, False
    with path.open("rb") as handle:
        for part in contents.parts or (None,):
            with _sound_file(handle, part) as file:
                exact = file.format in EXACT_FORMATS and 0 < file.frames < UNKNOWN_TOTAL and not contents.counted
                seekable = exact and soundfile.SoundFile.seekable(file)
                try:
                    samples += file.frames if exact else _count_samples(file)
                except soundfile.SoundFileError as error:
                    raise RecordingError(contents.unproven or f"cannot be decoded: {_text_of(error)}") from error
                kinds.append((file.channels, file.samplerate))
    for channels, rate_hz in kinds:
        if (channels, rate_hz) != kinds[0]:
            raise RecordingError(
                f"changes from {kinds[0][0]} channels at {kinds[0][1]} Hz to {channels} at {rate_hz} Hz"
            )
    if samples < contents.samples - MP3_TRIMMED:
        return replace(_probe_by_pyav(path), note=contents.note)
    if not samples:
        raise RecordingError("no samples")
    return Recording(
        path=path,
        rate_hz=kinds[0][1],
        samples=samples,
        seekable=seekable,
        parts=contents.parts,
        note=contents.note,
    )


def _count_samples(file: soundfile.SoundFile) -> int:
    samples = 0
    while block := len(_read(file, BLOCK)):
        samples += block
    return samples


@contextmanager
def _sound_file(handle: BinaryIO, part: Part | None) -> Iterator[soundfile.SoundFile]:
    """Opens a file, or a part of it, by its handle: given a name, soundfile would trust the extension."""
    if part is not None:
        with _Sequential(PartFile(handle, part)) as file:
            yield file
        return
    handle.seek(0)
    with _Sequential(handle.fileno(), closefd=False) as file:
        yield file


def _text_of(error: Exception) -> str:
    return str(error).split(": ")[-1].rstrip(".") or "the decoder gives no reason"


@contextmanager
def _decoding_errors() -> Iterator[None]:
    """Converts errors of soundfile, PyAV and the file system to a RecordingError."""
    try:
        yield
    except soundfile.SoundFileError as error:
        raise RecordingError(f"cannot be decoded: {_text_of(error)}") from error
    except (ContainerError, VideoError) as error:
        raise RecordingError(str(error)) from error
    except OSError as error:
        raise RecordingError(f"cannot be read: {error.strerror or error}") from error
