"""Brings the cache file to the state that a run starts from: created, resumed, or rebuilt for a changed plan.

What stops a run before it touches an existing cache: another corpus, another key, features that would be lost.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from cache.errors import MmerError
from cache.layout import COMMITTED, StreamPlan, Weights, read_layout, read_weights, reason_bytes
from cache.rebuild import build_file, check_room, plan_of
from cache.store import FeatureCache
from cache.stream import SPEECH, Scalar, StreamSpec
from cache.version import mmer_version
from cache.writer import CacheWriter
from featurize.extraction.plan import EncoderPlan, Inputs, overflow_note, transcript_note
from featurize.extraction.progress import ExtractionProgress
from featurize.extraction.staleness import changed_rows, damaged_rows, digest_recordings, lost_features


def check_same_corpus(cache: FeatureCache, corpus: str, inputs: Inputs) -> None:
    """Refuses a cache of another corpus, or of other utterances altogether.

    Raises:
        MmerError: in either case.
    """
    held = cache.layout.header["corpus"].get("name")
    if held != corpus:
        raise MmerError(f"{cache.path} holds the corpus {held}, not {corpus}; name another file by --cache")
    if not {utterance.id for utterance in inputs.utterances} & set(cache.ids):
        raise MmerError(
            f"{cache.path} holds {len(cache)} other utterances (first: {cache.ids[0]}) and none of {inputs.root}; "
            "name another file by --cache"
        )


def check_same_keys(cache: FeatureCache, streams: Sequence[StreamPlan]) -> None:
    """Refuses to mix rows of two keys in one stream.

    Raises:
        MmerError: with the fields that differ, and another name.
    """
    for stream in streams:
        name = stream.spec.name
        if name in cache.streams and cache.streams[name].key != stream.spec.key:
            changed = "; ".join(cache.streams[name].spec.differences(stream.spec))
            raise MmerError(
                f"{name} of {cache.path} was computed otherwise ({changed}); --replace recomputes it"
                f"{_another_name(stream.spec)}"
            )


def check_same_encoders(cache: FeatureCache, streams: Sequence[StreamPlan]) -> None:
    """Refuses to keep streams of two encoders under one name, by which the weights that heads start from are kept.

    Raises:
        MmerError: with the stream of the other encoder, and another name.
    """
    for stream in streams:
        for name in others_of(cache, stream.spec):
            raise MmerError(
                f"{name} of {cache.path} is of another encoder called {stream.spec.encoder}; --replace drops it"
                f"{_another_name(stream.spec)}"
            )


def others_of(cache: FeatureCache, spec: StreamSpec) -> list[str]:
    """Names the streams of a file that another encoder made under the name of this one."""
    held = [
        one.spec for one in cache.streams.values() if one.spec.encoder == spec.encoder and one.spec.role == spec.role
    ]
    return [one.name for one in held if encoder_of(one) != encoder_of(spec)]


def refuse_lost(cache: FeatureCache, lost: Mapping[str, str]) -> None:
    """Refuses to give up features that a run would drop.

    Args:
        cache: the file as it is.
        lost: utterance id -> why its features would go.

    Raises:
        MmerError: if there are any, with the first of them.
    """
    if lost:
        first, why = next(iter(lost.items()))
        raise MmerError(
            f"{cache.path} holds features of {len(lost)} utterances that this run would drop (first: {first}: {why}); "
            "bring them back, name another file by --cache, or let them go by --replace"
        )


def encoder_of(spec: StreamSpec) -> tuple[str, str, str]:
    """Gives what makes two encoders one: source, revision, weights."""
    return spec.source, spec.revision, spec.weights


@dataclass(frozen=True, kw_only=True)
class CorpusHeader:
    """What the file says of its corpus: its name and the folder it was read from."""

    name: str
    root: Path

    def as_json(self) -> dict[str, str]:
        """Gives the plain object kept in the file."""
        return {"name": self.name, "root": str(self.root)}


@contextmanager
def prepared(
    path: Path,
    corpus: CorpusHeader,
    inputs: Inputs,
    plans: Sequence[EncoderPlan],
    *,
    replace: bool,
    progress: ExtractionProgress,
) -> Iterator[tuple[CacheWriter, list[str]]]:
    """Opens the cache for the rows of a run; the caller holds `cache.writer.writing_lock`.

    Rows whose input is no longer what the encoder consumed are pending again. Nothing is computed here.

    Args:
        path: the cache file, created if there is none.
        corpus: what the file says of its corpus.
        inputs: of the corpus as it is now.
        plans: the encoders of this run; other streams of the file are kept.
        replace: recompute what was computed otherwise or is damaged, and drop what left the corpus.
        progress: told how far the look at recordings of an earlier run is.

    Yields:
        A writer, and notes on what was found.

    Raises:
        MmerError: if the file belongs to another corpus or to other utterances altogether, if a stream of the same
            name was computed otherwise, or if recordings are gone that the file holds features of.
        DiskFull: if there is no room for what is planned.
    """
    streams = [stream for plan in plans for stream in plan.streams()]
    planned = _FilePlan(path=path, corpus=corpus, inputs=inputs, plans=plans, streams=streams, replace=replace)
    notes: list[str] = []
    stale: dict[str, set[int]] = {}
    unreadable: dict[str, str] = {}
    if not path.exists():
        _build(planned, others=[], old=None, stale=stale)
    else:
        cache = FeatureCache(path)
        check_same_corpus(cache, corpus.name, inputs)
        if not replace:
            check_same_keys(cache, streams)
            check_same_encoders(cache, streams)
        sounds = digest_recordings(cache, inputs, progress)
        unreadable = {name: told for name, told in sounds.items() if isinstance(told, str)}
        if not replace:
            refuse_lost(cache, lost_features(cache, inputs, streams) | unreadable)
        stale = _stale(planned, cache, sounds)
        notes += [*_changed_notes(cache, stale), *_settle(planned, cache, stale)]
    with CacheWriter(read_layout(path)) as writer:
        _fail_planned(writer, streams)
        _fail_unreadable(writer, planned, unreadable)
        _refresh_notes(writer, planned)
        check_room(path.parent, _pending_bytes(writer, streams))
        yield writer, notes


def _another_name(spec: StreamSpec) -> str:
    if spec.role == "chars":
        return ""
    name = spec.encoder.split("+history")[0]
    layers = "" if spec.layers in {"last", "quantizer", "tokenizer"} else f"@{spec.layers}"
    return f", or keep both under another name, as in --encoder {name}-2={spec.source}{layers}"


@dataclass(frozen=True, kw_only=True)
class _FilePlan:
    """What the file is to hold of this run."""

    path: Path
    corpus: CorpusHeader
    inputs: Inputs
    plans: Sequence[EncoderPlan]
    streams: Sequence[StreamPlan]
    replace: bool


def _stale(planned: _FilePlan, cache: FeatureCache, sounds: Mapping[str, bytes | str]) -> dict[str, set[int]]:
    """Finds the rows that are to be computed anew: their input changed, or --replace finds them damaged."""
    stale = changed_rows(cache, planned.inputs, planned.plans, sounds)
    damaged = damaged_rows(cache) if planned.replace else {}
    return {name: rows | damaged.get(name, set()) for name, rows in stale.items()}


def _changed_notes(cache: FeatureCache, stale: Mapping[str, set[int]]) -> list[str]:
    return [
        f"{name}: {len(rows)} utterances are no longer what was encoded (first: {cache.ids[min(rows)]})"
        for name, rows in stale.items()
        if rows
    ]


def _settle(planned: _FilePlan, cache: FeatureCache, stale: Mapping[str, set[int]]) -> list[str]:
    """Takes stale rows back, in a new file if the plan is not the one that the old was created for."""
    utterances = planned.inputs.utterances
    planned_so = all(_planned_so(cache, stream) for stream in planned.streams) and _holds_weights(planned)
    if planned_so and list(cache.utterances) == utterances:
        with CacheWriter(cache.layout) as writer:
            for name, rows in stale.items():
                writer.reset(name, sorted(rows))
        return []
    others = [plan_of(cache.layout, cache.streams[name], utterances) for name in _kept_streams(planned, cache)]
    held = sum(int(np.count_nonzero(stream.state == COMMITTED)) for stream in cache.streams.values())
    kept = _build(planned, others=others, old=cache, stale=stale)
    return [f"the plan changed: {planned.path} was rebuilt with {kept} of {held} committed rows of utterances"]


def _kept_streams(planned: _FilePlan, cache: FeatureCache) -> list[str]:
    """Names the streams of other runs, without those of an encoder whose name another one takes over."""
    named, taken = {stream.spec.name for stream in planned.streams}, _taken(planned, cache)
    others = [name for name in cache.streams if name not in named]
    return [name for name in others if cache.streams[name].spec.encoder not in taken]


def _taken(planned: _FilePlan, cache: FeatureCache) -> set[str]:
    """Names the encoders of the file whose name another one takes over."""
    return {stream.spec.encoder for stream in planned.streams if others_of(cache, stream.spec)}


def _build(
    planned: _FilePlan, *, others: Sequence[StreamPlan], old: FeatureCache | None, stale: Mapping[str, set[int]]
) -> int:
    return build_file(
        planned.path,
        header={"mmer_version": mmer_version(), "created": _created(old), "corpus": planned.corpus.as_json()},
        utterances=planned.inputs.utterances,
        plans=[*others, *planned.streams],
        weights=_weights(planned, others, old),
        keep=lambda stream, index: index not in stale.get(stream.spec.name, ()),
    )


def _created(old: FeatureCache | None) -> str:
    return str(old.layout.header["created"]) if old else datetime.now(UTC).isoformat(timespec="seconds")


def _weights(planned: _FilePlan, others: Sequence[StreamPlan], old: FeatureCache | None) -> Weights:
    """Joins the weights of this run to those held of the same encoders: fewer start layers take none away."""
    new = _start_weights(planned.plans)
    if old is None:
        return new
    kept = {stream.spec.encoder for stream in others} | (new.keys() - _taken(planned, old))
    held = {name: arrays for name, arrays in read_weights(planned.path).items() if name in kept}
    return {name: {**held.get(name, {}), **new.get(name, {})} for name in {**held, **new}}


def _start_weights(plans: Sequence[EncoderPlan]) -> Weights:
    return {plan.specs[0].encoder: plan.encoder.start_weights for plan in plans if plan.encoder.start_weights}


def _holds_weights(planned: _FilePlan) -> bool:
    held = read_weights(planned.path)
    return all(arrays.keys() <= held.get(name, {}).keys() for name, arrays in _start_weights(planned.plans).items())


def _planned_so(cache: FeatureCache, plan: StreamPlan) -> bool:
    stream = cache.streams.get(plan.spec.name)
    return (
        stream is not None
        and stream.key == plan.spec.key
        and _pieces(stream.spec) == _pieces(plan.spec)
        and stream.spec.trained_on == plan.spec.trained_on
        and np.array_equal(stream.lengths, plan.lengths)
    )


def _pieces(spec: StreamSpec) -> Scalar:
    """Says how long the pieces of long recordings are; a limit that cuts nothing decides no value."""
    return spec.limits.get("max_seconds") if spec.limits.get("chunk") else None


def _fail_planned(writer: CacheWriter, streams: Sequence[StreamPlan]) -> None:
    """Brings the reasons of utterances that cannot be encoded up to date."""
    for stream in streams:
        for index, reason in stream.failures.items():
            writer.fail(stream.spec.name, index, reason)


def _refresh_notes(writer: CacheWriter, planned: _FilePlan) -> None:
    """Brings what is noted of transcripts up to date: it may change where the cleaned text does not."""
    cache = FeatureCache(planned.path)
    for plan in planned.plans:
        for spec in plan.specs if plan.consumes != SPEECH else ():
            for index in np.flatnonzero(writer.states[spec.name] == COMMITTED).tolist():
                told = cache.stream(spec.name).reason(index)
                note = _renewed(told, plan, planned.inputs, index)
                if reason_bytes(note) != reason_bytes(told):
                    writer.note(spec.name, index, note)


def _renewed(told: str, plan: EncoderPlan, inputs: Inputs, index: int) -> str:
    """Gives a note with what is noticed about the transcript now; what encoding it showed stays."""
    overflowed = overflow_note(plan.specs[0].precision)
    kept = [overflowed] if overflowed in told.split("; ") else []
    return "; ".join(one for one in (*kept, transcript_note(plan, inputs, index)) if one)


def _fail_unreadable(writer: CacheWriter, planned: _FilePlan, unreadable: Mapping[str, str]) -> None:
    """Says in the streams of other runs, too, why features were dropped by --replace."""
    named = {stream.spec.name for stream in planned.streams}
    others = [name for name, one in writer.layout.streams.items() if name not in named and _hears(one.spec)]
    for index, utterance in enumerate(planned.inputs.utterances):
        for name in others if utterance.id in unreadable else ():
            writer.fail(name, index, unreadable[utterance.id])


def _hears(spec: StreamSpec) -> bool:
    """Tells whether a stream depends on the recordings at hand."""
    return spec.consumes == SPEECH and not spec.imported


def _pending_bytes(writer: CacheWriter, streams: Sequence[StreamPlan]) -> int:
    missing = [writer.states[stream.spec.name] != COMMITTED for stream in streams]
    return sum(
        int(stream.lengths[where].sum()) * stream.spec.row_bytes for stream, where in zip(streams, missing, strict=True)
    )
