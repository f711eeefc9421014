"""Brings the cache file to the state that a run starts from: created, resumed, or rebuilt for a changed plan."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import MmerError
from cache.layout import COMMITTED, StreamPlan, Weights, read_layout, read_weights
from cache.rebuild import build_file, check_room, plan_of
from cache.store import FeatureCache
from cache.stream import Scalar, StreamSpec
from cache.writer import CacheWriter
from featurize.plan import EncoderPlan, Inputs
from featurize.progress import Progress
from featurize.recheck import refuse_lost, reset_changed, unreadable


@dataclass(frozen=True, kw_only=True)
class CorpusHeader:
    """What the file says of its corpus: its name and the folder it was read from."""

    name: str
    root: Path

    def as_json(self) -> dict[str, str]:
        """Gives the plain object kept in the file."""
        return {"name": self.name, "root": str(self.root)}


@dataclass(frozen=True, kw_only=True)
class _FilePlan:
    """What the file is to hold of this run."""

    path: Path
    corpus: CorpusHeader
    inputs: Inputs
    plans: Sequence[EncoderPlan]
    streams: Sequence[StreamPlan]


@contextmanager
def prepared(
    path: Path,
    corpus: CorpusHeader,
    inputs: Inputs,
    plans: Sequence[EncoderPlan],
    *,
    replace: bool,
    progress: Progress,
) -> Iterator[tuple[CacheWriter, list[str]]]:
    """Opens the cache for the rows of a run; the caller holds `cache.writer.writing_lock`.

    Rows whose input is no longer what the encoder consumed are pending again. Nothing is computed here.

    Args:
        path: the cache file, created if there is none.
        corpus: what the file says of its corpus.
        inputs: of the corpus as it is now.
        plans: the encoders of this run; other streams of the file are kept.
        replace: recompute the streams of this run, whatever was there.
        progress: told how far the look at recordings of an earlier run is.

    Yields:
        A writer, and notes on what was found.

    Raises:
        MmerError: if the file belongs to another corpus or to other utterances altogether, if a stream of the same
            name was computed otherwise, or if recordings are gone that the file holds features of.
        DiskFull: if there is no room for what is planned.
    """
    streams = [stream for plan in plans for stream in plan.streams()]
    planned = _FilePlan(path=path, corpus=corpus, inputs=inputs, plans=plans, streams=streams)
    notes: list[str] = []
    if not path.exists():
        _build(planned, others=[], old=None)
    else:
        cache = FeatureCache(path)
        _check_same_corpus(cache, corpus, inputs)
        if not replace:
            _check_same_keys(cache, streams)
            refuse_lost(cache, inputs, unreadable(cache, inputs))
        notes += _settle(planned, cache)
    with CacheWriter(read_layout(path)) as writer:
        if replace:
            _reset_all(writer, streams)
        notes += reset_changed(writer, inputs, replace=replace, progress=progress)
        _fail_planned(writer, streams)
        pending_bytes = _pending_bytes(writer, streams)
        check_room(path.parent, pending_bytes)
        yield writer, notes


def _settle(planned: _FilePlan, cache: FeatureCache) -> list[str]:
    """Rebuilds the file if the plan is not the one that it was created for."""
    utterances = planned.inputs.utterances
    if list(cache.utterances) == utterances and all(_planned_so(cache, stream) for stream in planned.streams):
        return []
    named = {stream.spec.name for stream in planned.streams}
    others = [plan_of(cache.layout, one, utterances) for name, one in cache.streams.items() if name not in named]
    kept = _build(planned, others=others, old=cache)
    return [f"the plan changed: {planned.path} was rebuilt, {kept} rows of utterances kept"]


def _build(planned: _FilePlan, *, others: Sequence[StreamPlan], old: FeatureCache | None) -> int:
    weights: dict[str, Any] = {} if old is None else dict(read_weights(planned.path))
    return build_file(
        planned.path,
        header={"mmer_version": mmer_version(), "created": _created(old), "corpus": planned.corpus.as_json()},
        utterances=planned.inputs.utterances,
        plans=[*others, *planned.streams],
        weights=weights | dict(_start_weights(planned.plans)),
    )


def mmer_version() -> str:
    """Gives the installed version of mmer, or says that it runs from a bare clone."""
    try:
        return version("mmer")
    except PackageNotFoundError:
        return "uninstalled"


def _created(old: FeatureCache | None) -> str:
    return str(old.layout.header["created"]) if old else datetime.now(UTC).isoformat(timespec="seconds")


def _start_weights(plans: Sequence[EncoderPlan]) -> Weights:
    named: Mapping[str, Any] = {
        plan.specs[-1].name.removesuffix(".codes"): plan.encoder.start_weights for plan in plans
    }
    return {name: weights for name, weights in named.items() if weights}


def _check_same_corpus(cache: FeatureCache, corpus: CorpusHeader, inputs: Inputs) -> None:
    held = cache.layout.header["corpus"].get("name")
    if held != corpus.name:
        raise MmerError(f"{cache.path} holds the corpus {held}, not {corpus.name}; name another file by --cache")
    if not {utterance.id for utterance in inputs.utterances} & set(cache.ids):
        raise MmerError(
            f"{cache.path} holds {len(cache)} other utterances (first: {cache.ids[0]}) and none of {corpus.root}; "
            "name another file by --cache"
        )


def _check_same_keys(cache: FeatureCache, streams: Sequence[StreamPlan]) -> None:
    for stream in streams:
        name = stream.spec.name
        if name in cache.streams and cache.streams[name].key != stream.spec.key:
            changed = "; ".join(cache.streams[name].spec.differences(stream.spec))
            raise MmerError(
                f"{name} of {cache.path} was computed otherwise ({changed}); --replace recomputes it"
                f"{_another_name(stream.spec)}"
            )


def _another_name(spec: StreamSpec) -> str:
    if spec.role == "chars":
        return ""
    encoder, *layers = spec.name.removesuffix(".codes").removesuffix(".tokens").split("@")
    return f", or keep both under another name, as in --encoder {encoder}-2={'@'.join([spec.source, *layers])}"


def _planned_so(cache: FeatureCache, plan: StreamPlan) -> bool:
    stream = cache.streams.get(plan.spec.name)
    return (
        stream is not None
        and stream.key == plan.spec.key
        and _pieces(stream.spec) == _pieces(plan.spec)
        and np.array_equal(stream.lengths, plan.lengths)
    )


def _pieces(spec: StreamSpec) -> Scalar:
    """Says how long the pieces of long recordings are; a limit that cuts nothing decides no value."""
    return spec.limits.get("max_seconds") if spec.limits.get("chunk") else None


def _reset_all(writer: CacheWriter, streams: Sequence[StreamPlan]) -> None:
    for stream in streams:
        writer.reset(stream.spec.name, np.flatnonzero(writer.states[stream.spec.name] == COMMITTED).tolist())


def _fail_planned(writer: CacheWriter, streams: Sequence[StreamPlan]) -> None:
    """Brings the reasons of utterances that cannot be encoded up to date."""
    for stream in streams:
        for index, reason in stream.failures.items():
            writer.fail(stream.spec.name, index, reason)


def _pending_bytes(writer: CacheWriter, streams: Sequence[StreamPlan]) -> int:
    missing = [writer.states[stream.spec.name] != COMMITTED for stream in streams]
    return sum(
        int(stream.lengths[where].sum()) * stream.spec.row_bytes for stream, where in zip(streams, missing, strict=True)
    )
