"""Looks at the inputs again: whether recordings and transcripts are still those that were featurized."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache as remembered
from pathlib import Path

import numpy as np

from cache.errors import MmerError
from cache.layout import COMMITTED, StreamPlan
from cache.store import FeatureCache, Stream
from cache.stream import SPEECH, StreamSpec
from cache.utterance import Utterance
from cache.writer import rows_checksum
from featurize.corpora.iemocap import RELEASE
from featurize.extraction.plan import EncoderPlan, Inputs, history_of, speech_digest, transcript_digest
from featurize.extraction.progress import ExtractionProgress
from featurize.inputs.audio import DECODE_THREADS, AudioSpan, RecordingError, cut, load, probe


def current_audio_digests(root: Path) -> Callable[[Utterance, Stream], bytes | str]:
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


def lost_features(cache: FeatureCache, inputs: Inputs, streams: Sequence[StreamPlan]) -> dict[str, str]:
    """Finds utterances whose features the plan of a run has no place for, and why; by id.

    Args:
        cache: the file as it is.
        inputs: of the corpus as it is now.
        streams: of the run; other streams of the file keep what they have of the utterances that stay.
    """
    now = {utterance.id for utterance in inputs.utterances}
    left = _held(cache.streams.values(), cache) - now
    gone = [name for name in cache.ids if name in left]
    lost = dict.fromkeys(gone, "not among the utterances of this run")
    for plan in (one for one in streams if one.spec.consumes == SPEECH):
        held = _held([cache.streams[plan.spec.name]], cache) if plan.spec.name in cache.streams else set()
        failing = {inputs.utterances[index].id: why for index, why in plan.failures.items()}
        lost |= {name: why for name, why in failing.items() if name in held}
    return lost


def damaged_rows(cache: FeatureCache) -> dict[str, set[int]]:
    """Finds committed rows whose bytes are no longer those that were committed; indices by stream."""
    return {
        name: {
            index
            for index in np.flatnonzero(stream.state == COMMITTED).tolist()
            if rows_checksum(stream.stored(index)) != int(stream.checksum[index])
        }
        for name, stream in cache.streams.items()
    }


def changed_rows(
    cache: FeatureCache, inputs: Inputs, plans: Sequence[EncoderPlan], sounds: Mapping[str, bytes | str]
) -> dict[str, set[int]]:
    """Finds committed rows whose recording or transcript is no longer the one that was encoded.

    Args:
        cache: the file as it is.
        inputs: of the corpus as it is now.
        plans: of the streams that are planned anew; other streams have their own specs.
        sounds: digest of each recording as it is now, or why it cannot be decoded; by utterance id.

    Returns:
        Indices in the cache, by stream; utterances that left the corpus are none of them.
    """
    now = {utterance.id: index for index, utterance in enumerate(inputs.utterances)}
    planned = {spec.name: (spec, plan) for plan in plans for spec in plan.specs}
    changed: dict[str, set[int]] = {}
    for name, stream in cache.streams.items():
        spec, plan = planned.get(name, (stream.spec, None))
        # Rows of another key go anyway, and of imported ones nobody can say from the corpus what they should be.
        if spec.key != stream.key or spec.imported:
            changed[name] = set()
            continue
        held = [index for index in np.flatnonzero(stream.state == COMMITTED).tolist() if cache.ids[index] in now]
        changed[name] = {
            index
            for index in held
            if bytes(stream.input_digest[index]) not in _digests(spec, plan, inputs, now[cache.ids[index]], sounds)
        }
    return changed


def digest_recordings(cache: FeatureCache, inputs: Inputs, progress: ExtractionProgress) -> dict[str, bytes | str]:
    """Digests every recording that the cache holds features of, or says why it cannot be read any more; by id."""
    held = _held(_speech(cache), cache)
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


def _digests(
    spec: StreamSpec, plan: EncoderPlan | None, inputs: Inputs, index: int, sounds: Mapping[str, bytes | str]
) -> set[bytes]:
    """Gives the digests under which a committed row is still good, one unless it depends on an encoder not at hand."""
    utterance, span = inputs.utterances[index], inputs.spans[index]
    if spec.consumes != SPEECH:
        # Without its tokenizer nobody knows how many turns of the history fitted in.
        counts = range(history_of(spec) + 1) if plan is None else (plan.planned[index].turns,)
        return {transcript_digest(inputs.turn(index, count), spec) for count in counts}
    sound = sounds[utterance.id]
    if isinstance(sound, str) or isinstance(span, str):
        return set()
    return {speech_digest(sound, span.samples, spec)}


def _sound_digest(span: AudioSpan | str) -> bytes | str:
    if isinstance(span, str):
        return span
    try:
        return load(span).digest
    except RecordingError as error:
        return str(error)


def _held(streams: Iterable[Stream], cache: FeatureCache) -> set[str]:
    return {cache.ids[index] for stream in streams for index in np.flatnonzero(stream.state == COMMITTED)}


def _speech(cache: FeatureCache) -> list[Stream]:
    streams = cache.streams.values()
    return [stream for stream in streams if stream.spec.consumes == SPEECH and not stream.spec.imported]
