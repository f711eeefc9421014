"""Looks at the inputs again: whether recordings and transcripts are still those that were featurized."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache as remembered
from pathlib import Path

import numpy as np

from cache.errors import MmerError
from cache.layout import COMMITTED
from cache.store import FeatureCache, Stream
from cache.stream import SPEECH, StreamSpec
from cache.utterance import Utterance
from featurize.audio import DECODE_THREADS, RecordingError, Span, cut, load, probe
from featurize.corpora.iemocap import RELEASE
from featurize.plan import Inputs, speech_digest, transcript_digest
from featurize.progress import Progress


def recording_digests(root: Path) -> Callable[[Utterance, Stream], bytes | str]:
    """Makes a function that digests what a stream would consume of an utterance now, or says why it cannot.

    Args:
        root: folder that the recordings' paths are relative to, or what the corpus takes for it.

    Raises:
        MmerError: if there is no such folder.
    """
    root = _audio_folder(root)

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


def _audio_folder(root: Path) -> Path:
    if not root.exists():
        raise MmerError(f"no folder {root}; --audio takes what --root took")
    if root.is_file():  # of a manifest
        return root.parent
    return root / RELEASE if (root / RELEASE).is_dir() else root


def refuse_lost(cache: FeatureCache, inputs: Inputs, sounds: Mapping[str, bytes | str]) -> None:
    """Refuses to give up features whose recordings cannot be read any more.

    Raises:
        MmerError: if there are any, with the first of them.
    """
    lost = {name: told for name, told in sounds.items() if isinstance(told, str)}
    if lost:
        first, why = next(iter(lost.items()))
        raise MmerError(
            f"{len(lost)} of {len(inputs.utterances)} recordings that {cache.path} holds features of cannot be read "
            f"any more (first: {first}: {why}); bring them back, or drop their features by --replace"
        )


def changed_rows(
    cache: FeatureCache, inputs: Inputs, specs: Mapping[str, StreamSpec], sounds: Mapping[str, bytes | str]
) -> dict[str, set[int]]:
    """Finds committed rows whose recording or transcript is no longer the one that was encoded.

    Args:
        cache: the file as it is.
        inputs: of the corpus as it is now.
        specs: of the streams that are planned anew; other streams have their own.
        sounds: digest of each recording as it is now, or why it cannot be decoded; by utterance id.

    Returns:
        Indices in the cache, by stream; utterances that left the corpus are none of them.
    """
    now = {utterance.id: index for index, utterance in enumerate(inputs.utterances)}
    changed = {}
    for name, stream in cache.streams.items():
        spec = specs.get(name, stream.spec)
        held = [index for index in np.flatnonzero(stream.state == COMMITTED).tolist() if cache.ids[index] in now]
        changed[name] = {
            index
            for index in held
            if bytes(stream.input_digest[index]) != _digest(spec, inputs, now[cache.ids[index]], sounds)
        }
    return changed


def digest_sounds(cache: FeatureCache, inputs: Inputs, progress: Progress) -> dict[str, bytes | str]:
    """Digests every recording that the cache holds features of, or says why it cannot be read any more; by id."""
    held = {cache.ids[index] for stream in _speech(cache) for index in np.flatnonzero(stream.state == COMMITTED)}
    places = [index for index, utterance in enumerate(inputs.utterances) if utterance.id in held]
    if not places:
        return {}
    seconds = [inputs.utterances[index].duration_s or 0.0 for index in places]
    progress.start("recordings as before?", len(places), sum(seconds))
    sounds: dict[str, bytes | str] = {}
    with ThreadPoolExecutor(DECODE_THREADS) as threads:
        found = threads.map(lambda index: _sound_digest(inputs.spans[index]), places)
        for index, duration_s, digest in zip(places, seconds, found, strict=True):
            sounds[inputs.utterances[index].id] = digest
            progress.advance(1, duration_s)
    return sounds


def _digest(spec: StreamSpec, inputs: Inputs, index: int, sounds: Mapping[str, bytes | str]) -> bytes:
    utterance, span = inputs.utterances[index], inputs.spans[index]
    if spec.consumes != SPEECH:
        return transcript_digest(utterance.text, spec)
    sound = sounds[utterance.id]
    if isinstance(sound, str) or isinstance(span, str):
        return b""
    return speech_digest(sound, span.samples, spec)


def _sound_digest(span: Span | str) -> bytes | str:
    if isinstance(span, str):
        return span
    try:
        return load(span).digest
    except RecordingError as error:
        return str(error)


def _speech(cache: FeatureCache) -> list[Stream]:
    return [stream for stream in cache.streams.values() if stream.spec.consumes == SPEECH]
