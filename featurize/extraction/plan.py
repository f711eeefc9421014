"""Everything that is known before anything runs: inputs, rows of every stream, batches."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import cache as remembered
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from cache.corpus_facts import Defect
from cache.errors import MmerError
from cache.layout import StreamPlan
from cache.stream import SPEECH, StreamSpec
from cache.utterance import Utterance
from featurize.corpora.base import CorpusReading, check_reading
from featurize.encoders.base import Encoder, InputPlan
from featurize.extraction.shard import Shard
from featurize.inputs.audio import RATE_HZ, AudioSpan, RecordingError, cut, probe
from featurize.inputs.transcript import Dialogues, Turn, clean_text, text_digest

PROBE_THREADS = 8  # probing waits for the disk, not for a core


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The utterances of a corpus and what each encoder will read of them.

    Attributes:
        root: folder of the recordings.
        utterances: cleaned, with their durations.
        spans: where the sound of each lies, or why there is none.
        remarks: what was noticed about each transcript, empty where nothing was.
        dialogues: of the whole corpus, whatever the limit.
    """

    root: Path
    utterances: list[Utterance]
    spans: list[AudioSpan | str]
    remarks: list[str]
    dialogues: Dialogues

    def turn(self, index: int, count: int) -> Turn:
        """Gives a transcript with up to so many of the turns before it."""
        utterance = self.utterances[index]
        return Turn(utterance.text, self.dialogues.before(utterance.id, count))


@dataclass(frozen=True, kw_only=True)
class EncoderPlan:
    """An encoder and what it will make of each utterance."""

    encoder: Encoder[Any, Any]
    consumes: str
    planned: list[InputPlan]

    @property
    def specs(self) -> list[StreamSpec]:
        """The streams it writes."""
        return self.encoder.specs

    def streams(self) -> list[StreamPlan]:
        """Gives its streams as they are to be created."""
        failures = {index: one.failure for index, one in enumerate(self.planned) if one.failure}
        return [
            StreamPlan(
                spec=spec,
                lengths=np.array([one.rows[place] if one.rows else 0 for one in self.planned], dtype=np.int64),
                failures=failures,
            )
            for place, spec in enumerate(self.specs)
        ]


def read_inputs(reading: CorpusReading, *, limit: int | None = None, shard: Shard | None = None) -> Inputs:
    """Cleans the transcripts of a corpus and probes its recordings.

    Args:
        reading: the corpus as read.
        limit: how many utterances to take, from the first; None for all.

    Raises:
        MmerError: if two ids are the same once undecodable characters are gone.
    """
    cleaned = [_cleaned(utterance) for utterance in reading.utterances]
    dialogues = Dialogues([utterance for utterance, _ in cleaned])
    cleaned = [pair for pair in cleaned[:limit] if shard is None or shard.holds(pair[0].id)]
    check_reading(replace(reading, utterances=[utterance for utterance, _ in cleaned]), "the corpus")
    prober = remembered(_probed)
    with ThreadPoolExecutor(PROBE_THREADS) as threads:
        spans = list(threads.map(lambda pair: _span(reading, pair[0], prober), cleaned))
    utterances = [
        replace(utterance, duration_s=None if isinstance(span, str) else span.duration_s)
        for (utterance, _), span in zip(cleaned, spans, strict=True)
    ]
    remarks = [
        "; ".join(one for one in (reading.remarks.get(utterance.id, ""), note) if one) for utterance, note in cleaned
    ]
    return Inputs(root=reading.root, utterances=utterances, spans=spans, remarks=remarks, dialogues=dialogues)


def plan_encoder(encoder: Encoder[Any, Any], inputs: Inputs, *, max_seconds: float, chunk: bool) -> EncoderPlan:
    """Plans what an encoder will make of every utterance.

    Args:
        encoder: ready to run.
        inputs: of the corpus.
        max_seconds: longest utterance.
        chunk: take longer ones too.
    """
    consumes = encoder.specs[0].consumes
    if consumes != SPEECH:
        history = history_of(encoder.specs[0])
        planned = encoder.plan([inputs.turn(index, history) for index in range(len(inputs.utterances))])
        return EncoderPlan(encoder=encoder, consumes=consumes, planned=planned)
    limit = float("inf") if chunk else max_seconds
    failures = [_too_long(span, limit) for span in inputs.spans]
    sizes = [one.samples for one in inputs.spans if isinstance(one, AudioSpan) and not _too_long(one, limit)]
    counted = iter(encoder.plan(sizes))
    planned = [InputPlan(failure=failure) if failure else next(counted) for failure in failures]
    return EncoderPlan(encoder=encoder, consumes=consumes, planned=planned)


