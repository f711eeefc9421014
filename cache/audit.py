"""Audit of a cache: its contents, and whether every committed row still holds what was written."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cache.joined import AnyCache, AnyStream
from cache.layout import COMMITTED, FAILED, PENDING
from cache.rows import all_finite, rows_checksum
from cache.store import FeatureCache, Stream
from cache.stream import NO_VIEW, SPEECH
from cache.transcripts import HAS_TEXT, is_transcripts
from cache.utterance import Utterance

NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?")
STATES = {PENDING: "pending", COMMITTED: "committed", FAILED: "failed"}


@dataclass(frozen=True)
class Problem:
    """One defect found in a cache; `id` is empty where it concerns a whole stream."""

    stream: str
    id: str
    problem: str


@dataclass(frozen=True)
class ReasonGroup:
    """Utterances that failed, or have a note, for the same kind of reason; `id`, `stream`, `reason`: of the first."""

    kind: str
    utterances: int
    id: str
    stream: str
    reason: str

    def __str__(self) -> str:
        example = f"{self.id} in {self.stream}: {self.reason}"
        return example if self.utterances == 1 else f"{self.utterances} x {self.kind} (first: {example})"


def summarize(cache: AnyCache) -> dict[str, Any]:
    """Counts the contents of a cache, as ``mmer-cache info --json`` prints them."""
    failures = [
        {"id": cache.ids[index], "stream": name, "reason": stream.reason(index)}
        for name, stream in cache.streams.items()
        for index in sorted({*np.flatnonzero(stream.state == FAILED).tolist()} - left_out(stream))
    ]
    streams = {name: _summary(stream) for name, stream in cache.streams.items()}
    return {"utterances": len(cache.utterances), "streams": streams, "failures": failures}


def left_out(stream: AnyStream) -> set[int]:
    """Returns the utterances that a stream leaves out on purpose; they are stored as failed.

    A stream of views leaves out those that are not for training, a stream of transcripts those that have a text.
    """
    failed = np.flatnonzero(stream.state == FAILED).tolist() if _leaves_out(stream) else []
    return {index for index in failed if stream.reason(index).startswith((NO_VIEW, HAS_TEXT))}


def noted(cache: AnyCache) -> list[dict[str, str]]:
    """Lists the notes of committed rows, in the form of the failures of `summarize`."""
    return [
        {"id": cache.ids[index], "stream": name, "note": stream.reason(index)}
        for name, stream in cache.streams.items()
        for index in np.flatnonzero(stream.state == COMMITTED).tolist()
        if stream.reason(index)
    ]


def grouped(items: Sequence[Mapping[str, str]], key: str) -> list[ReasonGroup]:
    """Groups failures or notes by their kind: the text without numbers and paths; largest group first.

    Args:
        items: what `summarize` lists as failures, or `noted` as notes.
        key: ``reason`` or ``note``.

    Example:
        >>> items = [{"id": name, "stream": "mel", "reason": f"truncated: {name} of 9 bytes"} for name in "12"]
        >>> [(group.kind, group.utterances) for group in grouped(items, "reason")]
        [('truncated: N of N bytes', 2)]
    """
    ids: dict[str, set[str]] = {}
    first: dict[str, Mapping[str, str]] = {}
    for item in items:
        text = item[key]
        kind = NUMBER.sub("N", text.split(" (tried ")[0].split("; ")[0] if " (tried " in text else text)
        ids.setdefault(kind, set()).add(item["id"])
        first.setdefault(kind, item)
    groups = [
        ReasonGroup(kind, len(held), first[kind]["id"], first[kind]["stream"], first[kind][key])
        for kind, held in ids.items()
    ]
    return sorted(groups, key=lambda group: -group.utterances)


def verify(cache: AnyCache) -> list[Problem]:
    """Checks every stream of every file: key, states, checksums of committed rows, NaN and infinity."""
    return [
        problem
        for file in cache.files
        for stream in file.streams.values()
        for problem in _stream_problems(file, stream, prefix=f"{file.path}: " if len(cache.files) > 1 else "")
    ]


def verify_recordings(cache: AnyCache, digest_of: Callable[[Utterance, Stream], bytes | str]) -> list[Problem]:
    """Compares the present recordings with those that each speech stream was computed from.

    Imported streams are left out: their input digests are of the rows, not of a recording.

    Args:
        cache: an open cache, of one file or several.
        digest_of: returns the input digest of an utterance for a stream, or the reason why there is none.
    """
    return [
        problem
        for file in cache.files
        for stream in file.streams.values()
        if stream.spec.consumes == SPEECH and not stream.spec.imported
        for problem in _recording_problems(file, stream, digest_of)
    ]


def as_json(problems: list[Problem]) -> list[dict[str, str]]:
    """Returns the problems as plain objects, for JSON."""
    return [asdict(problem) for problem in problems]


def count_states(stream: AnyStream) -> dict[str, int]:
    """Counts the utterances of a stream by state; those that a stream leaves out are not failed."""
    counts = {name: int(np.count_nonzero(stream.state == state)) for state, name in STATES.items()}
    if not _leaves_out(stream):
        return counts
    without = len(left_out(stream))
    return {**counts, "failed": counts["failed"] - without, "left_out": without}


def _leaves_out(stream: AnyStream) -> bool:
    return bool(stream.spec.view) or is_transcripts(stream.spec)


def _summary(stream: AnyStream) -> dict[str, Any]:
    spec, rows = stream.spec, stream.rows
    shape = {"rows": rows, "dim": spec.shape[-1], "dtype": spec.dtype}
    if len(spec.shape) > 1:
        shape["layers"] = spec.shape[0]
    return {**shape, **count_states(stream), "bytes": rows * spec.row_bytes, "key": stream.key}


def _recording_problems(
    cache: FeatureCache, stream: Stream, digest_of: Callable[[Utterance, Stream], bytes | str]
) -> Iterator[Problem]:
    name = stream.spec.name
    for index in np.flatnonzero(stream.state == COMMITTED).tolist():
        digest = digest_of(cache.utterances[index], stream)
        if isinstance(digest, str):
            yield Problem(name, cache.ids[index], digest)
        elif digest != bytes(stream.input_digest[index]):
            yield Problem(name, cache.ids[index], "the recording is not the one that was featurized")


def _stream_problems(cache: FeatureCache, stream: Stream, prefix: str) -> Iterator[Problem]:
    name, count = stream.spec.name, len(cache.utterances)
    if stream.spec.key != stream.key:
        yield Problem(name, "", f"{prefix}key {stream.key} does not belong to its spec {stream.spec.key}")
    for index in range(count):
        for problem in _row_problems(stream, index):
            yield Problem(name, cache.ids[index], problem)


def _row_problems(stream: Stream, index: int) -> Iterator[str]:
    state = int(stream.state[index])
    if state not in STATES:
        yield f"impossible state {state}"
    if state == FAILED and not stream.reason(index):
        yield "failed without a reason"
    if state != COMMITTED:
        return
    stored = stream.stored(index)
    if rows_checksum(stored) != int(stream.checksum[index]):
        yield "checksum differs: the rows are not those that were committed"
    elif not all_finite(stored):
        yield "holds NaN or infinity"
    if not any(bytes(stream.input_digest[index])):
        yield "committed without an input digest"
