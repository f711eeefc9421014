"""Import of a feature pack into a cache file: rows are joined by utterance id, never by their order."""

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
    """The outcome of an import.

    Attributes:
        created: True if the file did not exist before.
        written: number of utterances with rows written from the pack, by stream.
        left_out: ids of the utterances of the pack that the file does not contain.
    """

    created: bool
    written: dict[str, int]
    left_out: list[str]


@dataclass(frozen=True, kw_only=True)
class _Target:
    """The cache file, if it exists, and the streams to import into it."""

    path: Path
    pack: Pack
    streams: Mapping[str, PackStream]
    cache: FeatureCache | None
    replace: bool

    @property
    def utterances(self) -> Sequence[Utterance]:
        return self.pack.utterances if self.cache is None else self.cache.utterances

    def held(self, name: str) -> Stream | None:
        """Returns the stream of the file that the pack completes, if there is one."""
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

    All rows are read and checked before the file is changed. Utterances of the file without features in the pack are
    marked as failed, with a reason. A stream that the file holds under the same key is completed: its rows are kept.

    Args:
        pack: an open pack.
        path: the cache file.
        streams: the streams to import, as ``[NEW=]NAME``; all if empty.
        corpus: name of the corpus, empty for the pack's; an existing file must be of this corpus.
        partial: leave out utterances of the pack that the file does not contain.
        replace: replace streams of the same name by those of the pack.

    Raises:
        MmerError: if the pack is damaged or has other utterances, or a stream of that name was computed differently.
        DiskFull: if there is not enough space.
    """
    path = path.resolve()
    if not path.exists() and any(sign in path.name for sign in "*?["):
        raise MmerError(f"{path} is a pattern of files; import into a single file")
    chosen = _chosen(pack, streams)
    for stream in chosen.values():
        check_stream(pack, stream)
    with writing_lock(path):
        cache = FeatureCache(path) if path.exists() else None
        target = _Target(path=path, pack=pack, streams=chosen, cache=cache, replace=replace)
        left_out = [] if cache is None else _check_compatible(target, cache, corpus, partial)
        _build(target, corpus)
        return Imported(created=cache is None, written=_write(target), left_out=left_out)


def held_ids(path: Path) -> frozenset[str]:
    """Returns the utterance ids of a cache file; none if there is no such file.

    Raises:
        MmerError: if the file is not a cache.
    """
    return frozenset(FeatureCache(path).ids) if path.is_file() else frozenset()


def _chosen(pack: Pack, requested: Sequence[str]) -> dict[str, PackStream]:
    """Selects the requested streams, by their new names."""
    chosen: dict[str, PackStream] = {}
    for text in requested or pack.streams:
        new, sign, old = ("", "", text) if text in pack.streams else text.partition("=")
        name = new if sign else text
        if old not in pack.streams:
            raise MmerError(f"{pack.path} has no stream {old or text}; it has: {', '.join(pack.streams) or 'none'}")
        if name in chosen:
            raise MmerError(f"two streams would have the name {name}; rename one of them with --stream NEW={old}")
        try:
            chosen[name] = pack.streams[old].renamed(name)
        except ValueError as error:
            raise MmerError(f"--stream {text}: {error}") from error
    return chosen


def _check_compatible(target: _Target, cache: FeatureCache, corpus: str, partial: bool) -> list[str]:
    """Checks that the pack may be imported into the file; returns the utterances to leave out."""
    held = cache.header["corpus"].get("name")
    if corpus and corpus != held:
        raise MmerError(f"{target.path} holds the corpus {held}, not {corpus}; choose another file")
    known = set(cache.ids)
    offered = list(dict.fromkeys(name for stream in target.streams.values() for name in stream.committed()))
    unknown = [name for name in offered if name not in known]
    if unknown and (not partial or len(unknown) == len(offered)):
        way_out = "choose the file of its corpus" if len(unknown) == len(offered) else "leave them out with --partial"
        raise MmerError(
            f"{target.path} does not contain {len(unknown)} of {len(offered)} utterances of {target.pack.path} "
            f"(first: {unknown[0]}); {way_out}"
        )
    for name, stream in target.streams.items():
        current = target.held(name)
        if current is not None and current.key != stream.spec.key:
            changed = "; ".join(current.spec.differences(stream.spec))
            raise MmerError(
                f"{name} of {target.path} was computed differently ({changed}); --replace imports that of the pack, "
                f"--stream {name}-2={name} keeps both"
            )
    return unknown


def _build(target: _Target, corpus: str) -> None:
    """Creates or rebuilds the file with every new row pending."""
    cache, pack = target.cache, target.pack
    others = [] if cache is None else [stream for name, stream in cache.streams.items() if name not in target.streams]
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
    """Unites the weights of the encoders that stay in the file with those of the pack."""
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
                f"holds; import it under another name with --stream NEW={name}"
            )
        weights[stream.spec.encoder] = {**old, **stream.weights}
        specs.append(stream.spec)
    return {encoder: arrays for encoder, arrays in weights.items() if arrays}


def _unitable(held: Mapping[str, npt.NDArray[Any]], stream: PackStream, specs: Sequence[StreamSpec]) -> bool:
    """Returns True if weights of a pack belong to the encoder whose weights the file holds under the same name.

    Arrays that only one side has cannot be compared: then the streams must be of the same encoder, too.
    """
    named = [spec for spec in specs if spec.encoder == stream.spec.encoder]
    alike = held.keys() == stream.weights.keys() or all(_same_encoder(spec, stream.spec) for spec in named)
    return alike and not contradictions(held, stream.weights)


def _same_encoder(first: StreamSpec, second: StreamSpec) -> bool:
    same_weights = first.weights == second.weights or first.role != second.role  # each role has its own digest
    return (first.source, first.revision) == (second.source, second.revision) and same_weights


def _write(target: _Target) -> dict[str, int]:
    """Commits the rows of the pack that the file lacks; counts utterances by stream."""
    written = dict.fromkeys(target.streams, 0)
    layout = read_layout(target.path)
    with CacheWriter(layout) as writer:
        for name, stream in target.streams.items():
            lengths = np.diff(layout.streams[name].offsets)
            for rows in _batches(target, name, stream, np.where(writer.states[name] == COMMITTED, -1, lengths)):
                writer.commit(rows)
                written[name] += len(rows)
    return written


def _batches(target: _Target, name: str, stream: PackStream, planned: npt.NDArray[np.int64]) -> Iterator[list[Row]]:
    """Yields the rows of utterances with as many rows in the pack as planned, in batches."""
    batch: list[Row] = []
    size_bytes = 0
    for index, utterance in enumerate(target.utterances):
        entry = stream.entries.get(utterance.id)
        if entry is None or entry.state != COMMITTED or entry.rows != planned[index]:
            continue
        stored = stream.read(utterance.id)
        batch.append(Row(stream=name, index=index, stored=stored, digest=entry.digest, note=entry.reason))
        size_bytes += stored.values.nbytes
        if size_bytes >= COPY_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch
