"""Sound of video files by PyAV, an extra: MP4 and its relatives, Matroska, WebM.

How long the sound is, is counted by decoding: the headers of AAC tell what went into the encoder, not what comes out.
The demuxer is chosen by the first bytes, so that nothing else is ever taken for a video.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError

# Four bytes and where they stand -> the demuxer. ISO/IEC 14496-12 starts with a box of type ftyp, older QuickTime files
# with one of the others; Matroska and WebM start with an EBML header (RFC 8794).
SIGNATURES: Mapping[tuple[bytes, int], str] = {
    (b"ftyp", 4): "mov",
    (b"moov", 4): "mov",
    (b"mdat", 4): "mov",
    (b"wide", 4): "mov",
    (b"\x1aE\xdf\xa3", 0): "matroska",
}
BOXES = frozenset({b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"wide", b"free", b"skip", b"uuid"})
SEGMENT = b"\x18\x53\x80\x67"  # the element of a Matroska file that holds all others but the header
HEAD_BYTES = 4096  # far beyond the EBML header, after which the segment starts

Sound = npt.NDArray[np.float32]


class VideoError(MmerError):
    """The sound of one video cannot be had."""


def is_video(path: Path) -> bool:
    """Tells by its first bytes whether a file is for PyAV; of one that cannot be read, that it is not."""
    try:
        with path.open("rb") as file:
            return bool(_demuxer(file.read(8)))
    except OSError:
        return False


def measure_video(path: Path) -> tuple[int, int]:
    """Counts the sound of a video: its rate in Hz and its samples per channel.

    Raises:
        VideoError: if it is truncated or damaged, holds no sound, or PyAV is not installed.
        OSError: if it cannot be read.
    """
    counted = [(rate_hz, len(block)) for rate_hz, block in _blocks(path)]
    if not counted:
        raise VideoError("no samples")
    return counted[0][0], sum(samples for _, samples in counted)


def decode_video(path: Path, start: int, stop: int) -> Sound:
    """Decodes the samples ``[start, stop)`` of a video, or what there is of them: ``(samples, channels)``.

    Raises:
        VideoError: if it is truncated or damaged, holds no sound, or PyAV is not installed.
        OSError: if it cannot be read.
    """
    parts, position = [np.empty((0, 1), np.float32)], 0
    for _, block in _blocks(path):
        parts.append(block[max(0, start - position) : max(0, stop - position)])
        position += len(block)
        if position >= stop:
            break
    return np.concatenate(parts[1:] or parts)


def _demuxer(head: bytes) -> str:
    return next((name for (mark, at), name in SIGNATURES.items() if head[at : at + 4] == mark), "")


def _blocks(path: Path) -> Iterator[tuple[int, Sound]]:
    """Decodes the first sound track from its start, block by block, with the rate in Hz."""
    try:
        import av  # when it is needed: it is an extra, and loads a hundred libraries
    except ImportError as error:
        raise VideoError("needs PyAV to be decoded: pip install av") from error
    with path.open("rb") as file:
        demuxer = _demuxer(file.read(8))
        _refuse_truncated(file, path.stat().st_size, demuxer)
        try:
            # by its handle: of a name, FFmpeg may believe that it is an address
            with av.open(file, "r", format=demuxer, metadata_errors="replace") as container:
                if not container.streams.audio:
                    raise VideoError("no sound in this video")
                yield from _converted(container.decode(container.streams.audio[0]))
        except av.FFmpegError as error:
            raise VideoError(f"cannot be decoded: {error.strerror}") from error


def _converted(frames: Iterator[Any]) -> Iterator[tuple[int, Sound]]:
    """Gives the samples of every frame, all of one rate and number of channels."""
    first: tuple[int, int] | None = None
    for frame in frames:
        kind = (frame.sample_rate, frame.layout.nb_channels)
        first = first or kind
        if kind != first:
            raise VideoError(f"turns from {first[1]} channels at {first[0]} Hz to {kind[1]} at {kind[0]} Hz midway")
        values = frame.to_ndarray()  # (channels, samples) if planar, else (1, samples * channels)
        yield kind[0], _floats(values.T if frame.format.is_planar else values.reshape(-1, kind[1]))


def _floats(values: npt.NDArray[Any]) -> Sound:
    """Scales integers to full scale 1, as libsndfile does; 8-bit ones are unsigned."""
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    middle = 128 if values.dtype.kind == "u" else 0
    sound: Sound = ((values.astype(np.float64) - middle) / 2 ** (8 * values.dtype.itemsize - 1)).astype(np.float32)
    return sound


def _refuse_truncated(file: BinaryIO, size: int, demuxer: str) -> None:
    """Compares where the file says that it ends with where it does; FFmpeg plays what is there without a word.

    Raises:
        VideoError: if bytes are missing, or the index without which an MP4 cannot be played.
    """
    ends = _box_ends(file, size) if demuxer == "mov" else {SEGMENT: _segment_end(file)}
    announced = max(ends.values(), default=0)
    if announced > size:
        raise VideoError(f"truncated: {size} of {announced} bytes")
    if demuxer == "mov" and b"moov" not in ends:
        raise VideoError("cannot be decoded: no index (moov) in it; its writing was never finished")
    file.seek(0)


def _box_ends(file: BinaryIO, size: int) -> dict[bytes, int]:
    """Walks the top-level boxes of an MP4: the type of each and where it ends."""
    ends: dict[bytes, int] = {}
    end = 0
    while end < size:
        file.seek(end)
        header = file.read(16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:], "big")
        if kind not in BOXES:  # something was appended to the file: no concern of ours
            break
        end = end + length if length >= 8 else size  # a length of 0 means: to the end of the file
        ends[kind] = end
    return ends


def _segment_end(file: BinaryIO) -> int:
    """Finds where the segment of a Matroska file ends; 0 if it does not say, as of a live recording."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    start = head.find(SEGMENT) + len(SEGMENT)
    if start < len(SEGMENT) or start >= len(head) or not head[start]:
        return 0
    width = 9 - head[start].bit_length()  # bytes of the length: one more than the zeros before its first set bit
    unknown = (1 << 7 * width) - 1
    length = int.from_bytes(head[start : start + width], "big") & unknown
    return 0 if length == unknown else start + width + length
