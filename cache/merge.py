"""Makes one cache file of several: shards of a corpus, the same utterances with streams computed apart, or both."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
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

IS_ABSENT, IS_PENDING, IS_FAILED, IS_COMMITTED = range(4)  # what a file has of an utterance; the highest is taken

# Of each utterance, for one stream: what is taken, how many rows, the first file that has it, and its index there.
TAKEN = np.dtype([("rank", "i1"), ("rows", "i8"), ("part", "i4"), ("index", "i8")])

Taken = npt.NDArray[Any]
Places = Sequence[npt.NDArray[np.int64]]  # by file: where each of its utterances stands among all


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What a merge made.

    Attributes:
        files: how many went in.
        committed: rows of utterances in the new file.
        damaged: rows of utterances that have their checksum in no file any longer; they are pending in the new file.
    """

    files: int
    committed: int
    damaged: int


def merge_caches(out: Path, files: Sequence[Path], *, replace: bool = False) -> Merged:
    """Writes the union of several caches into one new file; the caches themselves stay as they are.

    Utterances stand in the order in which they first appear. What is committed in one file wins over what failed or is
    pending in another; of what several have committed, the first copy that is not damaged is taken. What no file has is
    pending, to be computed by mmer-featurize.

    Args:
        out: the new file.
        files: caches, or patterns of caches.
        replace: let `out` take the place of a cache.

    Raises:
        CacheMissing: if one of the files is not there.
        DiskFull: if there is no room for the new file.
        MmerError: if `out` exists, or if two files contradict each other: in the corpus, in what an utterance is, in
            how a stream was computed, in committed rows or in the weights of an encoder.
    """
    out = out.resolve() if out.is_symlink() else out  # the lock belongs to the file, not to a link
    paths = {file.resolve(): file for path in files for file in cache_files(path)}
    parts = [FeatureCache(path) for path in paths.values()]
    _check_replaceable(out, replace)
    check_same_corpus(parts)
    utterances = _unite_utterances(parts)
    where = {utterance.id: place for place, utterance in enumerate(utterances)}
    places = [np.array([where[name] for name in part.ids], dtype=np.int64) for part in parts]
    taken = {name: _take(name, parts, places, utterances) for name in _unite_names(parts)}
    with writing_lock(out):
        _check_replaceable(out, replace)
        committed = write_file(
            out,
            header=parts[0].header,
            utterances=utterances,
            plans=[_plan(name, parts, one) for name, one in taken.items()],
            weights=_unite_weights(parts),
            rows_for=lambda fresh: _rows(fresh, parts, places, taken),
        )
    planned = sum(int(np.count_nonzero(one["rank"] == IS_COMMITTED)) for one in taken.values())
    return Merged(files=len(parts), committed=committed, damaged=planned - committed)


def _check_replaceable(out: Path, replace: bool) -> None:
    if out.exists():
        if not replace:
            raise MmerError(f"{out} is there already; name another file, or let it go by --replace")
        FeatureCache(out)  # whatever is no cache is never replaced


def _unite_utterances(parts: Sequence[FeatureCache]) -> list[Utterance]:
    united: dict[str, Utterance] = {}
    origins: dict[str, Path] = {}
    for part in parts:
        for utterance in part.utterances:
            held = united.setdefault(utterance.id, utterance)
            origin = origins.setdefault(utterance.id, part.path)
            if held != utterance:
                united[utterance.id] = _agreed(held, origin, utterance, part.path)
    return list(united.values())


def _agreed(held: Utterance, origin: Path, other: Utterance, path: Path) -> Utterance:
    """Gives the utterance that two files describe; only the measured duration may be known to one of them alone."""
    if held.duration_s is None or other.duration_s is None:
        duration_s = other.duration_s if held.duration_s is None else held.duration_s
        held, other = replace(held, duration_s=duration_s), replace(other, duration_s=duration_s)
    for field in fields(Utterance):
        mine, theirs = getattr(held, field.name), getattr(other, field.name)
        if mine != theirs:
            raise MmerError(
                f"{path}: {field.name} of utterance {held.id} is {theirs!r}, in {origin} {mine!r}; "
                "featurize both from the same corpus"
            )
    return held