def transcript_note(plan: EncoderPlan, inputs: Inputs, index: int) -> str:
    """Says what is noticed about a transcript: by the corpus, by cleaning it, by its encoder."""
    return "; ".join(one for one in (inputs.remarks[index], plan.planned[index].note) if one)


def overflow_note(precision: str) -> str:
    """Says that an utterance was encoded in float32, since it overflowed in the precision asked for."""
    return f"in float32: {precision} overflowed"


def pack_batches(costs: Sequence[int], indices: Sequence[int], budget: float) -> list[list[int]]:
    """Packs utterances of similar length, longest first, a pure function of the plan.

    Args:
        costs: rows of each utterance.
        indices: the utterances to pack.
        budget: rows of a batch, padding included; a longer utterance is a batch of its own.

    Example:
        >>> pack_batches([2, 9, 3, 3], [0, 1, 2, 3], budget=6)
        [[1], [2, 3], [0]]
    """
    batches: list[list[int]] = []
    for index in sorted(indices, key=lambda index: (-costs[index], index)):
        longest = costs[batches[-1][0]] if batches else 0
        if batches and longest * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def speech_digest(digest: bytes, samples: int, spec: StreamSpec) -> bytes:
    """Digests what a speech stream consumed of an utterance: the sound, and its pieces where it was cut in some.

    Args:
        digest: of the sound as decoded.
        samples: at 16 kHz.
        spec: of the stream.
    """
    limit_s = float(spec.limits.get("max_seconds") or 0)
    if not spec.limits.get("chunk") or samples <= int(limit_s * RATE_HZ):
        return digest
    return blake2b(digest + f"pieces of {limit_s} s".encode(), digest_size=16).digest()


def history_of(spec: StreamSpec) -> int:
    """Says how many turns before an utterance a stream reads at most."""
    return int(spec.preprocessing.get("history") or 0)


def transcript_digest(turn: Turn, spec: StreamSpec) -> bytes:
    """Digests what a text stream consumed: the spoken words, and for character spans the transcript around them."""
    words = "\x1e".join(turn.words(str(spec.preprocessing["event_tags"])))  # the ASCII record separator
    return text_digest(f"{words}\0{turn.text}" if spec.role == "tokens" else words)


def _cleaned(utterance: Utterance) -> tuple[Utterance, str]:
    texts = {item.name: getattr(utterance, item.name) for item in fields(utterance)}
    plain = {name: clean_text(value).text for name, value in texts.items() if isinstance(value, str)}
    if not plain["id"]:
        raise MmerError(f"id {utterance.id!r} holds nothing but undecodable characters; give the utterance another")
    return replace(utterance, **plain), clean_text(utterance.text).note  # type: ignore[arg-type]


def _probed(path: Path) -> Any:
    try:
        return probe(path)
    except RecordingError as error:
        return str(error)


def _span(reading: CorpusReading, utterance: Utterance, prober: Any) -> AudioSpan | str:
    if not utterance.audio:
        return "no recording named"
    recording = prober(reading.root / utterance.audio)
    if isinstance(recording, str):
        return _with_defect(recording, reading.defects.get(utterance.id))
    try:
        return _with_defect(cut(recording, utterance.start_s, utterance.end_s), reading.defects.get(utterance.id))
    except RecordingError as error:
        return str(error)


def _with_defect(found: AudioSpan | str, defect: Defect | None) -> AudioSpan | str:
    """Adds to a failure what is known of the release; fails a clip that is wrong for being long, whatever was asked."""
    if defect is None:
        return found
    if isinstance(found, str):
        return found if defect.limit_s else f"{found}; {defect}"
    if defect.limit_s and found.duration_s > defect.limit_s:
        return f"{found.duration_s:.1f} s; {defect}"
    return found


def _too_long(span: AudioSpan | str, limit_s: float) -> str:
    if isinstance(span, str):
        return span
    if span.duration_s > limit_s:
        return f"{span.duration_s:g} s, longer than --max-seconds {limit_s:g}; raise it or pass --chunk"
    return ""
