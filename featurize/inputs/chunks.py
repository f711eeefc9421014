"""Containers whose headers state the bytes of their sound: WAV, RF64, W64, AIFF, AU, CAF, NIST and others.

Sources: RIFF and WAVE (Microsoft, 1991), RF64 (EBU Tech 3306), Sony Wave64, AIFF-C (Apple, 1991), the headers of Sun's
AU, Apple's CAF, NIST SPHERE, Amiga's 8SVX, AVR, VOC, SDS and the Psion WVE. libsndfile reads the shorter of the stated
and the present sound without a word.
"""

from collections.abc import Callable, Iterator, Mapping
from mmap import mmap
from typing import Literal, NamedTuple

from featurize.inputs.pieces import ContainerError, Contents, Part, Range

STREAMED = (1 << 31) - (1 << 12)  # sizes from here on are placeholders of programs that write to a pipe
W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0O\x8e\xdb\x8a"
W64_RIFF = b"riff.\x91\xcf\x11\xa5\xd6(\xdb\x04\xc1\x00\x00"
AGAIN = frozenset({b"RIFF", b"RIFX", b"RF64", b"FORM", b"data", b"SSND"})  # more sound, where only other chunks belong


class Sound(NamedTuple):
    """The sound of a file as its header states it.

    Attributes:
        start: offset of its first byte.
        size: stated bytes; None if the header states that they are unknown.
        size_field: bytes of the header that hold the size.
        filled: what `size_field` holds if the size is that of all bytes up to the end, by their number.
    """

    start: int
    size: int | None
    size_field: Range = (0, 0)
    filled: Callable[[int], bytes] | None = None


def chunk_contents(data: mmap) -> Contents | None:
    """Compares the sound that a header states with the file; None if the format is not one of these.

    Raises:
        ContainerError: if bytes of the sound are missing.
    """
    kind = next((kind for kind, is_kind in KINDS.items() if is_kind(data[:40])), "")
    sound = READERS[kind](data) if kind else None
    if sound is None:
        return None
    present = len(data) - sound.start
    if sound.size is None:
        return Contents()
    if sound.size > present:
        raise ContainerError(f"truncated: {max(0, present)} of {sound.size} bytes of sound")
    behind = _behind(data, sound.start + sound.size, kind)
    if sound.size == 0 and behind and sound.filled:
        pieces = ((0, sound.size_field[0]), sound.filled(present), (sound.size_field[1], len(data)))
        return Contents(parts=(Part(pieces=pieces),), note="its header states no length: read to the end")
    note = f"{behind} bytes behind the sound that its header states are not read"
    return Contents(note=note if behind else "")


def _behind(data: mmap, end: int, kind: str) -> int:
    """Counts the bytes behind the sound that are not chunks, tags or padding."""
    left = len(data) - end
    if kind not in {"riff", "aiff", "svx"}:
        known = kind in {"w64", "caf", "voc", "sds", "wve"}  # other chunks follow, or only padding
        return 0 if known or not data[end : end + left].strip(b"\0") else left
    for padding in (end & 1, 0):
        rest = _unchunked(data, end + padding, big=kind != "riff" or data[:4] == b"RIFX")
        if rest == 0:
            return 0
    tail = data[end : len(data)]
    return 0 if left < 2 or not tail.strip(b"\0") or tail.lstrip(b"\0")[:3] in {b"TAG", b"ID3"} else left


def _unchunked(data: mmap, position: int, *, big: bool) -> int:
    """Counts the bytes from a position on that are not chunks; sound among them counts as well."""
    size = len(data)
    while position + 8 <= size:
        name, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], _order(big))
        readable = all(32 <= byte < 127 for byte in name)
        if not readable or name in AGAIN or position + 8 + length > size + 1:
            return size - position
        position += 8 + length + (length & 1)
    return 0 if not data[position:size].strip(b"\0") else max(0, size - position)


def _order(big: bool) -> Literal["big", "little"]:
    return "big" if big else "little"


def _chunks(data: mmap, start: int, *, big: bool) -> Iterator[tuple[bytes, int, int]]:
    """Yields name, offset of the content, and stated size of chunks."""
    position = start
    while position + 8 <= len(data):
        length = int.from_bytes(data[position + 4 : position + 8], _order(big))
        yield data[position : position + 4], position + 8, length
        position += 8 + length + (length & 1)


def _riff(data: mmap) -> Sound | None:
    big = data[:4] == b"RIFX"
    large = 0
    for name, start, size in _chunks(data, 12, big=big):
        if name == b"ds64" and size >= 16:
            large = int.from_bytes(data[start + 8 : start + 16], "little")
        if name == b"data":
            present = len(data) - start
            if size == 0xFFFFFFFF and 0 < large < 1 << 63:
                return Sound(start, large)
            if size >= STREAMED and size > present:
                return Sound(start, None)
            size_field = (start - 4, start)
            return Sound(start, size, size_field, lambda count: min(count, 0xFFFFFFFF).to_bytes(4, _order(big)))
    return None


def _iff(name: bytes, offset: int) -> Callable[[mmap], Sound | None]:
    def read(data: mmap) -> Sound | None:
        for found, start, size in _chunks(data, 12, big=True):
            if found == name:
                if size >= STREAMED and size > len(data) - start:
                    return Sound(start + offset, None)
                filled = lambda count: min(count + offset, 0xFFFFFFFF).to_bytes(4, "big")  # noqa: E731
                return Sound(start + offset, max(0, size - offset), (start - 4, start), filled)
        return None

    return read


