"""FLAC: the length that its last frame shows, whatever its header states.

Source: RFC 9639. The header may state no length (streamed), a wrong one, or that of the first of several joined files.
Each frame holds its number and a checksum, so the last one proves where the sound ends.
"""

from mmap import mmap
from typing import NamedTuple

from featurize.inputs.pieces import ContainerError, Contents, Part

MARK = b"fLaC"
STREAMINFO = 34  # bytes of the first metadata block
LAST_FRAMES = 1 << 17  # bytes searched for the last frame if the header does not state how long frames are
SIZES = {1: 192, **{code: 576 << code - 2 for code in range(2, 6)}, **{code: 256 << code - 8 for code in range(8, 16)}}
ID3V1 = 128  # bytes of a tag at the end
FOOTER = 2  # bytes of the checksum at the end of a frame
TRIED = 16  # possible headers whose frame is checked as a whole; nearly all are true


class Stream(NamedTuple):
    """One FLAC stream in a file.

    Attributes:
        start: offset of the mark.
        stop: end of its bytes.
        block: samples of a frame; 0 if they vary.
        longest: bytes of the longest frame; 0 if not stated.
        total: samples per channel; 0 if not stated.
    """

    start: int
    stop: int
    block: int
    longest: int
    total: int


class Frame(NamedTuple):
    """A possible frame: its offset, its first sample and the sample behind it."""

    position: int
    first: int
    end: int


def flac_contents(data: mmap, start: int) -> Contents | None:
    """Reads the length of a FLAC file from its last frames.

    Args:
        data: the file.
        start: offset of the mark, behind tags.

    Raises:
        ContainerError: if it ends before the sound that its header states.
    """
    streams = _streams(data, start)
    if not streams:
        return None
    ends = [last_sample(data, stream) for stream in streams]
    for stream, end in zip(streams, ends, strict=True):
        begun = _candidates(data, stream, stream.stop)[:1]
        reached = end if end is not None else begun[0].first if begun and begun[0].end < stream.total else None
        if stream.total and reached is not None and reached < stream.total:
            raise ContainerError(f"truncated: {reached} of {stream.total} samples of sound")
        if stream.total and not begun:
            raise ContainerError(f"truncated: none of its last frames is there, of {stream.total} samples of sound")
    if len(streams) == 1 and streams[0].total and ends[0] in {None, streams[0].total}:
        unproven = f"truncated: the last frame of {streams[0].total} samples of sound is cut or damaged"
        return Contents(counted=True, unproven=unproven) if ends[0] is None else None
    parts = tuple(_part(data, stream, end) for stream, end in zip(streams, ends, strict=True))
    if len(streams) > 1:
        return Contents(parts=parts, note=f"{len(streams)} FLAC streams joined: all are read", counted=True)
    total, end = streams[0].total, ends[0]
    if end is None:
        return Contents(parts=parts, note="its header states no length, and its last frame is cut", counted=True)
    more = f"{end - total} samples of sound behind the {total} that its header states are read as well"
    return Contents(parts=parts, note=more if total else "")


def last_sample(data: mmap, stream: Stream) -> int | None:
    """Returns the number of samples up to the end of the last frame; None if no frame ends where the stream does."""
    stop = stream.stop
    tail = data[max(stream.start, stop - LAST_FRAMES) : stop]
    tagged = [stop - ID3V1] if data[max(0, stop - ID3V1) : stop][:3] == b"TAG" else []
    zeros = len(tail) - len(tail.rstrip(b"\0"))
    padded = [stop - zeros + kept for kept in range(3)] if zeros > FOOTER else []
    for end in [stop, *tagged, *padded]:
        for frame in _candidates(data, stream, end)[:TRIED]:
            if _crc16(data[frame.position : end - FOOTER]) == int.from_bytes(data[end - FOOTER : end], "big"):
                return frame.end
    return None