def _unite_names(parts: Sequence[FeatureCache]) -> list[str]:
    """Names all streams, each computed in one way only."""
    holders: dict[str, FeatureCache] = {}
    for part in parts:
        for name in part.streams:
            check_same_key(holders.setdefault(name, part), part, name)
    return list(holders)


def _unite_weights(parts: Sequence[FeatureCache]) -> dict[str, dict[str, npt.NDArray[Any]]]:
    united: dict[str, dict[str, npt.NDArray[Any]]] = {}
    for part in parts:
        for encoder, arrays in read_weights(part.path).items():
            held = united.setdefault(encoder, {})
            for name in contradictions(held, arrays):
                raise MmerError(
                    f"{part.path}: weight {name} of {encoder} is not that of the files before it; "
                    f"featurize one of them under another name, as in --encoder {encoder}-2=SOURCE"
                )
            held.update(arrays)
    return united


def _take(name: str, parts: Sequence[FeatureCache], places: Places, utterances: Sequence[Utterance]) -> Taken:
    """Decides what is taken of each utterance of a stream, and which file is first to have it: ``(n,)`` of `TAKEN`."""
    taken = np.zeros(len(utterances), dtype=TAKEN)
    for number, part in enumerate(parts):
        if name not in part.streams:
            continue
        stream, here = part.streams[name], places[number]
        found = np.zeros(len(stream), dtype=TAKEN)
        done, failed = stream.state == COMMITTED, stream.state == FAILED
        found["rank"] = np.select([done, failed], [IS_COMMITTED, IS_FAILED], default=IS_PENDING)
        found["rows"], found["part"], found["index"] = stream.lengths, number, np.arange(len(stream))
        held = taken[here]
        both = (found["rank"] == IS_COMMITTED) & (held["rank"] == IS_COMMITTED)
        for index in np.flatnonzero(both).tolist():
            _check_same_rows(name, parts[held["part"][index]], int(held["index"][index]), part, index)
        planned = (found["rank"] == held["rank"]) & (found["rows"] > held["rows"])  # the other had no plan for it
        better = (found["rank"] > held["rank"]) | planned
        taken[here[better]] = found[better]
    return taken


def _check_same_rows(name: str, first: FeatureCache, held: int, other: FeatureCache, index: int) -> None:
    mine, theirs = first.streams[name], other.streams[name]
    for what, column in (("of another input", "input_digest"), ("other rows", "checksum")):
        if getattr(mine, column)[held].tobytes() != getattr(theirs, column)[index].tobytes():
            raise MmerError(
                f"{other.path}: {name} of utterance {other.ids[index]} is {what} than in {first.path}; "
                "recompute it in one of them, or drop the stream from one by mmer-cache drop"
            )


def _plan(name: str, parts: Sequence[FeatureCache], taken: Taken) -> StreamPlan:
    failures = {
        place: parts[taken["part"][place]].streams[name].reason(int(taken["index"][place]))
        for place in np.flatnonzero(taken["rank"] == IS_FAILED).tolist()
    }
    spec = next(part.streams[name].spec for part in parts if name in part.streams)
    return StreamPlan(spec=spec, lengths=taken["rows"], failures=failures)


def _rows(
    fresh: CacheLayout, parts: Sequence[FeatureCache], places: Places, taken: Mapping[str, Taken]
) -> Iterator[Row]:
    """Gives the rows to commit, file by file, each from front to end; what is damaged there from a later one."""
    for name in fresh.streams:
        missing = taken[name]["rank"] == IS_COMMITTED
        for part, here in zip(parts, places, strict=True):
            if name not in part.streams:
                continue
            stream = part.streams[name]
            due = np.flatnonzero(missing[here] & (stream.lengths == taken[name]["rows"][here]))
            for row in valid_rows(stream, zip(due.tolist(), here[due].tolist(), strict=True)):
                missing[row.index] = False
                yield row
