"""Looks at the inputs again: whether recordings and transcripts are still those that were featurized."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache as remembered
from pathlib import Path

import numpy as np

from cache.errors import MmerError
from cache.layout import COMMITTED
from cache.store import FeatureCache, Stream
from cache.stream import SPEECH
from cache.utterance import Utterance
from cache.writer import CacheWriter
from featurize.audio import DECODE_THREADS, RecordingError, Span, cut, load, probe
from featurize.plan import Inputs, speech_digest, transcript_digest
from featurize.progress import Progress


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


def unreadable(cache: FeatureCache, inputs: Inputs) -> dict[str, str]:
    """Finds recordings that the cache holds features of but that cannot be read any more: id -> why."""
    held = {cache.ids[index] for stream in _speech(cache) for index in np.flatnonzero(stream.state == COMMITTED)}
    pairs = zip(inputs.utterances, inputs.spans, strict=True)
    return {utterance.id: span for utterance, span in pairs if isinstance(span, str) and utterance.id in held}


def refuse_lost(cache: FeatureCache, inputs: Inputs, lost: Mapping[str, str]) -> None:
    """Refuses to give up features whose recordings are gone.

    Raises:
        MmerError: if there are any, with the first of them.
    """
    if lost:
        first, why = next(iter(lost.items()))
        raise MmerError(
            f"{len(lost)} of {len(inputs.utterances)} recordings that {cache.path} holds features of cannot be read "
            f"any more (first: {first}: {why}); bring them back, or drop their features by --replace"
        )


def reset_changed(writer: CacheWriter, inputs: Inputs, *, replace: bool, progress: Progress) -> list[str]:
    """Makes rows pending whose recording or transcript is no longer the one that was encoded.

    Args:
        writer: of the cache.
        inputs: of the corpus as it is now, in the order of the cache.
        replace: do so for recordings that can no longer be decoded, too.
        progress: told how far the decoding is.

    Returns:
        A note for each stream that has such rows.

    Raises:
        MmerError: if recordings of committed rows can no longer be decoded.
    """
    cache = FeatureCache(writer.layout.path)
    sounds = _sounds(cache, inputs, progress)
    lost = {cache.ids[index]: told for index, told in sounds.items() if isinstance(told, str)}
    if not replace:
        refuse_lost(cache, inputs, lost)
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


def _sounds(cache: FeatureCache, inputs: Inputs, progress: Progress) -> dict[int, bytes | str]:
    """Digests every recording that the cache holds features of, or says why it cannot be decoded any more."""
    held = [index for index in range(len(cache)) if any(one.state[index] == COMMITTED for one in _speech(cache))]
    if not held:
        return {}
    seconds = [inputs.utterances[index].duration_s or 0.0 for index in held]
    progress.start("recordings as before?", len(held), sum(seconds))
    sounds: dict[int, bytes | str] = {}
    with ThreadPoolExecutor(DECODE_THREADS) as threads:
        found = threads.map(lambda index: _sound_digest(inputs.spans[index]), held)
        for index, duration_s, digest in zip(held, seconds, found, strict=True):
            sounds[index] = digest
            progress.advance(1, duration_s)
    return sounds


def _sound_digest(span: Span | str) -> bytes | str:
    if isinstance(span, str):
        return span
    try:
        return load(span).digest
    except RecordingError as error:
        return str(error)


def _speech(cache: FeatureCache) -> list[Stream]:
    return [stream for stream in cache.streams.values() if stream.spec.consumes == SPEECH]
