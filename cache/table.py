"""The utterances of a cache file, one HDF5 dataset per column."""

from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np

from cache.utterance import ADDED, COLUMNS, COUNT, NUMBER, TEXT, Utterance


def write_utterances(group: h5py.Group, utterances: Sequence[Utterance]) -> None:
    """Writes one dataset per column."""
    for column, kind in COLUMNS.items():
        values = [getattr(utterance, column) for utterance in utterances]
        if kind == TEXT:
            group.create_dataset(column, data=values, dtype=h5py.string_dtype(), shape=(len(values),))
        elif kind == NUMBER:
            group.create_dataset(column, data=np.array([np.nan if v is None else v for v in values], dtype="<f8"))
        else:
            group.create_dataset(column, data=np.array([-1 if v is None else v for v in values], dtype="<i8"))


def read_utterances(group: h5py.Group) -> list[Utterance]:
    """Reads the utterances; columns that came to the format later are left at their defaults where a file lacks them.

    Raises:
        KeyError: if a column is missing that every file has.
    """
    kinds = {column: kind for column, kind in COLUMNS.items() if column not in ADDED or column in group}
    columns = {column: _read_column(group, column, kind) for column, kind in kinds.items()}
    rows = zip(*columns.values(), strict=True)
    return [Utterance(**dict(zip(columns, row, strict=True))) for row in rows]


def _read_column(group: h5py.Group, column: str, kind: str) -> list[Any]:
    if kind == TEXT:
        return list(group[column].asstr()[()])
    values = group[column][()].tolist()
    if kind == COUNT:
        return [None if value < 0 else value for value in values]
    return [None if value != value else value for value in values]  # noqa: PLR0124 - NaN alone differs from itself
