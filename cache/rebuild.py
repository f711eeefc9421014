"""Rebuild of a cache: a new file is written next to the old one, keeps its valid rows, and replaces it by a rename.

Creating, extending and merging a cache and dropping a stream all work this way: no existing file is changed in place.
"""

import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import DiskFull, MmerError
from cache.joined import cache_files
from cache.layout import COMMITTED, FAILED, CacheLayout, StreamPlan, Weights, create_file, read_layout, read_weights
from cache.rows import rows_checksum
from cache.store import FeatureCache, Stream, find_stream
from cache.utterance import Utterance
from cache.writer import CacheWriter, Row, unwritable, writing_lock

Keep = Callable[[Stream, int], bool]
COPY_BYTES = 64 << 20  # rows committed together while copying: bounds memory at an acceptable number of syncs
ROW_BYTES = 1 << 10  # approximate memory of a row that waits for its commit, in addition to its values
OVERHEAD_BYTES = 1 << 20  # HDF5 metadata and alignment of a file with a dozen streams


def plan_bytes(plans: Sequence[StreamPlan]) -> int:
    """Computes the size of a file with these streams, without transcripts and metadata."""
    bookkeeping = 8 + 1 + 8 + 16 + 200  # offset, state, checksum, digest, reason of one utterance
    rows = sum(int(plan.lengths.sum()) * plan.spec.row_bytes for plan in plans)
    return OVERHEAD_BYTES + rows + sum(len(plan.lengths) * bookkeeping for plan in plans)


