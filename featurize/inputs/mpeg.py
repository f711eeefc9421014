"""MPEG audio (MP3): its frames, counted by walking from header to header.

Sources: ISO/IEC 11172-3 and 13818-3 (frames); the Xing, Info and VBRI headers that encoders put into a first frame of
silence. libsndfile believes such a header, or guesses the length from the first bit rate, and reads no sample behind
it. Where that is wrong, it gets the frames alone with a Xing header that states their number. Tags between and behind
the frames, such as cover art, are no sound.
"""

from dataclasses import dataclass, field
from mmap import mmap
from typing import NamedTuple

from featurize.inputs.pieces import ContainerError, Contents, Part, Range

KBPS_1 = (
    (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),  # layer I
    (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),  # layer II
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # layer III
)
KBPS_2 = (
    (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
RATES_HZ = (44_100, 48_000, 32_000)  # of MPEG-1; MPEG-2 halves and MPEG-2.5 quarters them
SAME = 0xFFFE0C00  # sync word, version, layer and rate, which all frames of a stream share
LONGEST = 2881  # bytes of a frame
LEADING = 1 << 16  # bytes searched for the first frame
FRAMES_IN_A_ROW = 3  # at least, for bytes to be taken as frames after others that are not
SLACK = 2  # frames; encoders disagree on whether the header frame counts


class Header(NamedTuple):
    """One frame: its bytes, its samples per channel, its rate."""

    size: int
    samples: int
    rate_hz: int


@dataclass(kw_only=True)
class Frames:
    """The frames of a file.

    Attributes:
        first: header of the first frame.
        ranges: bytes of consecutive frames.
        headers: bytes of header frames (Xing, Info), which are not in `ranges`; several if files were joined.
        count: number of whole frames in `ranges`.
        cut: bytes that the last frame lacks.
    """

    first: int
    ranges: list[Range] = field(default_factory=list)
    headers: list[Range] = field(default_factory=list)
    count: int = 0
    cut: int = 0


def mpeg_contents(data: mmap) -> Contents | None:
    """Reads the frames of an MP3; None if it is no MP3 that can be walked, such as one of a free bit rate.

    Raises:
        ContainerError: if it holds fewer frames and bytes than its header states.
    """
    frames = walk(data)
    if frames is None or frames.count < 1:
        return None
    header = parse_header(frames.first)
    assert header is not None
    stated_frames, stated_bytes = _stated(data, frames)
    if stated_frames is None:
        note = f"its last frame lacks {frames.cut} bytes, perhaps cut" if frames.cut else ""
        return Contents(parts=(_clean(frames),), note=note, samples=frames.count * header.samples)
    sounding, samples = frames.count, frames.count * header.samples
    if sounding < stated_frames:
        present = sum(stop - begin for begin, stop in (*frames.headers, *frames.ranges))
        if stated_bytes is None and sounding < stated_frames - SLACK:
            raise ContainerError(f"truncated: {sounding} of {stated_frames} frames of sound")
        if stated_bytes is not None and present < stated_bytes:
            raise ContainerError(f"truncated: {present} of {stated_bytes} bytes of sound")
    if abs(sounding - stated_frames) <= SLACK and len(frames.ranges) == 1:
        return Contents(samples=samples)
    if sounding <= stated_frames:
        note = f"its header states {stated_frames} frames, {sounding} are there" if sounding < stated_frames else ""
    else:
        more = sounding - stated_frames
        note = f"{more} frames of sound behind the {stated_frames} that its header states are read as well"
    return Contents(parts=(_clean(frames),), note=note, samples=samples)


def walk(data: mmap) -> Frames | None:
    """Finds all frames, over tags and other bytes between them; None without frames near the start."""
    size = len(data)
    position = _first(data, behind_tags(data))
    if position < 0:
        return None
    first = int.from_bytes(data[position : position + 4], "big")
    found = Frames(first=first)
    begin = position
    known: dict[bytes, int] = {}
    while position + 4 <= size:
        word = data[position : position + 4]
        length = known.get(word)
        if length is None:
            header = parse_header(int.from_bytes(word, "big"))
            same = header is not None and int.from_bytes(word, "big") & SAME == first & SAME
            length = known[word] = header.size if header is not None and same else 0
        if length and position + length <= size:
            if _is_header(data, position, first):
                if position > begin:
                    found.ranges.append((begin, position))
                begin = position + length
                found.headers.append((position, begin))
            else:
                found.count += 1
            position += length
            continue
        if length:  # the last frame is cut
            found.cut = position + length - size
            break
        if position > begin:
            found.ranges.append((begin, position))
        begin = position = _next_run(data, position, first)
        if position < 0:
            begin = position = size
    if position > begin:
        found.ranges.append((begin, position))
    return found if found.ranges else None


def parse_header(word: int) -> Header | None:
    """Reads the four bytes of a frame header; None if they are not one, or of a free bit rate."""
    version, layer, kbps, rate = word >> 19 & 3, word >> 17 & 3, word >> 12 & 15, word >> 10 & 3
    if word >> 21 != 0x7FF or version == 1 or layer == 0 or kbps in {0, 15} or rate == 3:
        return None
    row = 3 - layer  # 0 for layer I
    rate_hz = RATES_HZ[rate] >> {3: 0, 2: 1, 0: 2}[version]
    bits = (KBPS_1 if version == 3 else KBPS_2)[row][kbps - 1] * 1000
    padding = word >> 9 & 1
    if row == 0:
        return Header((12 * bits // rate_hz + padding) * 4, 384, rate_hz)
    samples = 576 if row == 2 and version != 3 else 1152
    return Header(samples // 8 * bits // rate_hz + padding, samples, rate_hz)


def _side_bytes(word: int) -> int:
    mono = word >> 6 & 3 == 3
    return (17 if mono else 32) if word >> 19 & 3 == 3 else (9 if mono else 17)


def _stated(data: mmap, frames: Frames) -> tuple[int | None, int | None]:
    """Reads the numbers of frames and of bytes that a Xing, Info or VBRI header states; None for each not stated."""
    start = min(frames.headers[:1] + frames.ranges[:1])[0]
    frame = data[start : start + LONGEST]
    tag = 4 + _side_bytes(frames.first)
    if frame[tag : tag + 4] in {b"Xing", b"Info"}:
        flags = int.from_bytes(frame[tag + 4 : tag + 8], "big")
        values = [int.from_bytes(frame[at : at + 4], "big") for at in range(tag + 8, tag + 16, 4)]
        count = values.pop(0) if flags & 1 else None
        return count or None, (values[0] or None) if flags & 2 else None
    if frame[36:40] == b"VBRI":
        size, count = int.from_bytes(frame[46:50], "big"), int.from_bytes(frame[50:54], "big")
        return count or None, size or None
    return None, None


def _clean(frames: Frames) -> Part:
    """Returns the frames alone."""
    return Part(pieces=tuple(frames.ranges), stretch=frames.count * LONGEST)


def _is_header(data: mmap, position: int, word: int) -> bool:
    tag = position + 4 + _side_bytes(word)
    return data[tag : tag + 4] in {b"Xing", b"Info"}


def behind_tags(data: mmap, position: int = 0) -> int:
    """Returns the position behind ID3 tags and the zeros that may pad them."""
    while data[position : position + 3] == b"ID3" and len(data) >= position + 10:
        head = data[position : position + 10]
        length = sum((value & 127) << shift for value, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        position += 10 + length + (10 if head[5] & 16 else 0)
    return position


def _first(data: mmap, position: int) -> int:
    """Returns the position of the first frame that others follow, or -1."""
    for start in range(position, min(position + LEADING, len(data) - 4)):
        if data[start] == 0xFF and _run_at(data, start):
            return start
    return -1


def _run_at(data: mmap, position: int, first: int | None = None) -> bool:
    """Returns True if some frames, or the last ones, follow each other from a position on."""
    for number in range(FRAMES_IN_A_ROW):
        if position == len(data) and number:
            return True
        word = int.from_bytes(data[position : position + 4], "big")
        header = parse_header(word)
        first = word if first is None else first
        if header is None or word & SAME != first & SAME:
            return number > 0 and data[position : position + 3] in {b"TAG", b"APE", b"ID3"}
        position += header.size
        if position > len(data):
            return number > 0
    return True


def _next_run(data: mmap, position: int, first: int) -> int:
    """Returns the position of the next frames behind bytes that are none, or -1."""
    skipped = behind_tags(data, position)
    while 0 <= skipped < len(data):
        if _run_at(data, skipped, first):
            return skipped
        skipped = data.find(b"\xff", skipped + 1)
    return -1