def _streams(data: mmap, start: int) -> list[Stream]:
    """Lists the streams of a file: one, or several if files were joined."""
    starts, found = [start], start
    while (found := data.find(MARK, found + len(MARK))) >= 0:
        if data[found + 4 : found + 8] in {b"\0\0\0\x22", b"\x80\0\0\x22"}:  # STREAMINFO follows
            starts.append(found)
    streams = []
    for begin, stop in zip(starts, [*starts[1:], len(data)], strict=True):
        info = data[begin + 8 : begin + 8 + STREAMINFO]
        if len(info) < STREAMINFO:
            continue
        least, most = int.from_bytes(info[:2], "big"), int.from_bytes(info[2:4], "big")
        total = int.from_bytes(info[13:18], "big") & (1 << 36) - 1
        streams.append(Stream(begin, stop, least if least == most else 0, int.from_bytes(info[7:10], "big"), total))
    return streams


def _candidates(data: mmap, stream: Stream, stop: int) -> list[Frame]:
    """Lists possible frame headers near the end, last first."""
    begin = max(stream.start + 8 + STREAMINFO, stop - max(LAST_FRAMES, stream.longest * 2))
    tail = data[begin:stop]
    found = []
    position = tail.find(b"\xff")
    while position >= 0:
        span = _samples(tail[position : position + 16], stream.block)
        if span:
            found.append(Frame(begin + position, *span))
        position = tail.find(b"\xff", position + 1)
    return found[::-1]


def _samples(head: bytes, block: int) -> tuple[int, int] | None:
    """Returns the samples [first, end) of the frame with this header; None if the bytes are no frame header."""
    if len(head) < 6 or head[1] & 0xFE != 0xF8 or head[3] & 1 or head[2] >> 4 == 0 or head[2] & 15 == 15:
        return None
    first = head[4]
    width = 1 if first < 0x80 else 8 - (first ^ 0xFF).bit_length()  # of a number written like UTF-8
    if first >= 0x80 and not 2 <= width <= 7:
        return None
    number = first if width == 1 else first & (1 << 7 - width) - 1
    for byte in head[5 : 4 + width]:
        if byte >> 6 != 2:
            return None
        number = number << 6 | byte & 63
    position, size, rate = 4 + width, head[2] >> 4, head[2] & 15
    if size in {6, 7}:
        samples = int.from_bytes(head[position : position + size - 5], "big") + 1
        position += size - 5
    else:
        samples = SIZES[size]
    position += {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if position >= len(head) or _crc8(head[:position]) != head[position]:
        return None
    start = number if head[1] & 1 else number * (block or samples)
    return start, start + samples


def _part(data: mmap, stream: Stream, end: int | None) -> Part:
    """Returns the bytes of a stream, with the length that its last frame shows."""
    begun = _candidates(data, stream, stream.stop)[:1]
    stop = stream.stop
    if end is None and begun and not stream.total:  # without the frame that is cut
        stop, end = begun[0].position, begun[0].first
    if end is None or end == stream.total:
        return Part(pieces=((stream.start, stream.stop),))
    head = bytearray(data[stream.start : stream.start + 26])
    head[21:26] = ((head[21] & 0xF0) << 32 | end).to_bytes(5, "big")
    return Part(pieces=(bytes(head), (stream.start + 26, stop)))


def _table(polynomial: int, bits: int) -> list[int]:
    table = []
    for value in range(256):
        rest = value << bits - 8
        for _ in range(8):
            rest = rest << 1 ^ (polynomial if rest >> bits - 1 & 1 else 0)
            rest &= (1 << bits) - 1
        table.append(rest)
    return table


CRC8, CRC16 = _table(0x07, 8), _table(0x8005, 16)


def _crc8(data: bytes) -> int:
    rest = 0
    for byte in data:
        rest = CRC8[rest ^ byte]
    return rest


def _crc16(data: bytes) -> int:
    rest = 0
    for byte in data:
        rest = (rest << 8 & 0xFF00) ^ CRC16[rest >> 8 ^ byte]
    return rest
