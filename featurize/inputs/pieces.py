"""Pieces of a file: the bytes that a decoder reads where the file as it is would mislead it.

A part is decoded at once, such as one of several joined streams. It is made of ranges of the file and of literal bytes
that replace a header, so that no file is ever changed or copied.
"""

from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

from cache.errors import MmerError

Range: TypeAlias = tuple[int, int]  # bytes [start, stop) of the file
Pieces: TypeAlias = tuple[bytes | Range, ...]
TAIL = 128  # last bytes of a stretched part, which a decoder searches for a tag


class ContainerError(MmerError):
    """A file that holds less sound than it states, or whose parts cannot be joined."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Bytes that are decoded at once.

    Attributes:
        pieces: literal bytes and ranges of the file, in order.
        stretch: bytes by which the part pretends to be longer; for decoders that guess a length from that of the file.
    """

    pieces: Pieces
    stretch: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """The sound of a file, by the structure of its container.

    Attributes:
        parts: what is decoded, in this order; empty for the file as it is.
        note: remarks about the structure, separated by semicolons.
        samples: number of samples that the frames hold; 0 where only decoding shows it.
        unproven: reason to report if the sound does not decode; empty for the reason of the decoder.
        counted: True if the length must be counted by decoding, whatever the header states.
    """

    parts: tuple[Part, ...] = ()
    note: str = ""
    samples: int = 0
    unproven: str = ""
    counted: bool = False


class PartFile:
    """A part of a file, readable like a file of its own.

    Args:
        file: the whole file.
        part: the bytes to read.
    """

    def __init__(self, file: BinaryIO, part: Part) -> None:
        self._file, self._pieces, self._position = file, part.pieces, 0
        self._sizes = [len(piece) if isinstance(piece, bytes) else piece[1] - piece[0] for piece in part.pieces]
        self._size = sum(self._sizes)
        self._stretched = self._size + part.stretch

    def seek(self, offset: int, whence: int = 0) -> int:
        """Moves the position, as files do; returns it."""
        base = (0, self._position, self._stretched)[whence]
        self._position = min(max(0, base + offset), self._stretched)
        return self._position

    def tell(self) -> int:
        """Returns the position."""
        return self._position

    def read(self, count: int = -1) -> bytes:
        """Reads up to `count` bytes; all that follow if it is negative."""
        if self._stretched - self._position <= TAIL < self._stretched - self._size:
            return bytes(max(0, min(count, self._stretched - self._position)))
        left = max(0, self._size - self._position)
        wanted = left if count < 0 else min(count, left)
        found = bytearray()
        start = 0
        for piece, size in zip(self._pieces, self._sizes, strict=True):
            inside = self._position - start
            if 0 <= inside < size and len(found) < wanted:
                length = min(size - inside, wanted - len(found))
                found += self._bytes(piece, inside, length)
                self._position += length
            start += size
        return bytes(found)

    def _bytes(self, piece: bytes | Range, start: int, length: int) -> bytes:
        if isinstance(piece, bytes):
            return piece[start : start + length]
        self._file.seek(piece[0] + start)
        return self._file.read(length).ljust(length, b"\0")  # a file that shrinks is noticed by its samples
