"""Sound that PyAV decodes: the audio track of videos, and files that libsndfile cannot read (AAC, AMR, WMA, WavPack).

The length is counted by decoding: the headers of AAC state the samples before encoding, not those after decoding. The
demuxer is selected by the first bytes, so that no other file is mistaken for one of these, and none is a playlist that
names other files.
"""

from collections.abc import Callable, Iterator, Mapping
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
# The same for sounds, tried where libsndfile fails; AAC, AC-3 and MPEG streams have no mark of four bytes.
SOUNDS: Mapping[tuple[bytes, int], str] = {
    (b"#!AMR", 0): "amr",
    (b"0&\xb2u", 0): "asf",
    (b"wvpk", 0): "wv",
    (b"MAC ", 0): "ape",
    (b"TTA1", 0): "tta",
    (b"tBaK", 0): "tak",
    (b"DSD ", 0): "dsf",
    (b"FLV\x01", 0): "flv",
    (b".RMF", 0): "rm",
    (b"AVI ", 8): "avi",
    (b"WAVE", 8): "wav",
    (b"AIFF", 8): "aiff",
    (b"AIFC", 8): "aiff",
    (b"caff", 0): "caf",
    (b".snd", 0): "au",
    (b"OggS", 0): "ogg",
    (b"fLaC", 0): "flac",
    (b"\0\0\x01\xba", 0): "mpeg",
    (b"\x0bw", 0): "ac3",
    (b"\xff\xf0", 0): "aac",
    (b"\xff\xf1", 0): "aac",
    (b"\xff\xf8", 0): "aac",
    (b"\xff\xf9", 0): "aac",
    (b"\xff", 0): "mp3",
}
TS_PACKET = 188  # bytes of a packet of an MPEG transport stream, each of which begins with G
ASF_PROPERTIES = b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65"
BOXES = frozenset({b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"mfra", b"sidx", b"wide", b"free", b"skip", b"uuid"})
SEGMENT = b"\x18\x53\x80\x67"  # element of a Matroska file that holds all others except the header
HEAD_BYTES = 4096  # far beyond the EBML header, after which the segment starts

Sound = npt.NDArray[np.float32]


class VideoError(MmerError):
    """The audio track of a video cannot be read."""


def is_video(path: Path) -> bool:
    """Returns True if the file is a video, by its first bytes; False if it is unreadable."""
    try:
        with path.open("rb") as file:
            return bool(_video_demuxer(file.read(8)))
    except OSError:
        return False


def is_other_sound(path: Path) -> bool:
    """Returns True if PyAV has a demuxer for a file that is no video; False if it is unreadable."""
    try:
        with path.open("rb") as file:
            return bool(_sound_demuxer(file))
    except OSError:
        return False


def measure_video(path: Path) -> tuple[int, int]:
    """Returns the rate in Hz and the number of samples per channel, counted by decoding.

    Raises:
        VideoError: if the file is truncated or damaged, or has no audio track.
        OSError: if the file cannot be read.
    """
    first_hz, samples = 0, 0
    for rate_hz, block in _blocks(path):
        first_hz = first_hz or rate_hz
        samples += len(block)
    stated = _stated_samples(path)
    if samples < stated:
        raise VideoError(f"truncated: {samples} of {stated} samples of sound")
    if not samples:
        raise VideoError("no samples")
    return first_hz, samples


def video_blocks(path: Path, start: int, stop: int) -> Iterator[Sound]:
    """Yields the samples ``[start, stop)`` of an audio track, ``(samples, channels)``, in short blocks.

    Raises:
        VideoError: if the file is truncated or damaged, or has no audio track.
        OSError: if the file cannot be read.
    """
    position = 0
    for _, block in _blocks(path):
        piece = block[max(0, start - position) : max(0, stop - position)]
        if len(piece):
            yield piece
        position += len(block)
        if position >= stop:
            break


def decode_video(path: Path, start: int, stop: int) -> Sound:
    """Loads the samples ``[start, stop)`` of a video's audio track.

    Returns:
        float32 ``(samples, channels)``; shorter if the track ends before `stop`.

    Raises:
        VideoError: if the file is truncated or damaged, or has no audio track.
        OSError: if the file cannot be read.
    """
    pieces = list(video_blocks(path, start, stop))
    return np.concatenate(pieces or [np.empty((0, 1), np.float32)])


def _video_demuxer(head: bytes) -> str:
    return next((name for (mark, offset), name in SIGNATURES.items() if head[offset : offset + 4] == mark), "")


def _sound_demuxer(file: BinaryIO) -> str:
    """Returns the demuxer of a sound, by its first bytes behind tags; empty if there is none."""
    file.seek(0)
    head = file.read(2 * TS_PACKET + 1)
    if head[:1] == head[TS_PACKET : TS_PACKET + 1] == head[2 * TS_PACKET :] == b"G":
        return "mpegts"
    if head[:3] == b"ID3":
        length = sum((value & 127) << shift for value, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
        file.seek(10 + length + (10 if head[5:6] and head[5] & 16 else 0))
        head = file.read(16)
    for (mark, offset), name in SOUNDS.items():
        if head[offset : offset + len(mark)] == mark:
            return name
    return ""


def _blocks(path: Path) -> Iterator[tuple[int, Sound]]:
    """Yields the rate in Hz and the next ``(samples, channels)`` of the first audio track."""
    import av  # here: it loads a hundred libraries

    with path.open("rb") as file:
        demuxer = _video_demuxer(file.read(8)) or _sound_demuxer(file)
        _check_complete(file, path.stat().st_size, demuxer)
        try:
            # By handle: FFmpeg may interpret a name as an address.
            with av.open(file, "r", format=demuxer, metadata_errors="replace") as container:
                if not container.streams.audio:
                    raise VideoError("no sound in this video" if demuxer in set(SIGNATURES.values()) else "no samples")
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
    ends = _box_ends(file, size) if demuxer == "mov" else {b"": ENDS[demuxer](file)} if demuxer in ENDS else {}
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


def _riff_end(file: BinaryIO) -> int:
    """Reads the end of the last RIFF of an AVI; those of more than a gigabyte have several."""
    file.seek(0)
    end = 0
    while (head := file.read(8))[:4] == b"RIFF":
        length = int.from_bytes(head[4:8], "little")
        if not length:  # not written to its end, or streamed
            return end
        end = file.tell() + length
        file.seek(end + (length & 1))
    return end


def _asf_end(file: BinaryIO) -> int:
    """Reads the size of a WMA or ASF file from its header; 0 if it was streamed."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    start = head.find(ASF_PROPERTIES)
    if start < 0 or len(head) < start + 92 or head[start + 88] & 1:  # a broadcast states no size
        return 0
    return int.from_bytes(head[start + 40 : start + 48], "little")


ENDS: Mapping[str, Callable[[BinaryIO], int]] = {"matroska": _segment_end, "avi": _riff_end, "asf": _asf_end}


def _stated_samples(path: Path) -> int:
    """Reads the number of samples that the header of a lossless file states exactly; 0 for others."""
    with path.open("rb") as file:
        head = file.read(32)
    if head[:4] == b"wvpk":
        samples = int.from_bytes(head[12:16], "little")
        return 0 if samples == 0xFFFFFFFF else samples
    return int.from_bytes(head[14:18], "little") if head[:4] == b"TTA1" else 0
