"""Checked access to the objects of an HDF5 file that anybody may have written.

HDF5 follows links to other files, runs filters, and hands values of some types out as addresses. Nothing here does: an
object is opened only through a hard link, and a dataset is read only if its type and its shape are the expected ones
and its bytes lie uncompressed in one piece of this file. All functions raise ValueError with the name of the object.

They use the low-level interface of h5py, since most of the time to open a small cache is spent here.
"""

import math
import os
import struct
from collections.abc import Sequence
from functools import cache
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

# Reference of a variable-length text to its bytes elsewhere in the file (HDF5 File Format Specification, IV.B).
REFERENCE = np.dtype([("bytes", "<u4"), ("heap", "<u8"), ("index", "<u4")])
HEAP = b"GCOL"  # signature of a global heap, which holds texts (the same, III.E)
KEPT_BYTES = 1 << 20  # of one piece of metadata; larger pieces are rows and weights, which are not read again
TEXT = h5py.string_dtype()  # UTF-8 of any length


class Dataset:
    """A dataset in this file, of known type and shape, whose bytes lie in one piece.

    Args:
        group: group that holds it.
        name: its name in the group.
        dtype: type that it must have; None for a text column, ``...`` for any plain number.
        shape: shape that it must have; None for any, -1 for any size of an axis.
        descriptor: open descriptor of the file.

    Raises:
        ValueError: if there is no such dataset, or it is of another kind.
    """

    def __init__(
        self,
        group: h5py.h5g.GroupID,
        name: str,
        dtype: Any,
        shape: Sequence[int] | None,
        descriptor: int,
    ) -> None:
        self.name = name
        check_link(group, name)
        try:
            self._id = h5py.h5d.open(group, name.encode())
        except (KeyError, ValueError) as error:
            raise ValueError(f"{name} is not a dataset") from error
        self._descriptor = descriptor
        offset = self._id.get_offset()
        if offset is None:  # also for an empty dataset, which has no bytes
            self._check_contiguous()
        self.shape = self._checked_shape(shape)
        self.dtype = self._checked_type(dtype)
        self.size_bytes = math.prod(self.shape) * self.dtype.itemsize
        if (offset is None and self.size_bytes) or self._id.get_storage_size() != self.size_bytes:
            raise ValueError(f"{name} does not have the bytes of {self.shape} values")
        self.offset = int(offset) if self.size_bytes else 0

    @property
    def end(self) -> int:
        """First byte after the dataset; 0 for an empty one."""
        return self.offset + self.size_bytes

    def check_inside(self, size_bytes: int) -> None:
        """Checks that the dataset lies inside a file of this size.

        Raises:
            ValueError: if it does not.
        """
        if self.end > size_bytes:
            raise ValueError(f"{self.name} ends at byte {self.end} of a file of {size_bytes} bytes")

    def numbers(self) -> npt.NDArray[Any]:
        """Reads all values of a dataset of numbers."""
        values = np.empty(self.shape, dtype=self.dtype)
        _read_into(self._descriptor, values.reshape(-1).view(np.uint8).data, self.offset)
        whole: npt.NDArray[Any] = values[()]  # a number if the dataset has no axis
        return whole

    def texts(self, size_bytes: int) -> list[str]:
        """Reads all values of a text column.

        Args:
            size_bytes: size of the file, which the texts together cannot exceed: each has its own bytes.
        """
        if not self.size_bytes:
            return []
        # The lengths are read first, since references of few bytes may claim gigabytes of text.
        references = np.frombuffer(os.pread(self._descriptor, self.size_bytes, self.offset), dtype=REFERENCE)
        if len(references) != self.shape[0] or int(references["bytes"].sum(dtype=np.uint64)) > size_bytes:
            raise ValueError(f"{self.name} claims more text than the file has bytes")
        values = np.empty(self.shape, dtype=TEXT)
        self._id.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
        return [value.decode() for value in values]

    def _check_contiguous(self) -> None:
        creation = self._id.get_create_plist()
        if creation.get_layout() != h5py.h5d.CONTIGUOUS or creation.get_external_count():
            raise ValueError(f"{self.name} is not contiguous in this file")

    def _checked_shape(self, expected: Sequence[int] | None) -> tuple[int, ...]:
        space = self._id.get_space()  # half the time of the property `shape`
        if space.get_simple_extent_type() == h5py.h5s.NULL:
            raise ValueError(f"{self.name} has no shape")
        found: tuple[int, ...] = space.get_simple_extent_dims()
        if expected is not None and (
            len(found) != len(expected)
            or any(size not in {-1, given} for size, given in zip(expected, found, strict=True))
        ):
            raise ValueError(f"{self.name} has shape {found}, expected {tuple(expected)}")
        return found

    def _checked_type(self, expected: Any) -> np.dtype[Any]:
        found = self._id.get_type()
        if expected is ...:
            if not isinstance(found, h5py.h5t.TypeIntegerID | h5py.h5t.TypeFloatID | h5py.h5t.TypeEnumID):
                raise ValueError(f"{self.name} is not of numbers")
            expected = found.dtype
        dtype = np.dtype(TEXT if expected is None else expected)
        if not found.equal(_type_of(dtype)):
            raise ValueError(f"{self.name} is not of {'text' if expected is None else dtype}")
        return REFERENCE if expected is None else dtype


