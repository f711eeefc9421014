"""Preparation of the cache file for a run: created, resumed, or rebuilt for a changed plan.

Before an existing cache is changed, checks stop the run for another corpus, another key of a stream, another encoder of
the same name, and features that would be lost.
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
from cache.transcripts import ENDING, is_transcripts
from cache.utterance import Utterance, own_columns
from cache.version import mmer_version
from cache.writer import CacheWriter
from featurize.extraction.plan import EncoderPlan, Inputs, overflow_note, transcript_note
from featurize.extraction.progress import ExtractionProgress
from featurize.extraction.staleness import digest_recordings, find_changed_rows, find_damaged_rows, find_lost_features

NAME_COLUMNS = ("label", "speaker", "session", "dialogue", "split", "sentiment")  # they decide classes and folds


@dataclass(frozen=True, kw_only=True)
class CorpusHeader:
    """The entry of a cache file on its corpus: its name and all that reads it again.

    Attributes:
        name: name in the catalog of corpora.
        root: folder that the recordings lie in.
        table: name of the manifest in that folder; empty for other corpora.
        encoding: encoding that its text was read with; None for Unicode.
        allow_outside: recordings may lie outside the folder.
        columns: columns that were read under other names, ``NAME=COLUMN``.
        keep_columns: further columns of the manifest that were kept.
        limit: number of utterances that were taken of more; None if all were.
    """

    name: str
    root: Path
    table: str = ""
    encoding: str | None = None
    allow_outside: bool = False
    columns: Sequence[str] = ()
    keep_columns: Sequence[str] = ()
    limit: int | None = None

    def as_json(self) -> dict[str, str | bool | int | list[str]]:
        """Returns the entry as a plain object for JSON, without what has its default."""
        more: dict[str, str | bool | int | list[str] | None] = {
            "table": self.table,
            "encoding": self.encoding,
            "allow_outside": self.allow_outside,
            "columns": list(self.columns),
            "keep_columns": list(self.keep_columns),
            "limit": self.limit,
        }
        return {"name": self.name, "root": str(self.root), **{name: value for name, value in more.items() if value}}


@contextmanager
def prepared_cache(
    path: Path,
    corpus: CorpusHeader,
    inputs: Inputs,
    plans: Sequence[EncoderPlan],
    *,
    replace: bool,
    progress: ExtractionProgress,
) -> Iterator[tuple[CacheWriter, list[str]]]:
    """Opens the cache for the rows of a run; the caller must hold `cache.writer.writing_lock`.

    Rows whose input has changed since they were encoded become pending again. No feature is computed here.

    Args:
        path: the cache file, created if it does not exist.
        corpus: entry of the file on its corpus.
        inputs: current inputs of the corpus.
        plans: plans of the encoders of this run; other streams of the file are kept.
        replace: recompute features that were computed differently or are damaged; drop utterances that left the corpus.
        progress: receives the progress of reading the recordings of an earlier run again.

    Yields:
        A writer, and notes on changes of the cache.

    Raises:
        MmerError: if the file belongs to another corpus or holds none of its utterances, if a stream or an encoder of
            the same name was computed differently, or if features of the file would be dropped.
        DiskFull: if there is not enough space for the planned rows.
    """
    streams = [stream for plan in plans for stream in plan.streams()]
    planned = _FilePlan(path=path, corpus=corpus, inputs=inputs, plans=plans, streams=streams, replace=replace)
    notes: list[str] = []
    stale: dict[str, set[int]] = {}
    unreadable: dict[str, str] = {}
    if not path.exists():
        _build(planned, others=[], old=None, stale=stale)
        layout = read_layout(path)
    else:
        cache = FeatureCache(path)
        check_same_corpus(cache, corpus.name, inputs)
        if not replace:
            check_same_keys(cache, streams)
            check_same_encoders(cache, streams)
        audio_digests = digest_recordings(cache, inputs, progress)
        unreadable = {name: digest for name, digest in audio_digests.items() if isinstance(digest, str)}
        if not replace:
            check_nothing_lost(cache, find_lost_features(cache, inputs, streams) | unreadable)
        stale = _find_stale(planned, cache, audio_digests)
        rebuilt = _apply_plan(planned, cache, stale)
        notes += [*_stale_notes(cache, stale), *rebuilt]
        layout = read_layout(path) if rebuilt else cache.layout
    with CacheWriter(layout) as writer:
        _fail_planned(writer, streams)
        _fail_unreadable(writer, planned, unreadable)
        _refresh_notes(writer, planned)
        check_room(path.parent, _pending_bytes(writer, streams))
        yield writer, notes


def check_same_corpus(cache: FeatureCache, corpus: str, inputs: Inputs) -> None:
    """Checks that the cache holds the same corpus and at least one of its utterances.

    Raises:
        MmerError: if it does not.
    """
    held = cache.layout.header["corpus"].get("name")
    if held != corpus:
        raise MmerError(f"{cache.path} holds the corpus {held}, not {corpus}; choose another file with --cache")
    if not {utterance.id for utterance in inputs.utterances} & set(cache.ids):
        raise MmerError(
            f"{cache.path} holds {len(cache)} other utterances (first: {cache.ids[0]}) and none of {inputs.root}; "
            "choose another file with --cache"
        )


def check_same_keys(cache: FeatureCache, streams: Sequence[StreamPlan]) -> None:
    """Checks that the streams of a run have the keys of those in the cache: one stream never mixes rows of two keys.

    Raises:
        MmerError: if a key differs; the message lists the fields that differ and proposes another name.
    """
    for stream in streams:
        name = stream.spec.name
        if name in cache.streams and cache.streams[name].key != stream.spec.key:
            changed = "; ".join(cache.streams[name].spec.differences(stream.spec))
            raise MmerError(
                f"{name} of {cache.path} was computed differently ({changed}); pass --replace to recompute it"
                f"{_another_name(stream.spec)}"
            )


def check_same_encoders(cache: FeatureCache, streams: Sequence[StreamPlan]) -> None:
    """Checks that all streams under the name of an encoder belong to it: start weights are stored by that name.

    Raises:
        MmerError: if a stream belongs to another encoder; the message proposes another name.
    """
    for stream in streams:
        for name in streams_of_other_encoders(cache, stream.spec):
            raise MmerError(
                f"{name} of {cache.path} belongs to another encoder called {stream.spec.encoder}; "
                f"pass --replace to drop it{_another_name(stream.spec)}"
            )


def check_nothing_lost(cache: FeatureCache, lost: Mapping[str, str]) -> None:
    """Checks that a run drops no features.

    Args:
        cache: the cache before the run.
        lost: utterance id -> reason why its features would be dropped.

    Raises:
        MmerError: if there are any; the message names the first utterance.
    """
    if lost:
        first, why = next(iter(lost.items()))
        raise MmerError(
            f"{cache.path} holds features of {len(lost)} utterances that this run would drop (first: {first}: {why}); "
            "restore them, choose another file with --cache, or pass --replace to drop them"
        )


def streams_of_other_encoders(cache: FeatureCache, spec: StreamSpec) -> list[str]:
    """Lists the streams of a cache that another encoder computed under the same name."""
    held = [stream.spec for stream in cache.streams.values()]
    same_name = [other for other in held if other.encoder == spec.encoder and other.role == spec.role]
    return [other.name for other in same_name if encoder_identity(other) != encoder_identity(spec)]


def encoder_identity(spec: StreamSpec) -> tuple[str, str, str]:
    """Returns the identity of an encoder: source, revision, weights."""
    return spec.source, spec.revision, spec.weights


@dataclass(frozen=True, kw_only=True)
class _FilePlan:
    """The content that the file must have for this run."""

    path: Path
    corpus: CorpusHeader
    inputs: Inputs
    plans: Sequence[EncoderPlan]
    streams: Sequence[StreamPlan]
    replace: bool


def _another_name(spec: StreamSpec) -> str:
    if spec.role == "chars":
        return ""
    if is_transcripts(spec):
        return f", or keep both under another name, as in --asr {spec.name.removesuffix(ENDING)}-2={spec.source}"
    name = spec.encoder.partition("+")[0]
    layers = "" if spec.layers in {"last", "quantizer", "tokenizer"} else f"@{spec.layers}"
    return f", or keep both under another name, as in --encoder {name}-2={spec.source}{layers}"


def _find_stale(
    planned: _FilePlan, cache: FeatureCache, audio_digests: Mapping[str, bytes | str]
) -> dict[str, set[int]]:
    """Finds the rows to recompute, by stream: those with a changed input and, with --replace, damaged ones."""
    stale = find_changed_rows(cache, planned.inputs, planned.plans, audio_digests)
    damaged = find_damaged_rows(cache) if planned.replace else {}
    return {name: rows | damaged.get(name, set()) for name, rows in stale.items()}


def _stale_notes(cache: FeatureCache, stale: Mapping[str, set[int]]) -> list[str]:
    return [
        f"{name}: {len(rows)} utterances have changed since they were encoded (first: {cache.ids[min(rows)]})"
        for name, rows in stale.items()
        if rows
    ]


def _apply_plan(planned: _FilePlan, cache: FeatureCache, stale: Mapping[str, set[int]]) -> list[str]:
    """Makes stale rows pending, in a rebuilt file if its plan differs from that of this run; returns notes if so."""
    utterances = planned.inputs.utterances
    same_streams = all(_matches_plan(cache, stream) for stream in planned.streams)
    if same_streams and _holds_weights(planned) and list(cache.utterances) == utterances:
        with CacheWriter(cache.layout) as writer:
            for name, rows in stale.items():
                writer.reset(name, sorted(rows))
        return []
    others = [plan_of(cache.layout, cache.streams[name], utterances) for name in _kept_streams(planned, cache)]
    held = sum(int(np.count_nonzero(stream.state == COMMITTED)) for stream in cache.streams.values())
    notes = _column_notes(cache, utterances)
    kept = _build(planned, others=others, old=cache, stale=stale)
    return [*notes, f"the plan changed: {planned.path} was rebuilt with {kept} of {held} committed rows of utterances"]


def _column_notes(cache: FeatureCache, utterances: Sequence[Utterance]) -> list[str]:
    """Returns a note on each column of names in which the corpus now says something else, such as a corrected label."""
    old = {utterance.id: utterance for utterance in cache.utterances}
    notes = []
    for column in (*NAME_COLUMNS, *own_columns(cache.utterances)):
        pairs = [(new.id, old[new.id].text_of(column), new.text_of(column)) for new in utterances if new.id in old]
        changed = [(name, before, now) for name, before, now in pairs if before != now]
        if changed:
            name, before, now = changed[0]
            notes.append(f"{column} of {len(changed)} utterances has changed (first: {name}: {before!r} -> {now!r})")
    return notes


def _kept_streams(planned: _FilePlan, cache: FeatureCache) -> list[str]:
    """Lists the streams of other runs, without those of an encoder that another one of the same name replaces."""
    current, replaced = {stream.spec.name for stream in planned.streams}, _replaced_encoders(planned, cache)
    others = [name for name in cache.streams if name not in current]
    return [name for name in others if cache.streams[name].spec.encoder not in replaced]


def _replaced_encoders(planned: _FilePlan, cache: FeatureCache) -> set[str]:
    """Returns the names under which an encoder of this run replaces another encoder of the file."""
    return {stream.spec.encoder for stream in planned.streams if streams_of_other_encoders(cache, stream.spec)}


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
    """Merges the weights of this run into those of the file: fewer start layers remove none from an encoder."""
    new = _start_weights(planned.plans)
    if old is None:
        return new
    kept = {stream.spec.encoder for stream in others} | (new.keys() - _replaced_encoders(planned, old))
    held = {name: arrays for name, arrays in read_weights(planned.path).items() if name in kept}
    return {name: {**held.get(name, {}), **new.get(name, {})} for name in {**held, **new}}


def _start_weights(plans: Sequence[EncoderPlan]) -> Weights:
    return {plan.specs[0].encoder: plan.encoder.start_weights for plan in plans if plan.encoder.start_weights}


def _holds_weights(planned: _FilePlan) -> bool:
    held = read_weights(planned.path)
    return all(arrays.keys() <= held.get(name, {}).keys() for name, arrays in _start_weights(planned.plans).items())


def _matches_plan(cache: FeatureCache, plan: StreamPlan) -> bool:
    stream = cache.streams.get(plan.spec.name)
    return (
        stream is not None
        and stream.key == plan.spec.key
        and _piece_seconds(stream.spec) == _piece_seconds(plan.spec)
        and stream.spec.trained_on == plan.spec.trained_on
        and np.array_equal(stream.lengths, plan.lengths)
    )


def _piece_seconds(spec: StreamSpec) -> Scalar:
    """Returns the length of the pieces of long recordings; without chunking, the limit determines no value."""
    return spec.limits.get("max_seconds") if spec.limits.get("chunk") else None


def _fail_planned(writer: CacheWriter, streams: Sequence[StreamPlan]) -> None:
    """Updates the reasons of utterances that cannot be encoded."""
    for stream in streams:
        for index, reason in stream.failures.items():
            writer.fail(stream.spec.name, index, reason)


def _fail_unreadable(writer: CacheWriter, planned: _FilePlan, unreadable: Mapping[str, str]) -> None:
    """Writes why --replace dropped features into the streams of other runs as well."""
    current = {stream.spec.name for stream in planned.streams}
    others = [
        name
        for name, stream in writer.layout.streams.items()
        if name not in current and stream.spec.consumes == SPEECH and not stream.spec.imported
    ]
    for index, utterance in enumerate(planned.inputs.utterances):
        for name in others if utterance.id in unreadable else ():
            writer.fail(name, index, unreadable[utterance.id])


def _refresh_notes(writer: CacheWriter, planned: _FilePlan) -> None:
    """Updates the notes on transcripts: they may change even if the cleaned text does not."""
    committed = [
        (plan, spec.name, np.flatnonzero(writer.states[spec.name] == COMMITTED).tolist())
        for plan in planned.plans
        for spec in (plan.specs if plan.consumes != SPEECH else ())
    ]
    if not any(indices for _, _, indices in committed):
        return
    cache = FeatureCache(planned.path)
    for plan, name, indices in committed:
        for index in indices:
            stored = cache.stream(name).reason(index)
            note = _updated_note(stored, plan, planned.inputs, index)
            if reason_bytes(note) != reason_bytes(stored):
                writer.note(name, index, note)


def _updated_note(stored: str, plan: EncoderPlan, inputs: Inputs, index: int) -> str:
    """Returns the current note on a transcript; a stored note that results from its encoding stays."""
    overflowed = overflow_note(plan.specs[0].precision)
    kept = [overflowed] if overflowed in stored.split("; ") else []
    return "; ".join(filter(None, (*kept, transcript_note(plan, inputs, index))))


def _pending_bytes(writer: CacheWriter, streams: Sequence[StreamPlan]) -> int:
    pending = [(stream, writer.states[stream.spec.name] != COMMITTED) for stream in streams]
    return sum(int(stream.lengths[missing].sum()) * stream.spec.row_bytes for stream, missing in pending)