def free_bytes(folder: Path) -> int:
    """Returns the free bytes of the disk of a folder, which need not exist yet."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free


def check_room(folder: Path, size_bytes: int) -> None:
    """Checks that the disk has space for a file.

    Raises:
        DiskFull: with the bytes needed and the bytes free.
    """
    disk_bytes = free_bytes(folder)
    if size_bytes > disk_bytes:
        raise DiskFull(
            f"{size_bytes / 1e9:.2f} GB needed in {folder}, {disk_bytes / 1e9:.2f} GB free; "
            "free some, choose another folder with --cache, or store less with --dtype int8"
        )


def build_file(
    path: Path,
    *,
    header: Mapping[str, Any],
    utterances: Sequence[Utterance],
    plans: Sequence[StreamPlan],
    weights: Weights,
    keep: Keep = lambda stream, index: True,
) -> int:
    """Creates a cache, or replaces it by a new file that keeps every valid row.

    A row is kept if its utterance and its stream are planned again under the same id, name and key with as many rows,
    if its bytes match their checksum, and if `keep` returns True. The old file stays complete until the rename. The
    caller holds `writing_lock`.

    Args:
        path: the cache file.
        header: ``mmer_version``, ``created`` and ``corpus``.
        utterances: all utterances, in the order of the plans' lengths.
        plans: the streams of the new file.
        weights: by encoder and name.
        keep: returns True if the input of a row of the old file, given by its stream and index, is unchanged.

    Returns:
        Number of utterances whose rows were kept, summed over streams.

    Raises:
        DiskFull: if there is not enough space for the new file in addition to the old one.
        MmerError: if the folder cannot be written.
    """

    def kept_rows(fresh: CacheLayout) -> Iterator[Row]:
        return _kept_rows(FeatureCache(path), fresh, keep) if path.exists() else iter(())

    return write_file(path, header=header, utterances=utterances, plans=plans, weights=weights, rows_for=kept_rows)


def write_file(
    path: Path,
    *,
    header: Mapping[str, Any],
    utterances: Sequence[Utterance],
    plans: Sequence[StreamPlan],
    weights: Weights,
    rows_for: Callable[[CacheLayout], Iterator[Row]],
) -> int:
    """Creates or replaces a cache with the rows that `rows_for` yields for its layout.

    All other rows stay pending or failed, as planned. Rows are committed in batches, so that few are in memory at a
    time. The caller holds `writing_lock`.

    Returns:
        Number of utterances whose rows were committed, summed over streams.

    Raises:
        DiskFull: if there is not enough space for the new file in addition to the old one.
        MmerError: if the folder cannot be written.
    """
    check_room(path.parent, plan_bytes(plans) + _content_bytes(utterances, weights))
    fresh = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
        create_file(fresh, header=header, utterances=utterances, plans=plans, weights=weights, mode=mode)
        written = _commit(_created(fresh, utterances, plans), rows_for)
        fresh.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path.parent, error) from error
    finally:
        fresh.unlink(missing_ok=True)
    return written


def plan_of(layout: CacheLayout, stream: Stream, utterances: Sequence[Utterance]) -> StreamPlan:
    """Plans a stream of an existing file again, for utterances that may have changed.

    Utterances that are new to the stream get no rows and stay pending until its encoder runs again.
    """
    known = {utterance.id: index for index, utterance in enumerate(layout.utterances)}
    indices = [known.get(utterance.id) for utterance in utterances]
    lengths = [0 if index is None else int(stream.lengths[index]) for index in indices]
    # A failed utterance with another transcript is pending again, since that transcript may fit its encoder. An
    # imported row stays failed, since no encoder computes it.
    failures = {
        new: stream.reason(old)
        for new, old in enumerate(indices)
        if old is not None
        and stream.state[old] == FAILED
        and (stream.spec.imported or layout.utterances[old].text == utterances[new].text)
    }
    return StreamPlan(spec=stream.spec, lengths=np.array(lengths, dtype=np.int64), failures=failures)


def valid_rows(stream: Stream, indices: Iterable[tuple[int, int]]) -> Iterator[Row]:
    """Yields the committed rows whose bytes match their checksum, for another file.

    Args:
        stream: the stream that holds them.
        indices: index of an utterance in the stream, and its index in the new file.
    """
    for old, new in indices:
        stored = stream.stored(old)
        if stream.state[old] == COMMITTED and int(stream.checksum[old]) == rows_checksum(stored):
            digest = bytes(stream.input_digest[old])
            yield Row(stream=stream.spec.name, index=new, stored=stored, digest=digest, note=stream.reason(old))


def drop_stream(path: Path, name: str) -> None:
    """Removes a stream from a cache, and its encoder's weights with its last stream.

    Args:
        path: the file, or a pattern: the stream is removed from all files that have it.
        name: name of the stream.

    Raises:
        MmerError: if no file has the stream, or a file has no other stream.
    """
    files = [file.resolve() if file.is_symlink() else file for file in cache_files(path)]
    caches = [FeatureCache(file) for file in files]
    find_stream({known: cache for cache in caches for known in cache.streams}, name, path)
    holders = [cache.path for cache in caches if name in cache.streams]
    for cache in caches:
        if list(cache.streams) == [name]:
            raise MmerError(f"{name} is the only stream of {cache.path}; remove the file instead")
    with ExitStack() as locks:
        for file in holders:
            locks.enter_context(writing_lock(file))
        for file in holders:
            _drop_from(FeatureCache(file), name)


def contradictions(held: Mapping[str, npt.NDArray[Any]], others: Mapping[str, npt.NDArray[Any]]) -> list[str]:
    """Lists the names that both hold with different arrays: in type, shape or any bit."""
    return [name for name in others if name in held and _content(held[name]) != _content(others[name])]


def _kept_rows(old: FeatureCache, fresh: CacheLayout, keep: Keep) -> Iterator[Row]:
    known = {utterance.id: index for index, utterance in enumerate(old.utterances)}
    pairs = [(known[utterance.id], new) for new, utterance in enumerate(fresh.utterances) if utterance.id in known]
    for name, layout in fresh.streams.items():
        if name not in old.streams or old.streams[name].key != layout.key:
            continue
        lengths = np.diff(layout.offsets)
        stream = old.streams[name]
        same = [(a, b) for a, b in pairs if int(stream.lengths[a]) == int(lengths[b]) and keep(stream, a)]
        yield from valid_rows(stream, same)


def _content_bytes(utterances: Sequence[Utterance], weights: Weights) -> int:
    """Computes the size of the texts and the weights of a file."""
    texts = sum(len(utterance.text.encode("utf-8", "replace")) for utterance in utterances)
    return texts + sum(np.asarray(values).nbytes for arrays in weights.values() for values in arrays.values())


def _commit(fresh: CacheLayout, rows_for: Callable[[CacheLayout], Iterator[Row]]) -> int:
    written = 0
    with CacheWriter(fresh) as writer:
        for rows in _batched(rows_for(fresh)):
            writer.commit(rows)
            written += len(rows)
    return written


def _batched(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size_bytes = 0
    for row in rows:
        batch.append(row)
        size_bytes += row.stored.values.nbytes + ROW_BYTES
        if size_bytes >= COPY_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch


def _created(path: Path, utterances: Sequence[Utterance], plans: Sequence[StreamPlan]) -> CacheLayout:
    """Reads the layout of a new file, whose metadata never change again, and checks that it is what was written."""
    layout = read_layout(path)
    planned = {plan.spec.name: int(plan.lengths.sum()) for plan in plans}
    found = {name: int(stream.offsets[-1]) for name, stream in layout.streams.items()}
    if len(layout.utterances) != len(utterances) or found != planned:
        raise MmerError(f"{path} does not read back as it was written; the disk may be damaged")
    return layout


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _drop_from(cache: FeatureCache, name: str) -> None:
    kept = [stream for other, stream in cache.streams.items() if other != name]
    encoders = {stream.spec.encoder for stream in kept}
    build_file(
        cache.path,
        header=cache.header,
        utterances=cache.utterances,
        plans=[plan_of(cache.layout, stream, cache.utterances) for stream in kept],
        weights={encoder: arrays for encoder, arrays in read_weights(cache.path).items() if encoder in encoders},
    )


def _content(values: npt.NDArray[Any]) -> tuple[str, tuple[int, ...], bytes]:
    return str(values.dtype), values.shape, values.tobytes()