class GuardedFile:
    """A file that HDF5 reads its metadata from, by the descriptor of one file, without a buffer of its own.

    HDF5 2.0 reads for ever where a global heap, which holds texts, has a piece of no size; so every heap is checked
    before HDF5 sees it. A file that is cut short while it is read is an error, never a signal or bytes of chance.

    Args:
        descriptor: open descriptor of the file.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._at = descriptor, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to an offset."""
        self._at = offset if whence == os.SEEK_SET else os.lseek(self._descriptor, offset, whence)
        return self._at

    def tell(self) -> int:
        """Returns the current offset."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Reads as many bytes as the buffer holds, from the current offset.

        Raises:
            OSError: if the file has fewer bytes, or its heap is damaged.
        """
        view = memoryview(buffer)
        try:
            _read_into(self._descriptor, view, self._at)
            if view[:4] == HEAP:
                self._check_heap()
        except OSError as error:
            reason = str(error)
        else:
            self._at += len(view)
            return len(view)
        del view, buffer  # the trace of an error would hold the buffer after HDF5 has freed it
        raise OSError(reason)

    def _check_heap(self) -> None:
        """Checks that every piece of a heap moves on to the next one and ends in the heap."""
        (size_bytes,) = struct.unpack("<8xQ", os.pread(self._descriptor, 16, self._at))
        heap = os.pread(self._descriptor, min(size_bytes, os.fstat(self._descriptor).st_size), self._at)
        piece, at, end = struct.Struct("<H6xQ").unpack_from, 16, len(heap)
        while at + 16 <= end:
            index, piece_bytes = piece(heap, at)
            if not index and piece_bytes < 16:  # free room, its own head included
                raise OSError("a heap of texts is damaged")
            at += 16 + (piece_bytes + 7 & ~7) if index else piece_bytes
        if at > end:
            raise OSError("a heap of texts is damaged")
        if len(heap) < size_bytes:
            raise OSError("a heap of texts is cut short")


