"""Contents of a sound file by the structure of its container, before anything is decoded."""

from mmap import ACCESS_READ, mmap
from typing import BinaryIO

from featurize.inputs.chunks import chunk_contents
from featurize.inputs.flac import MARK as FLAC
from featurize.inputs.flac import flac_contents
from featurize.inputs.mpeg import behind_tags, mpeg_contents
from featurize.inputs.ogg import MARK as OGG
from featurize.inputs.ogg import ogg_contents
from featurize.inputs.pieces import Contents


def read_contents(file: BinaryIO) -> Contents:
    """Reads how much sound a file holds, and which of its bytes a decoder should read.

    Raises:
        ContainerError: if the file is truncated.
        OSError: if it cannot be read.
    """
    with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        start = behind_tags(data)
        if data[start : start + 4] == FLAC:
            found = flac_contents(data, start)
        elif data[:4] == OGG:
            found = ogg_contents(data)
        else:
            found = chunk_contents(data)
            if found is None and (start or data[:1] == b"\xff"):
                found = mpeg_contents(data)
    return found or Contents()
