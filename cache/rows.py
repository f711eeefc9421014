"""Stored rows: conversion of features to float16, float32, int8 with a scale per row, or integer targets, and back."""

from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[Any]


class StoredRows(NamedTuple):
    """Rows in their stored type ``(rows, ...)``; for int8 also the float16 scale of each row, ``(rows,)``."""

    values: Rows
    scales: Rows | None


def to_stored(values: Rows, dtype: str) -> StoredRows:
    """Converts computed rows to their stored type.

    float16 keeps 11 significant bits: a relative error of at most 4.9e-4 per value.
    int8 divides each row by its own scale, which is peak / 127 rounded up to float16. Its relative L2 error grows with
    the ratio of a row's peak to its root mean square; `benchmarks/int8_error.py` measured 0.8% on Gaussian rows 768
    wide and on a randomly initialized wav2vec2-base over real speech, and 0.4% on log-mel of that speech.

    Args:
        values: ``(rows, ...)``; integers are stored unscaled.
        dtype: name of the stored type.

    Returns:
        The rows in that type. A value beyond the range of float16 becomes infinite; the caller must check.

    Raises:
        ValueError: if integers do not fit the stored integer type.
    """
    if dtype == "int8" and values.dtype.kind == "f":
        return _quantized(values.astype(np.float32))
    if values.dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if values.size and (values.min() < limits.min or values.max() > limits.max):
            raise ValueError(f"values from {values.min()} to {values.max()} do not fit {dtype}")
    with np.errstate(over="ignore"):
        return StoredRows(np.ascontiguousarray(values, dtype=dtype), None)


def from_stored(values: Rows, scales: Rows | None) -> Rows:
    """Returns the values of stored rows: float32 for int8, the rows themselves otherwise."""
    if scales is None:
        return values
    factors: Rows = scales.astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    product: Rows = values * factors
    return product


def all_finite(stored: StoredRows) -> bool:
    """Returns True if no stored value and no scale is infinite or NaN."""
    if stored.scales is not None:
        return bool(np.isfinite(stored.scales).all())
    return stored.values.dtype.kind != "f" or bool(np.isfinite(stored.values).all())


def rows_checksum(stored: StoredRows) -> int:
    """Computes the 64-bit checksum of stored rows, their scales included."""
    digest = blake2b(bytes_of(stored.values), digest_size=8)
    if stored.scales is not None:
        digest.update(bytes_of(stored.scales))
    return int.from_bytes(digest.digest(), "little")


def bytes_of(rows: Rows) -> memoryview:
    """Returns the bytes of rows, without a copy if they are contiguous."""
    # a view as uint8, since a memoryview cannot cast rows of shape (0, dim)
    return np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data


def _quantized(values: npt.NDArray[np.float32]) -> StoredRows:
    peaks = np.abs(values).max(axis=tuple(range(1, values.ndim)), initial=0.0)
    scales = _scales(peaks)
    divisors = np.where(scales > 0, scales, 1).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    with np.errstate(invalid="ignore"):
        quantized = np.clip(np.rint(values / divisors), -127, 127).astype(np.int8)
    return StoredRows(quantized, scales)


def _scales(peaks: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore", invalid="ignore"):
        scales = (peaks / 127).astype(np.float16)
        too_small = scales.astype(np.float32) * 127 < peaks
        return np.where(too_small, np.nextafter(scales, np.float16(np.inf)), scales).astype(np.float16)