class NewFile:
    """A file that HDF5 writes to, which keeps the first error of the disk instead of passing it on.

    HDF5 cannot close a file that it cannot write, and ends the process where there is no room. Here it closes, and the
    caller raises the error afterwards.

    Args:
        descriptor: open descriptor of the file, for reading and writing.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._at, self._size_bytes = descriptor, 0, 0  # the size that HDF5 believes in
        self._unwritten: list[tuple[int, bytes]] = []  # metadata that HDF5 may read again
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to an offset."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size_bytes}[whence]
        return self._at

    def tell(self) -> int:
        """Returns the current offset."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Reads as many bytes as the buffer holds, also those that could not be written."""
        view = memoryview(buffer)
        view[:] = os.pread(self._descriptor, len(view), self._at).ljust(len(view), b"\0")
        for at, data in self._unwritten:
            start, end = max(at, self._at), min(at + len(data), self._at + len(view))
            if start < end:
                view[start - self._at : end - self._at] = data[start - at : end - at]
        self._at += len(view)
        return len(view)

    def write(self, data: Any) -> int:
        """Writes all bytes, unless an earlier write failed."""
        view, at = memoryview(data), self._at
        self._at += len(view)
        self._size_bytes = max(self._size_bytes, self._at)
        try:
            while view and self.error is None:
                written = os.pwrite(self._descriptor, view, at)
                view, at = view[written:], at + written
        except OSError as error:
            self.error = OSError(error.errno, error.strerror)  # without a trace, which would hold the buffer of HDF5
        if view and len(view) <= KEPT_BYTES:
            self._unwritten.append((at, bytes(view)))
        return len(data)

    def truncate(self, size: int) -> int:
        """Sets the size of the file, unless a write failed."""
        self._size_bytes = size
        try:
            if self.error is None:
                os.ftruncate(self._descriptor, size)
        except OSError as error:
            self.error = OSError(error.errno, error.strerror)  # without a trace, which would hold the buffer of HDF5
        return size

    def flush(self) -> None:
        """Does nothing: nothing is buffered."""


def _read_into(descriptor: int, view: memoryview, offset: int) -> None:
    """Fills a buffer with the bytes at an offset.

    Raises:
        OSError: if the file ends before.
    """
    while view:  # a read returns at most 2 GB
        count = os.preadv(descriptor, [view], offset)
        if not count:
            raise OSError("the file was cut short while it was read")
        view, offset = view[count:], offset + count


def open_group(group: h5py.h5g.GroupID, name: str) -> h5py.h5g.GroupID:
    """Opens a group of this file.

    Raises:
        ValueError: if there is no such group, or the name is a link elsewhere.
    """
    check_link(group, name)
    try:
        return h5py.h5g.open(group, name.encode())
    except (KeyError, ValueError) as error:
        raise ValueError(f"{name} is not a group") from error


def names_in(group: h5py.h5g.GroupID) -> list[str]:
    """Lists the names in a group."""
    return [name.decode() for name in group]


def check_link(group: h5py.h5g.GroupID, name: str) -> None:
    """Checks that a name is an object of this file: neither a link by path nor one into another file.

    Raises:
        ValueError: if it is not, or does not exist.
    """
    try:
        kind = group.links.get_info(name.encode()).type
    except (KeyError, RuntimeError) as error:  # h5py raises either
        raise ValueError(f"no {name}") from error
    if kind != h5py.h5l.TYPE_HARD:
        raise ValueError(f"{name} is a link, not an object of this file")


def text_attribute(group: h5py.h5g.GroupID, name: str) -> str:
    """Reads an attribute that is one text.

    Raises:
        ValueError: if it is missing or anything else.
    """
    attribute = _attribute(group, name)
    if not attribute.get_type().equal(_type_of(TEXT)):
        raise ValueError(f"attribute {name} is not a text")
    value = np.empty((), dtype=TEXT)
    attribute.read(value)
    text: Any = value[()]
    return text.decode() if isinstance(text, bytes) else str(text)


def count_attribute(group: h5py.h5g.GroupID, name: str) -> int:
    """Reads an attribute that is one integer.

    Raises:
        ValueError: if it is missing or anything else.
    """
    attribute = _attribute(group, name)
    if not isinstance(attribute.get_type(), h5py.h5t.TypeIntegerID):
        raise ValueError(f"attribute {name} is not an integer")
    value = np.empty((), dtype=np.int64)
    attribute.read(value)
    return int(value)


def _attribute(group: h5py.h5g.GroupID, name: str) -> h5py.h5a.AttrID:
    if not h5py.h5a.exists(group, name.encode()):
        raise ValueError(f"no attribute {name}")
    attribute = h5py.h5a.open(group, name.encode())
    if attribute.get_space().get_simple_extent_type() != h5py.h5s.SCALAR:
        raise ValueError(f"attribute {name} is not one value")
    return attribute


@cache
def _type_of(dtype: np.dtype[Any]) -> h5py.h5t.TypeID:
    """Returns the type of a file for a type of numpy."""
    return h5py.h5t.py_create(dtype, logical=True)
