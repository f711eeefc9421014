"""Audio track of video files (MP4 and related formats, Matroska, WebM), decoded by PyAV, an optional dependency.

The length is counted by decoding: the headers of AAC state the samples before encoding, not those after decoding. The
demuxer is selected by the first bytes, so that no other file is mistaken for a video.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError

# Four bytes and their offset -> the demuxer. ISO/IEC 14496-12 files start with a box of type ftyp, older QuickTime
# files with another of these types; Matroska and WebM start with an EBML header (RFC 8794).
SIGNATURES: Mapping[tuple[bytes, int], str] = {
    (b"ftyp", 4): "mov",
    (b"moov", 4): "mov",
    (b"mdat", 4): "mov",
    (b"wide", 4): "mov",
    (b"\x1aE\xdf\xa3", 0): "matroska",
}
BOXES = frozenset({b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"wide", b"free", b"skip", b"uuid"})
SEGMENT = b"\x18\x53\x80\x67"  # element of a Matroska file that holds all others except the header
HEAD_BYTES = 4096  # far beyond the EBML header, after which the segment starts

Sound = npt.NDArray[np.float32]


class VideoError(MmerError):
    """The audio track of a video cannot be read."""


def is_video(path: Path) -> bool:
    """Returns True if PyAV decodes the file, by its first bytes; False if it is unreadable."""
    try:
        with path.open("rb") as file:
            return bool(_demuxer(file.read(8)))
    except OSError:
        return False


def measure_video(path: Path) -> tuple[int, int]:
    """Returns the rate in Hz and the number of samples per channel, counted by decoding.

    Raises:
        VideoError: if the file is truncated or damaged, has no audio track, or PyAV is not installed.
        OSError: if the file cannot be read.
    """
    counted = [(rate_hz, len(block)) for rate_hz, block in _blocks(path)]
    if not counted:
        raise VideoError("no samples")
    return counted[0][0], sum(samples for _, samples in counted)


def decode_video(path: Path, start: int, stop: int) -> Sound:
    """Loads the samples ``[start, stop)`` of a video's audio track.

    Returns:
        float32 ``(samples, channels)``; shorter if the track ends before `stop`.

    Raises:
        VideoError: if the file is truncated or damaged, has no audio track, or PyAV is not installed.
        OSError: if the file cannot be read.
    """
    pieces, position = [np.empty((0, 1), np.float32)], 0
    for _, block in _blocks(path):
        pieces.append(block[max(0, start - position) : max(0, stop - position)])
        position += len(block)
        if position >= stop:
            break
    return np.concatenate(pieces[1:] or pieces)


def _demuxer(head: bytes) -> str:
    return next((name for (mark, offset), name in SIGNATURES.items() if head[offset : offset + 4] == mark), "")


def _blocks(path: Path) -> Iterator[tuple[int, Sound]]:
    """Yields the rate in Hz and the next ``(samples, channels)`` of the first audio track."""
    try:
        import av  # here: it is optional and loads a hundred libraries
    except ImportError as error:
        raise VideoError("needs PyAV to be decoded: pip install av") from error
    with path.open("rb") as file:
        demuxer = _demuxer(file.read(8))
        _check_complete(file, path.stat().st_size, demuxer)
        try:
            # By handle: FFmpeg may interpret a name as an address.
            with av.open(file, "r", format=demuxer, metadata_errors="replace") as container:
                if not container.streams.audio:
                    raise VideoError("no sound in this video")
                yield from _converted(container.decode(container.streams.audio[0]))
        except av.FFmpegError as error:
            raise VideoError(f"cannot be decoded: {error.strerror}") from error


def _converted(frames: Iterator[Any]) -> Iterator[tuple[int, Sound]]:
    """Yields the rate and the samples of every frame.

    Raises:
        VideoError: if a frame has another rate or number of channels than the first.
    """
    first: tuple[int, int] | None = None
    for frame in frames:
        kind = (frame.sample_rate, frame.layout.nb_channels)
        first = first or kind
        if kind != first:
            raise VideoError(f"changes from {first[1]} channels at {first[0]} Hz to {kind[1]} at {kind[0]} Hz")
        values = frame.to_ndarray()  # (channels, samples) if planar, else (1, samples * channels)
        yield kind[0], _floats(values.T if frame.format.is_planar else values.reshape(-1, kind[1]))


def _floats(values: npt.NDArray[Any]) -> Sound:
    """Converts integers to full scale 1, as libsndfile does; 8-bit integers are unsigned."""
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    middle = 128 if values.dtype.kind == "u" else 0
    sound: Sound = ((values.astype(np.float64) - middle) / 2 ** (8 * values.dtype.itemsize - 1)).astype(np.float32)
    return sound


def _check_complete(file: BinaryIO, size: int, demuxer: str) -> None:
    """Checks that the file is as long as it states; FFmpeg decodes a truncated file silently.

    Raises:
        VideoError: if bytes are missing, or the index (moov) that decoding an MP4 requires.
    """
    ends = _box_ends(file, size) if demuxer == "mov" else {SEGMENT: _segment_end(file)}
    announced = max(ends.values(), default=0)
    if announced > size:
        raise VideoError(f"truncated: {size} of {announced} bytes")
    if demuxer == "mov" and b"moov" not in ends:
        raise VideoError("cannot be decoded: no index (moov) found; the file was not written to its end")
    file.seek(0)


def _box_ends(file: BinaryIO, size: int) -> dict[bytes, int]:
    """Reads the top-level boxes of an MP4: type -> offset of the end in bytes."""
    ends: dict[bytes, int] = {}
    end = 0
    while end < size:
        file.seek(end)
        header = file.read(16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:], "big")
        if kind not in BOXES:  # appended data that is not part of the video
            break
        end = end + length if length >= 8 else size  # a length of 0 means: to the end of the file
        ends[kind] = end
    return ends


def _segment_end(file: BinaryIO) -> int:
    """Reads the end of a Matroska file's segment; 0 if not stated, as in live recordings."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    start = head.find(SEGMENT) + len(SEGMENT)
    if start < len(SEGMENT) or start >= len(head) or not head[start]:
        return 0
    width = 9 - head[start].bit_length()  # bytes of the length: one more than the zeros before its first set bit
    unknown = (1 << 7 * width) - 1
    length = int.from_bytes(head[start : start + width], "big") & unknown
    return 0 if length == unknown else start + width + length
