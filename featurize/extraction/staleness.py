"""Staleness of stored features: comparison of current recordings and transcripts with those that were encoded."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache as memoize
from pathlib import Path

import numpy as np

from cache.errors import MmerError
from cache.layout import COMMITTED, StreamPlan
from cache.rows import rows_checksum
from cache.store import FeatureCache, Stream
from cache.stream import SPEECH, StreamSpec
from cache.transcripts import AsrReading, stored_transcripts
from cache.utterance import Utterance
from featurize.corpora.iemocap import RELEASE
from featurize.extraction.plan import AsrTexts, EncoderPlan, Inputs, history_of, speech_digest, transcript_digest
from featurize.extraction.progress import ExtractionProgress
from featurize.inputs.audio import DECODE_THREADS, AudioSpan, RecordingError, cut, load, probe


def current_audio_digests(root: Path) -> Callable[[Utterance, Stream], bytes | str]:
    """Builds a function from utterance and stream to the digest of the current audio, or the reason why there is none.

    Args:
        root: folder to which the paths of recordings are relative, or another root that the corpus accepts.

    Raises:
        MmerError: if there is no such folder.
    """
    root = audio_folder(root)

    @memoize  # all speech streams read the same recording
    def audio_digest(audio: str, start_s: float | None, end_s: float | None) -> tuple[bytes, int] | str:
        try:
            span = cut(probe(root / audio), start_s, end_s)
            return load(span).digest, span.samples
        except RecordingError as error:
            return str(error)

    def digest_of(utterance: Utterance, stream: Stream) -> bytes | str:
        result = audio_digest(utterance.audio, utterance.start_s, utterance.end_s)
        return result if isinstance(result, str) else speech_digest(*result, stream.spec)

    return digest_of


def audio_folder(root: Path) -> Path:
    """Returns the folder to which the paths of recordings are relative.

    Args:
        root: that folder, a manifest next to the recordings, or another root that the corpus accepts.

    Raises:
        MmerError: if there is no such folder.
    """
    if not root.exists():
        raise MmerError(f"folder {root} not found; expected the same path as --root of mmer-featurize")
    if root.is_file():  # a manifest, whose recordings lie next to it
        return root.parent
    return root / RELEASE if (root / RELEASE).is_dir() else root


def find_lost_features(cache: FeatureCache, inputs: Inputs, streams: Sequence[StreamPlan]) -> dict[str, str]:
    """Finds utterances whose stored features a run would drop, with the reason, by id.

    Args:
        cache: the cache before the run.
        inputs: current inputs of the corpus.
        streams: streams of the run; other streams of the file keep the features of utterances that stay.
    """
    current = {utterance.id for utterance in inputs.utterances}
    absent = _stored_ids(cache.streams.values(), cache) - current
    ordered = [utterance_id for utterance_id in cache.ids if utterance_id in absent]
    lost = dict.fromkeys(ordered, "not among the utterances of this run")
    for plan in (stream for stream in streams if stream.spec.consumes == SPEECH):
        stored = _stored_ids([cache.streams[plan.spec.name]], cache) if plan.spec.name in cache.streams else set()
        failures = {inputs.utterances[index].id: reason for index, reason in plan.failures.items()}
        lost |= {utterance_id: reason for utterance_id, reason in failures.items() if utterance_id in stored}
    return lost


def find_damaged_rows(cache: FeatureCache) -> dict[str, set[int]]:
    """Finds committed rows whose bytes have changed since they were committed; indices by stream."""
    return {
        name: {
            index
            for index in np.flatnonzero(stream.state == COMMITTED).tolist()
            if rows_checksum(stream.stored(index)) != int(stream.checksum[index])
        }
        for name, stream in cache.streams.items()
    }


def find_changed_rows(
    cache: FeatureCache, inputs: Inputs, plans: Sequence[EncoderPlan], audio_digests: Mapping[str, bytes | str]
) -> dict[str, set[int]]:
    """Finds committed rows whose recording or transcript has changed since it was encoded.

    Args:
        cache: the cache before the run.
        inputs: current inputs of the corpus.
        plans: plans of the run; streams of other runs keep their own specs.
        audio_digests: current digest of each recording, or the reason why it cannot be decoded, by utterance id.

    Returns:
        Indices in the cache, by stream; utterances that left the corpus are not among them.
    """
    current = {utterance.id: index for index, utterance in enumerate(inputs.utterances)}
    planned = {spec.name: (spec, plan) for plan in plans for spec in plan.specs}
    changed: dict[str, set[int]] = {}
    # Transcripts by ASR come first: a changed recording makes its transcript stale, and all that was computed from it.
    for name, stream in sorted(cache.streams.items(), key=lambda item: item[1].spec.consumes != SPEECH):
        spec, plan = planned.get(name, (stream.spec, None))
        reading = AsrReading.of(spec)
        if reading is not None and reading not in inputs.asr:
            inputs = _with_stored_transcripts(inputs, cache, reading, changed)
        # Rows of another key are dropped anyway, and the corpus does not determine imported rows.
        unknown = reading is not None and reading not in inputs.asr
        if spec.key != stream.key or spec.imported or unknown:
            changed[name] = set()
            continue
        committed = np.flatnonzero(stream.state == COMMITTED).tolist()
        indices = {index: current[cache.ids[index]] for index in committed if cache.ids[index] in current}
        changed[name] = {
            index
            for index, now in indices.items()
            if bytes(stream.input_digest[index]) not in _valid_digests(spec, plan, inputs, now, audio_digests)
        }
    return changed


def digest_recordings(cache: FeatureCache, inputs: Inputs, progress: ExtractionProgress) -> dict[str, bytes | str]:
    """Computes the digest of every recording with stored features, or the reason why it is unreadable, by id."""
    speech = [
        stream for stream in cache.streams.values() if stream.spec.consumes == SPEECH and not stream.spec.imported
    ]
    stored = _stored_ids(speech, cache)
    indices = [index for index, utterance in enumerate(inputs.utterances) if utterance.id in stored]
    if not indices:
        return {}
    seconds = [inputs.utterances[index].duration_s or 0.0 for index in indices]
    progress.start("checking recordings", len(indices), sum(seconds))
    digests: dict[str, bytes | str] = {}
    with ThreadPoolExecutor(DECODE_THREADS) as threads:
        results = threads.map(lambda index: _audio_digest(inputs.spans[index]), indices)
        for index, duration_s, digest in zip(indices, seconds, results, strict=True):
            digests[inputs.utterances[index].id] = digest
            progress.advance(1, duration_s)
    return digests


def _with_stored_transcripts(
    inputs: Inputs, cache: FeatureCache, reading: AsrReading, changed: Mapping[str, set[int]]
) -> Inputs:
    """Adds the valid transcripts of an earlier run to the inputs, as far as the cache has their stream."""
    stored = stored_transcripts(cache, reading.key)
    if stored is None:
        return inputs
    names = [name for name, stream in cache.streams.items() if stream.key == reading.key]
    stale = {cache.ids[index] for name in names for index in changed.get(name, ())}
    valid = {name: text for name, text in stored.items() if name not in stale}
    texts = AsrTexts(inputs.utterances, valid, every=reading.every)
    return replace(inputs, asr={**inputs.asr, reading: texts})


def _valid_digests(
    spec: StreamSpec, plan: EncoderPlan | None, inputs: Inputs, index: int, audio_digests: Mapping[str, bytes | str]
) -> set[bytes]:
    """Computes the input digests with which a stored row is still valid, several if its encoder is not loaded."""
    utterance, span = inputs.utterances[index], inputs.spans[index]
    if spec.consumes != SPEECH:
        if inputs.untranscribed(index, spec):
            return set()
        # Without its tokenizer, the number of turns of the history that fitted is unknown.
        counts = range(history_of(spec) + 1) if plan is None else (plan.planned[index].turns,)
        return {transcript_digest(inputs.turn(index, count, spec), spec) for count in counts}
    digest = audio_digests[utterance.id]
    if isinstance(digest, str) or isinstance(span, str):
        return set()
    return {speech_digest(digest, span.samples, spec)}


def _audio_digest(span: AudioSpan | str) -> bytes | str:
    if isinstance(span, str):
        return span
    try:
        return load(span).digest
    except RecordingError as error:
        return str(error)


def _stored_ids(streams: Iterable[Stream], cache: FeatureCache) -> set[str]:
    return {cache.ids[index] for stream in streams for index in np.flatnonzero(stream.state == COMMITTED)}
