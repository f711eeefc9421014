"""Brings the cache file to the state that a run starts from: created, resumed, or rebuilt for a changed plan."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from cache.store import FeatureCache, Stream
from cache.stream import SPEECH, Scalar, StreamSpec
from cache.writer import CacheWriter
from featurize.audio import RecordingError, Span, load
from featurize.plan import EncoderPlan, Inputs, speech_digest, transcript_digest

CHECK_THREADS = 2


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
    path: Path, corpus: CorpusHeader, inputs: Inputs, plans: Sequence[EncoderPlan], *, replace: bool
) -> Iterator[tuple[CacheWriter, list[str]]]:
    """Opens the cache for the rows of a run; the caller holds `cache.writer.writing_lock`.

    Rows whose input is no longer what the encoder consumed are pending again. Nothing is computed here.

    Args:
        path: the cache file, created if there is none.
        corpus: what the file says of its corpus.
        inputs: of the corpus as it is now.
        plans: the encoders of this run; other streams of the file are kept.
        replace: recompute the streams of this run, whatever was there.

    Yields:
        A writer, and notes on what was found.

    Raises:
        MmerError: if the file belongs to another corpus, if a stream of the same name was computed otherwise, or if
            recordings are gone that the file holds features of.
        DiskFull: if there is no room for what is planned.
    """
    streams = [stream for plan in plans for stream in plan.streams()]
    planned = _FilePlan(path=path, corpus=corpus, inputs=inputs, plans=plans, streams=streams)
    notes: list[str] = []
    if not path.exists():
        _build(planned, others=[], old=None)
    else:
        cache = FeatureCache(path)
        _check_same_corpus(cache, corpus)
        if not replace:
            _check_same_keys(cache, streams)
            _refuse_lost(cache, inputs, _unreadable(cache, inputs))
        notes += _settle(planned, cache)
    with CacheWriter(read_layout(path)) as writer:
        if replace:
            _reset_all(writer, streams)
        notes += _reset_changed(writer, path, inputs, replace=replace)
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


def _check_same_corpus(cache: FeatureCache, corpus: CorpusHeader) -> None:
    held = cache.layout.header["corpus"].get("name")
    if held != corpus.name:
        raise MmerError(f"{cache.path} holds the corpus {held}, not {corpus.name}; name another file by --cache")


def _check_same_keys(cache: FeatureCache, streams: Sequence[StreamPlan]) -> None:
    for stream in streams:
        name = stream.spec.name
        if name in cache.streams and cache.streams[name].key != stream.spec.key:
            changed = "; ".join(cache.streams[name].spec.differences(stream.spec))
            base, *layers = name.split("@")
            raise MmerError(
                f"{name} of {cache.path} was computed otherwise ({changed}); --replace recomputes it, "
                f"or keep both under another name, as in --encoder {base}-2={'@'.join([stream.spec.source, *layers])}"
            )


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


def _unreadable(cache: FeatureCache, inputs: Inputs) -> dict[str, str]:
    """Finds recordings that cannot be read any more though the cache holds features of them."""
    held = {cache.ids[index] for stream in _speech(cache) for index in np.flatnonzero(stream.state == COMMITTED)}
    pairs = zip(inputs.utterances, inputs.spans, strict=True)
    return {utterance.id: span for utterance, span in pairs if isinstance(span, str) and utterance.id in held}


def _refuse_lost(cache: FeatureCache, inputs: Inputs, lost: Mapping[str, str]) -> None:
    if lost:
        first, why = next(iter(lost.items()))
        raise MmerError(
            f"{len(lost)} of {len(inputs.utterances)} recordings that {cache.path} holds features of cannot be read "
            f"any more (first: {first}: {why}); bring them back, or drop their features by --replace"
        )


def _reset_all(writer: CacheWriter, streams: Sequence[StreamPlan]) -> None:
    for stream in streams:
        writer.reset(stream.spec.name, np.flatnonzero(writer.states[stream.spec.name] == COMMITTED).tolist())


def _reset_changed(writer: CacheWriter, path: Path, inputs: Inputs, *, replace: bool) -> list[str]:
    """Makes rows pending whose recording or transcript is no longer the one that was encoded."""
    cache = FeatureCache(path)
    held = [index for index in range(len(cache)) if any(one.state[index] == COMMITTED for one in _speech(cache))]
    with ThreadPoolExecutor(CHECK_THREADS) as threads:
        sounds = dict(zip(held, threads.map(lambda index: _sound_digest(inputs.spans[index]), held), strict=True))
    lost = {cache.ids[index]: told for index, told in sounds.items() if isinstance(told, str)}
    if not replace:
        _refuse_lost(cache, inputs, lost)
    notes = []
    for name, stream in cache.streams.items():
        committed = np.flatnonzero(stream.state == COMMITTED).tolist()
        changed = [index for index in committed if _changed(stream, index, inputs, sounds)]
        if changed:
            writer.reset(name, changed)
            notes.append(f"{name}: the input of {len(changed)} utterances changed (first: {cache.ids[changed[0]]})")
    return notes


def _changed(stream: Stream, index: int, inputs: Inputs, sounds: Mapping[int, bytes | str]) -> bool:
    held = bytes(stream.input_digest[index])
    if stream.spec.consumes != SPEECH:
        return held != transcript_digest(inputs.utterances[index].text, stream.spec)
    sound, span = sounds[index], inputs.spans[index]
    if isinstance(sound, str) or isinstance(span, str):
        return True
    return held != speech_digest(sound, span.samples, stream.spec)


def _sound_digest(span: Span | str) -> bytes | str:
    if isinstance(span, str):
        return span
    try:
        return load(span).digest
    except RecordingError as error:
        return str(error)


def _speech(cache: FeatureCache) -> list[Stream]:
    return [stream for stream in cache.streams.values() if stream.spec.consumes == SPEECH]


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
