"""Audit of a cache: its contents, and whether every committed row still holds what was written."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cache.joined import AnyCache, AnyStream
from cache.layout import COMMITTED, FAILED, PENDING
from cache.rows import all_finite, rows_checksum
from cache.store import FeatureCache, Stream
from cache.stream import NO_VIEW, SPEECH
from cache.utterance import Utterance

STATES = {PENDING: "pending", COMMITTED: "committed", FAILED: "failed"}


@dataclass(frozen=True)
class Problem:
    """One defect found in a cache; `id` is empty where it concerns a whole stream."""

    stream: str
    id: str
    problem: str


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
    """Returns the utterances that a stream of views leaves out on purpose; they are stored as failed."""
    failed = np.flatnonzero(stream.state == FAILED).tolist() if stream.spec.view else []
    return {index for index in failed if stream.reason(index).startswith(NO_VIEW)}


def noted(cache: AnyCache) -> list[dict[str, str]]:
    """Lists the notes of committed rows, in the form of the failures of `summarize`."""
    return [
        {"id": cache.ids[index], "stream": name, "note": stream.reason(index)}
        for name, stream in cache.streams.items()
        for index in np.flatnonzero(stream.state == COMMITTED).tolist()
        if stream.reason(index)
    ]


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
    """Counts the utterances of a stream by state; those that a stream of views leaves out are not failed."""
    counts = {name: int(np.count_nonzero(stream.state == state)) for state, name in STATES.items()}
    if not stream.spec.view:
        return counts
    without = len(left_out(stream))
    return {**counts, "failed": counts["failed"] - without, "left_out": without}


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
