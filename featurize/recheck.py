"""Digests recordings again, to see whether they are still those that were featurized."""

from collections.abc import Callable
from functools import cache as remembered
from pathlib import Path

from cache.store import Stream
from cache.utterance import Utterance
from featurize.audio import RecordingError, cut, load, probe
from featurize.plan import speech_digest


def recording_digests(root: Path) -> Callable[[Utterance, Stream], bytes | str]:
    """Makes a function that digests what a stream would consume of an utterance now, or says why it cannot.

    Args:
        root: folder that the recordings' paths are relative to.
    """

    @remembered  # every speech stream asks for the same recording
    def sound(audio: str, start_s: float | None, end_s: float | None) -> tuple[bytes, int] | str:
        try:
            span = cut(probe(root / audio), start_s, end_s)
            return load(span).digest, span.samples
        except RecordingError as error:
            return str(error)

    def digest_of(utterance: Utterance, stream: Stream) -> bytes | str:
        found = sound(utterance.audio, utterance.start_s, utterance.end_s)
        return found if isinstance(found, str) else speech_digest(*found, stream.spec)

    return digest_of
