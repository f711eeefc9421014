"""Other ways to keep ragged features: each writes the rows of a stream and gives what reads an utterance's."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

import h5py
import numpy as np
import torch

from cache.rows import Rows
from cache.store import Stream

Read = Callable[[str], Rows]


@contextmanager
def hdf5_datasets(folder: Path, stream: Stream, ids: Sequence[str], **options: Any) -> Iterator[Read]:
    """Keeps one HDF5 dataset per utterance."""
    with h5py.File(folder / "datasets.h5", "w") as file:
        for index, name in enumerate(ids):
            file.create_dataset(name, data=stream.read(index), **options)
    with h5py.File(folder / "datasets.h5", "r") as file:
        yield lambda name: file[name][()]


@contextmanager
def hdf5_gzip(folder: Path, stream: Stream, ids: Sequence[str]) -> Iterator[Read]:
    """Keeps one HDF5 dataset per utterance, compressed by gzip."""
    with hdf5_datasets(folder, stream, ids, compression="gzip") as read:
        yield read


@contextmanager
def npy_files(folder: Path, stream: Stream, ids: Sequence[str]) -> Iterator[Read]:
    """Keeps one .npy per utterance."""
    for index, name in enumerate(ids):
        np.save(folder / f"{name}.npy", stream.read(index))
    yield lambda name: np.load(folder / f"{name}.npy")


@contextmanager
def pt_files(folder: Path, stream: Stream, ids: Sequence[str]) -> Iterator[Read]:
    """Keeps one .pt per utterance."""
    for index, name in enumerate(ids):
        torch.save(torch.from_numpy(np.array(stream.read(index))), folder / f"{name}.pt")
    yield lambda name: torch.load(folder / f"{name}.pt", weights_only=True).numpy()


@contextmanager
def lhotse_hdf5(folder: Path, stream: Stream, ids: Sequence[str]) -> Iterator[Read]:
    """Keeps features by lhotse's NumpyHdf5Writer."""
    from lhotse.features.io import NumpyHdf5Reader, NumpyHdf5Writer

    with NumpyHdf5Writer(folder / "lhotse.h5") as writer:
        for index, name in enumerate(ids):
            writer.write(name, stream.read(index))
    reader = NumpyHdf5Reader(folder / "lhotse.h5")
    yield reader.read
    reader.hdf.close()


LAYOUTS: Mapping[str, Callable[[Path, Stream, Sequence[str]], AbstractContextManager[Read]]] = {
    "one HDF5 dataset per utterance": hdf5_datasets,
    "one .npy per utterance": npy_files,
    "one .pt per utterance": pt_files,
    "lhotse NumpyHdf5Reader": lhotse_hdf5,
    "one HDF5 dataset per utterance, gzip": hdf5_gzip,
}


@contextmanager
def written(layout: str, folder: Path, stream: Stream, ids: Sequence[str]) -> Iterator[Read]:
    """Writes the rows of a stream in another layout, and removes it afterwards.

    Args:
        layout: one of `LAYOUTS`.
        folder: where a folder for it is made.
        stream: what to write.
        ids: of its utterances.

    Yields:
        What gives the rows of an utterance, ``(frames, dim)``, by its id.
    """
    place = folder / "layout"
    place.mkdir()
    with ExitStack() as stack:
        stack.callback(rmtree, place)
        read = stack.enter_context(LAYOUTS[layout](place, stream, ids))
        os.sync()  # or the disk is still busy with what was written while it is read
        yield read
