"""Puts the streams of a feature pack into a cache file: rows are joined by utterance id, never by their order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.layout import COMMITTED, FAILED, StreamPlan, Weights, read_layout, read_weights
from cache.packs.base import Pack, PackStream, check_stream
from cache.rebuild import COPY_BYTES, build_file, contradictions, plan_of
from cache.store import FeatureCache, Stream
from cache.stream import StreamSpec
from cache.utterance import Utterance
from cache.writer import CacheWriter, Row, writing_lock


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import did.

    Attributes:
        created: whether there was no such file before.
        written: utterances that got rows of the pack, by stream.
        left_out: utterances of the pack that the file does not know.
    """

    created: bool
    written: dict[str, int]
    left_out: list[str]


@dataclass(frozen=True, kw_only=True)
class _Target:
    """The file as it is, if there is one, and what is to come into it."""

    path: Path
    pack: Pack
    streams: Mapping[str, PackStream]
    cache: FeatureCache | None
    replace: bool

    @property
    def utterances(self) -> Sequence[Utterance]:
        return self.pack.utterances if self.cache is None else self.cache.utterances

    def held(self, name: str) -> Stream | None:
        """The stream of the file that is completed from the pack, if it has one."""
        return None if self.cache is None or self.replace else self.cache.streams.get(name)


def import_pack(
    pack: Pack,
    path: Path,
    *,
    streams: Sequence[str] = (),
    corpus: str = "",
    partial: bool = False,
    replace: bool = False,
) -> Imported:
    """Adds streams of a pack to a cache, or creates the cache from the pack.

    Everything is read and checked before the file is touched. Utterances of the file that the pack has no features of
    fail with a reason. A stream that the file holds under the same key is completed: its rows stay as they are.

    Args:
        pack: an open pack.
        path: the cache file.
        streams: the streams to take, ``[NEW=]NAME``; all if none are named.
        corpus: name of the corpus, empty for the pack's; a file that is there must be of this corpus.
        partial: leave out utterances of the pack that the file does not know.
        replace: take streams of the same name from the pack.

    Raises:
        MmerError: if the pack is not sound, knows other utterances, or a stream of that name was computed otherwise.
        DiskFull: if there is no room.
    """
    path = path.resolve()
    if not path.exists() and any(sign in path.name for sign in "*?["):
        raise MmerError(f"{path} is a pattern of files; import into one file, by its name")
    chosen = _chosen(pack, streams)
    for stream in chosen.values():
        check_stream(pack, stream)
    with writing_lock(path):
        cache = FeatureCache(path) if path.exists() else None
        target = _Target(path=path, pack=pack, streams=chosen, cache=cache, replace=replace)
        left_out = [] if cache is None else _unknown(target, cache, corpus, partial)
        _build(target, corpus)
        return Imported(created=cache is None, written=_write(target), left_out=left_out)


def _chosen(pack: Pack, asked: Sequence[str]) -> dict[str, PackStream]:
    """Gives the streams asked for, under the names they are to have."""
    chosen: dict[str, PackStream] = {}
    for one in asked or pack.streams:
        new, sign, old = ("", "", one) if one in pack.streams else one.partition("=")
        name = new if sign else one
        if old not in pack.streams:
            raise MmerError(f"{pack.path} has no stream {old or one}; it has: {', '.join(pack.streams) or 'none'}")
        if name in chosen:
            raise MmerError(f"two streams would be called {name}; give one another name by --stream NEW={old}")
        try:
            chosen[name] = pack.streams[old].renamed(name)
        except ValueError as error:
            raise MmerError(f"--stream {one}: {error}") from error
    return chosen


def _unknown(target: _Target, cache: FeatureCache, corpus: str, partial: bool) -> list[str]:
    """Lists the utterances that the file does not know, and refuses what must not be mixed."""
    held = cache.header["corpus"].get("name")
    if corpus and corpus != held:
        raise MmerError(f"{target.path} holds the corpus {held}, not {corpus}; name another file")
    known = set(cache.ids)
    offered = list(dict.fromkeys(name for stream in target.streams.values() for name in stream.committed()))
    unknown = [name for name in offered if name not in known]
    if unknown and (not partial or len(unknown) == len(offered)):
        way = "name the file of its corpus" if len(unknown) == len(offered) else "leave them out by --partial"
        raise MmerError(
            f"{target.path} does not know {len(unknown)} of {len(offered)} utterances of {target.pack.path} "
            f"(first: {unknown[0]}); {way}"
        )
    for name, stream in target.streams.items():
        there = target.held(name)
        if there is not None and there.key != stream.spec.key:
            changed = "; ".join(there.spec.differences(stream.spec))
            raise MmerError(
                f"{name} of {target.path} was computed otherwise ({changed}); --replace takes the pack's, "
                f"--stream {name}-2={name} keeps both"
            )
    return unknown


