"""Merge of several cache files into one: shards of a corpus, streams of the same utterances, or both."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.joined import cache_files, check_same_corpus, check_same_key
from cache.layout import COMMITTED, FAILED, CacheLayout, StreamPlan, read_weights
from cache.rebuild import contradictions, valid_rows, write_file
from cache.store import FeatureCache
from cache.utterance import Utterance
from cache.writer import Row, writing_lock

# State of an utterance in one file, by rank: the highest rank among the files is selected.
IS_ABSENT, IS_PENDING, IS_FAILED, IS_COMMITTED = range(4)

# Per utterance of a stream: the selected rank, its number of rows, the first file with it, and the index in that file.
SELECTION = np.dtype([("rank", "i1"), ("rows", "i8"), ("file", "i4"), ("index", "i8")])

Selection = npt.NDArray[np.void]  # (utterances,) of SELECTION
Positions = Sequence[npt.NDArray[np.int64]]  # per file: the index of each of its utterances in the merged file


@dataclass(frozen=True, kw_only=True)
class Merged:
    """The counts of a merge.

    Attributes:
        files: number of files merged.
        committed: committed utterances in the new file, summed over streams.
        damaged: utterances whose rows match their checksum in none of the files, summed over streams; they are pending
            in the new file.
    """

    files: int
    committed: int
    damaged: int


def merge_caches(out: Path, files: Sequence[Path], *, replace: bool = False) -> Merged:
    """Writes the union of several caches into one new file; the caches are not changed.

    Utterances keep the order in which they first appear. Committed rows of one file take precedence over failed or
    pending ones of another; if several files have committed rows, the first undamaged copy is used. Rows that no file
    has are pending, and mmer-featurize computes them.

    Args:
        out: the new file.
        files: caches, or patterns of caches.
        replace: overwrite `out` if it is a cache.

    Raises:
        CacheMissing: if one of the files does not exist.
        DiskFull: if there is not enough space for the new file.
        MmerError: if `out` exists, or if two files contradict each other: in the corpus, in what an utterance is, in
            how a stream was computed, in committed rows or in the weights of an encoder.
    """
    out = out.resolve() if out.is_symlink() else out  # the lock belongs to the file, not to a link
    paths = {file.resolve(): file for path in files for file in cache_files(path)}
    caches = [FeatureCache(path) for path in paths.values()]
    _check_replaceable(out, replace)
    check_same_corpus(caches)
    utterances = _unite_utterances(caches)
    index_of = {utterance.id: index for index, utterance in enumerate(utterances)}
    positions = [np.array([index_of[name] for name in cache.ids], dtype=np.int64) for cache in caches]
    selections = {name: _select(name, caches, positions, utterances) for name in _unite_names(caches)}
    with writing_lock(out):
        _check_replaceable(out, replace)
        committed = write_file(
            out,
            header=caches[0].header,
            utterances=utterances,
            plans=[_plan(name, caches, selection) for name, selection in selections.items()],
            weights=_unite_weights(caches),
            rows_for=lambda fresh: _rows(fresh, caches, positions, selections),
        )
    planned = sum(int(np.count_nonzero(selection["rank"] == IS_COMMITTED)) for selection in selections.values())
    return Merged(files=len(caches), committed=committed, damaged=planned - committed)


def _check_replaceable(out: Path, replace: bool) -> None:
    if out.exists():
        if not replace:
            raise MmerError(f"{out} already exists; choose another file, or pass --replace to overwrite it")
        FeatureCache(out)  # only a cache is ever overwritten


def _unite_utterances(caches: Sequence[FeatureCache]) -> list[Utterance]:
    united: dict[str, Utterance] = {}
    origins: dict[str, Path] = {}
    for cache in caches:
        for utterance in cache.utterances:
            held = united.setdefault(utterance.id, utterance)
            origin = origins.setdefault(utterance.id, cache.path)
            if held != utterance:
                united[utterance.id] = _unite(held, origin, utterance, cache.path)
    return list(united.values())


def _unite(held: Utterance, origin: Path, other: Utterance, path: Path) -> Utterance:
    """Returns the utterance that two files describe equally; one of them may lack the measured duration."""
    if held.duration_s is None or other.duration_s is None:
        duration_s = other.duration_s if held.duration_s is None else held.duration_s
        held, other = replace(held, duration_s=duration_s), replace(other, duration_s=duration_s)
    for field in fields(Utterance):
        first, second = getattr(held, field.name), getattr(other, field.name)
        if first != second:
            raise MmerError(
                f"{path}: {field.name} of utterance {held.id} is {second!r}, but {first!r} in {origin}; "
                "featurize both from the same corpus"
            )
    return held


def _unite_names(caches: Sequence[FeatureCache]) -> list[str]:
    """Lists the names of all streams, after a check that each has one key in all files."""
    holders: dict[str, FeatureCache] = {}
    for cache in caches:
        for name in cache.streams:
            check_same_key(holders.setdefault(name, cache), cache, name)
    return list(holders)


def _unite_weights(caches: Sequence[FeatureCache]) -> dict[str, dict[str, npt.NDArray[Any]]]:
    united: dict[str, dict[str, npt.NDArray[Any]]] = {}
    for cache in caches:
        for encoder, arrays in read_weights(cache.path).items():
            held = united.setdefault(encoder, {})
            for name in contradictions(held, arrays):
                raise MmerError(
                    f"{cache.path}: weight {name} of {encoder} differs from that of the files before it; "
                    f"featurize one of them under another name, as in --encoder {encoder}-2=SOURCE"
                )
            held.update(arrays)
    return united


def _select(
    name: str, caches: Sequence[FeatureCache], positions: Positions, utterances: Sequence[Utterance]
) -> Selection:
    """Selects, for each utterance of a stream, the first file with the highest rank: ``(n,)`` of `SELECTION`."""
    selection = np.zeros(len(utterances), dtype=SELECTION)
    for number, cache in enumerate(caches):
        if name not in cache.streams:
            continue
        stream, position = cache.streams[name], positions[number]
        found = np.zeros(len(stream), dtype=SELECTION)
        done, failed = stream.state == COMMITTED, stream.state == FAILED
        found["rank"] = np.select([done, failed], [IS_COMMITTED, IS_FAILED], default=IS_PENDING)
        found["rows"], found["file"], found["index"] = stream.lengths, number, np.arange(len(stream))
        held = selection[position]
        both = (found["rank"] == IS_COMMITTED) & (held["rank"] == IS_COMMITTED)
        for index in np.flatnonzero(both).tolist():
            _check_same_rows(name, caches[held["file"][index]], int(held["index"][index]), cache, index)
        planned = (found["rank"] == held["rank"]) & (found["rows"] > held["rows"])  # planned in this file only
        better = (found["rank"] > held["rank"]) | planned
        selection[position[better]] = found[better]
    return selection


def _check_same_rows(name: str, first: FeatureCache, held: int, other: FeatureCache, index: int) -> None:
    for column, difference in (("input_digest", "was computed from another input"), ("checksum", "has other rows")):
        expected, found = getattr(first.streams[name], column)[held], getattr(other.streams[name], column)[index]
        if found.tobytes() != expected.tobytes():
            raise MmerError(
                f"{other.path}: {name} of utterance {other.ids[index]} {difference} than in {first.path}; "
                f"recompute it in one of them, or run mmer-cache drop {quote(str(other.path))} {quote(name)}"
            )


def _plan(name: str, caches: Sequence[FeatureCache], selection: Selection) -> StreamPlan:
    failures = {
        index: caches[selection["file"][index]].streams[name].reason(int(selection["index"][index]))
        for index in np.flatnonzero(selection["rank"] == IS_FAILED).tolist()
    }
    spec = next(cache.streams[name].spec for cache in caches if name in cache.streams)
    return StreamPlan(spec=spec, lengths=selection["rows"], failures=failures)


def _rows(
    fresh: CacheLayout, caches: Sequence[FeatureCache], positions: Positions, selections: Mapping[str, Selection]
) -> Iterator[Row]:
    """Yields the rows to commit, file by file in file order; damaged rows come from a later file."""
    for name in fresh.streams:
        missing = selections[name]["rank"] == IS_COMMITTED
        for cache, position in zip(caches, positions, strict=True):
            if name not in cache.streams:
                continue
            stream = cache.streams[name]
            due = np.flatnonzero(missing[position] & (stream.lengths == selections[name]["rows"][position]))
            for row in valid_rows(stream, zip(due.tolist(), position[due].tolist(), strict=True)):
                missing[row.index] = False
                yield row