def _w64(data: mmap) -> Sound | None:
    position = 40
    while position + 24 <= len(data):
        size = int.from_bytes(data[position + 16 : position + 24], "little")
        if data[position : position + 16] == W64_DATA:
            unknown = size >= 1 << 62
            filled = lambda count: (count + 24).to_bytes(8, "little")  # noqa: E731
            return Sound(position + 24, None if unknown else max(0, size - 24), (position + 16, position + 24), filled)
        position += max(24, size + 7 & ~7)
    return None


def _au(data: mmap) -> Sound | None:
    order = _order(data[:4] == b".snd")
    start, size = (int.from_bytes(data[at : at + 4], order) for at in (4, 8))
    unknown = size == 0xFFFFFFFF
    return Sound(start, None if unknown else size, (8, 12), lambda _: b"\xff\xff\xff\xff")


def _caf(data: mmap) -> Sound | None:
    position = 8
    while position + 12 <= len(data):
        size = int.from_bytes(data[position + 4 : position + 12], "big", signed=True)
        if data[position : position + 4] == b"data":
            return Sound(position + 12, None if size < 0 else size)
        if size < 0:
            return None
        position += 12 + size
    return None


def _nist(data: mmap) -> Sound | None:
    try:
        start = int(data[8:16])
    except ValueError:
        return None
    fields = {}
    for line in data[16 : min(start, 1 << 16)].split(b"\n"):
        words = line.split(None, 2)
        if len(words) == 3:
            fields[words[0]] = words[2].strip()
    try:
        counts = [int(fields[name]) for name in (b"sample_count", b"channel_count", b"sample_n_bytes")]
    except (KeyError, ValueError):
        return None
    coding = fields.get(b"sample_coding", b"pcm").split(b",")
    if len(coding) > 1 or min(counts) < 0 or start < 16:  # compressed: the bytes say nothing
        return None
    return Sound(start, counts[0] * counts[1] * counts[2])


def _avr(data: mmap) -> Sound | None:
    stereo, bits = (int.from_bytes(data[at : at + 2], "big") for at in (12, 14))
    frames = int.from_bytes(data[26:30], "big")
    return Sound(128, frames * (2 if stereo else 1) * (bits // 8))


def _voc(data: mmap) -> Sound | None:
    position = int.from_bytes(data[20:22], "little")
    while position + 4 <= len(data) and data[position]:
        position += 4 + int.from_bytes(data[position + 1 : position + 4], "little")
    return Sound(0, position)


def _wve(data: mmap) -> Sound | None:
    return Sound(32, int.from_bytes(data[18:22], "big"))


def _sds(data: mmap) -> Sound | None:
    length = sum((data[10 + number] & 127) << 7 * number for number in range(3))
    per_block = 60 if data[6] <= 14 else 40 if data[6] <= 21 else 30  # samples in the 120 bytes of a block
    return Sound(21, 127 * -(-length // per_block))


def _mpc(data: mmap) -> Sound | None:
    frames = int.from_bytes(data[30:34], "little")
    return Sound(42, frames * (2 if data[21] else 1) * 2)


def _mat4(data: mmap) -> Sound | None:
    """Walks the matrices of a MATLAB 4 file."""
    order = _order(data[:4] == b"\0\0\x03\xe8")
    position, sizes = 0, (8, 4, 4, 2, 2, 1)
    while position + 20 <= len(data):
        kind, rows, columns, imaginary, name = (
            int.from_bytes(data[position + at : position + at + 4], order) for at in range(0, 20, 4)
        )
        number = kind // 10 % 10
        if number >= len(sizes) or imaginary > 1:
            return None
        position += 20 + name + rows * columns * sizes[number]
    return Sound(0, position)


def _mat5(data: mmap) -> Sound | None:
    """Walks the elements of a MATLAB 5 file; libsndfile states 8 bytes too many of those that it writes."""
    order = _order(data[126:128] == b"MI")
    position = 128
    while position + 8 <= len(data):
        position += 8 + int.from_bytes(data[position + 4 : position + 8], order)
    return Sound(0, max(0, position - 8))


KINDS: Mapping[str, Callable[[bytes], bool]] = {
    "riff": lambda head: head[:4] in {b"RIFF", b"RIFX", b"RF64", b"BW64"} and head[8:12] == b"WAVE",
    "w64": lambda head: head[:16] == W64_RIFF,
    "aiff": lambda head: head[:4] == b"FORM" and head[8:12] in {b"AIFF", b"AIFC"},
    "svx": lambda head: head[:4] == b"FORM" and head[8:12] in {b"8SVX", b"16SV"},
    "au": lambda head: head[:4] in {b".snd", b"dns."},
    "caf": lambda head: head[:4] == b"caff",
    "nist": lambda head: head[:7] == b"NIST_1A",
    "avr": lambda head: head[:4] == b"2BIT",
    "voc": lambda head: head[:19] == b"Creative Voice File",
    "wve": lambda head: head[:18] == b"ALawSoundFile**\0\x0f\x10",
    "sds": lambda head: head[:2] == b"\xf0\x7e" and head[3:4] == b"\1",
    "mpc": lambda head: head[:2] == b"\x01\x04",
    "mat4": lambda head: head[:4] in {b"\0\0\0\0", b"\0\0\x03\xe8"} and head[4:8] in {b"\1\0\0\0", b"\0\0\0\1"},
    "mat5": lambda head: head[:10] == b"MATLAB 5.0",
}
READERS: Mapping[str, Callable[[mmap], Sound | None]] = {
    "riff": _riff,
    "w64": _w64,
    "aiff": _iff(b"SSND", 8),
    "svx": _iff(b"BODY", 0),
    "au": _au,
    "caf": _caf,
    "nist": _nist,
    "avr": _avr,
    "voc": _voc,
    "wve": _wve,
    "sds": _sds,
    "mpc": _mpc,
    "mat4": _mat4,
    "mat5": _mat5,
}
