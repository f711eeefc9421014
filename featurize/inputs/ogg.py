"""Ogg: its pages, which show joined streams, lost pages and a missing end.

Source: RFC 3533. Files that were joined are a chain of streams, of which libsndfile reads the first; each of them is
decoded as a file of its own.
"""

from dataclasses import dataclass
from mmap import mmap

from featurize.inputs.pieces import ContainerError, Contents, Part

MARK = b"OggS"
HEADER = 27  # bytes of a page before its table of segments
FIRST, LAST = 2, 4  # flags of a page


@dataclass(kw_only=True)
class Link:
    """One link of a chain: streams that begin together.

    Attributes:
        start: offset of its first page.
        stop: end of its last page.
        pages: number of the last page of each stream, by serial number.
        ended: serial numbers of the streams whose last page was found.
        lost: number of pages that are missing in between.
        begun: True after a page that is not the first of a stream.
    """

    start: int
    stop: int
    pages: dict[int, int]
    ended: set[int]
    lost: int = 0
    begun: bool = False


def ogg_contents(data: mmap) -> Contents | None:
    """Reads the pages of an Ogg file.

    Raises:
        ContainerError: if it does not end with a whole page that is marked as the last.
    """
    links, whole = _links(data)
    if not links or not whole or not links[-1].ended:
        raise ContainerError("truncated: it does not end with its last page")
    lost = sum(link.lost for link in links)
    notes = [f"{lost} pages of its sound are missing"] if lost else []
    if len(links) == 1:
        return Contents(note="; ".join(notes), counted=True)
    notes.append(f"{len(links)} Ogg streams joined: all are read")
    parts = tuple(Part(pieces=((link.start, link.stop),)) for link in links)
    return Contents(parts=parts, note="; ".join(notes), counted=True)


def _links(data: mmap) -> tuple[list[Link], bool]:
    """Lists the links of a file; also returns False if the last page is cut."""
    links: list[Link] = []
    position, size = data.find(MARK), len(data)
    while 0 <= position < size:
        segments = data[position + 26 : position + HEADER]
        table = data[position + HEADER : position + HEADER + segments[0]] if segments else b""
        stop = position + HEADER + len(table) + sum(table)
        if not segments or len(table) < segments[0] or stop > size:
            return links, False
        _add(links, position, stop, data[position : position + HEADER])
        position = stop if data[stop : stop + 4] == MARK else data.find(MARK, stop)
    return links, True


def _add(links: list[Link], start: int, stop: int, header: bytes) -> None:
    flags, serial = header[5], int.from_bytes(header[14:18], "little")
    number = int.from_bytes(header[18:22], "little")
    if flags & FIRST and (not links or links[-1].begun):
        links.append(Link(start=start, stop=stop, pages={}, ended=set()))
    if not links:
        return  # pages before any beginning belong to nothing
    link = links[-1]
    link.begun |= not flags & FIRST
    link.stop = stop
    if serial in link.pages:
        link.lost += max(0, number - link.pages[serial] - 1)
    link.pages[serial] = number
    if flags & LAST:
        link.ended.add(serial)