def _build(target: _Target, corpus: str) -> None:
    """Creates the file, or the one that takes its place, with every new row pending."""
    cache, pack = target.cache, target.pack
    others = [] if cache is None else [one for name, one in cache.streams.items() if name not in target.streams]
    header = pack.header if cache is None else cache.header
    if corpus:
        header = {**header, "corpus": {**header["corpus"], "name": corpus}}
    plans = [] if cache is None else [plan_of(cache.layout, stream, cache.utterances) for stream in others]
    build_file(
        target.path,
        header=header,
        utterances=target.utterances,
        plans=[*plans, *(_plan(target, name, stream) for name, stream in target.streams.items())],
        weights=_weights(target, others),
        keep=lambda stream, index: not (target.replace and stream.spec.name in target.streams),
    )


def _plan(target: _Target, name: str, stream: PackStream) -> StreamPlan:
    held = target.held(name)
    lengths, failures = np.zeros(len(target.utterances), dtype=np.int64), {}
    for index, utterance in enumerate(target.utterances):
        entry = stream.entries.get(utterance.id)
        if held is not None and held.state[index] == COMMITTED:
            lengths[index] = held.lengths[index]
        elif entry is None:
            failures[index] = f"not in the pack {target.pack.path.resolve().name}"
        else:
            lengths[index] = entry.rows
            if entry.state == FAILED:
                failures[index] = entry.reason
    return StreamPlan(spec=stream.spec if held is None else held.spec, lengths=lengths, failures=failures)


def _weights(target: _Target, others: Sequence[Stream]) -> Weights:
    """Gives the weights of the new file: of the encoders that stay, united with those that come with the pack."""
    completed = [held for name in target.streams if (held := target.held(name)) is not None]
    specs = [stream.spec for stream in [*others, *completed]]
    kept = {spec.encoder for spec in specs}
    before = {} if target.cache is None else read_weights(target.path)
    weights: dict[str, Mapping[str, npt.NDArray[Any]]] = {name: before[name] for name in before if name in kept}
    for name, stream in target.streams.items():
        old = weights.get(stream.spec.encoder, {})
        if old and stream.weights and not _unitable(old, stream, specs):
            raise MmerError(
                f"{name} of {target.pack.path} comes with other weights of {stream.spec.encoder} than {target.path} "
                f"holds; import it under another name by --stream NEW={name}"
            )
        weights[stream.spec.encoder] = {**old, **stream.weights}
        specs.append(stream.spec)
    return {encoder: arrays for encoder, arrays in weights.items() if arrays}


def _unitable(held: Mapping[str, npt.NDArray[Any]], stream: PackStream, specs: Sequence[StreamSpec]) -> bool:
    """Tells whether weights of a pack are of the encoder whose weights are held under its name, if only some of them.

    Arrays that only one of them has prove nothing: there the streams must be of one encoder, too.
    """
    named = [spec for spec in specs if spec.encoder == stream.spec.encoder]
    alike = held.keys() == stream.weights.keys() or all(_of_one_encoder(spec, stream.spec) for spec in named)
    return alike and not contradictions(held, stream.weights)


def _of_one_encoder(one: StreamSpec, other: StreamSpec) -> bool:
    same_weights = one.weights == other.weights or one.role != other.role  # each role has a digest of its own
    return (one.source, one.revision) == (other.source, other.revision) and same_weights


def _write(target: _Target) -> dict[str, int]:
    """Commits what the pack has and the file not yet; counts utterances by stream."""
    written = dict.fromkeys(target.streams, 0)
    layout = read_layout(target.path)
    with CacheWriter(layout) as writer:
        for name, stream in target.streams.items():
            lengths = np.diff(layout.streams[name].offsets)
            for rows in _batches(target, name, stream, np.where(writer.states[name] == COMMITTED, -1, lengths)):
                writer.commit(rows)
                written[name] += len(rows)
    return written


def _batches(target: _Target, name: str, stream: PackStream, wanted: npt.NDArray[np.int64]) -> Iterator[list[Row]]:
    """Reads the rows of the pack that have as many rows as the file wants, a few at a time."""
    batch: list[Row] = []
    size_bytes = 0
    for index, utterance in enumerate(target.utterances):
        entry = stream.entries.get(utterance.id)
        if entry is None or entry.state != COMMITTED or entry.rows != wanted[index]:
            continue
        stored = stream.read(utterance.id)
        batch.append(Row(stream=name, index=index, stored=stored, digest=entry.digest, note=entry.reason))
        size_bytes += stored.values.nbytes
        if size_bytes >= COPY_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch
