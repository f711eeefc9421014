"""Plan of a run before anything is computed: inputs, rows of every stream, batches."""

from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import cache as memoize
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from cache.corpus_facts import Defect
from cache.errors import MmerError
from cache.layout import StreamPlan
from cache.stream import SPEECH, StreamSpec
from cache.transcripts import HAS_TEXT, AsrReading
from cache.utterance import Utterance
from featurize.corpora.base import CorpusReading, check_reading
from featurize.encoders.base import Encoder, InputPlan
from featurize.encoders.ctc_targets import SYMBOL_COUNT
from featurize.extraction.shard import Shard
from featurize.inputs.audio import RATE_HZ, AudioSpan, Recording, RecordingError, cut, probe
from featurize.inputs.transcript import Dialogues, Turn, clean_text, is_parted, text_digest
from featurize.views.catalog import missing_view_reason

NOT_TRANSCRIBED = "no transcript by ASR"
PROBE_THREADS = 8  # probing waits for the disk, not for a core


class AsrTexts:
    """The texts that encoders read in place of the corpus' own, and their dialogues.

    Args:
        utterances: utterances of the run.
        stored: utterance id -> transcript by ASR.
        every: read the transcript of every utterance, not only of those without a text of the corpus.
    """

    def __init__(self, utterances: Sequence[Utterance], stored: Mapping[str, str], *, every: bool) -> None:
        self._texts = {
            utterance.id: utterance.text if has_text(utterance) and not every else stored.get(utterance.id)
            for utterance in utterances
        }
        self._dialogues = Dialogues(
            [replace(utterance, text=self._texts[utterance.id] or "") for utterance in utterances]
        )

    def text(self, name: str) -> str | None:
        """Returns the text of the utterance of that id; None if it has none."""
        return self._texts.get(name)

    def before(self, name: str, count: int) -> tuple[str, ...]:
        """Returns up to `count` texts before the utterance of that id, oldest first."""
        return self._dialogues.before(name, count)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The utterances of a corpus with the inputs of encoders.

    Attributes:
        root: folder of the recordings.
        utterances: utterances with cleaned texts and their durations.
        spans: span of audio of each utterance, or the reason why there is none.
        remarks: remark about each transcript, empty if there is none.
        dialogues: dialogues of the whole corpus, regardless of limit and shard.
        asr: transcripts by ASR, by what streams record of them.
    """

    root: Path
    utterances: list[Utterance]
    spans: list[AudioSpan | str]
    remarks: list[str]
    dialogues: Dialogues
    asr: Mapping[AsrReading, AsrTexts] = field(default_factory=dict)

    def turn(self, index: int, count: int, spec: StreamSpec) -> Turn:
        """Returns the transcript of an utterance that a stream reads, with up to `count` of its preceding turns."""
        utterance, reading = self.utterances[index], AsrReading.of(spec)
        if reading is None:
            return Turn(utterance.text, self.dialogues.before(utterance.id, count), utterance.id)
        texts = self.asr[reading]
        return Turn(texts.text(utterance.id) or "", texts.before(utterance.id, count), utterance.id)

    def untranscribed(self, index: int, spec: StreamSpec) -> bool:
        """Returns True if a stream reads transcripts by ASR, and the utterance has none."""
        reading = AsrReading.of(spec)
        return reading is not None and self.asr[reading].text(self.utterances[index].id) is None

    def remark(self, index: int, spec: StreamSpec) -> str:
        """Returns the remark about the transcript of an utterance that a stream reads."""
        if AsrReading.of(spec) is None:
            return self.remarks[index]
        return clean_text(self.turn(index, 0, spec).text).note


@dataclass(frozen=True, kw_only=True)
class EncoderPlan:
    """An encoder, the input that it consumes (``speech`` or ``transcript``), and its plan of every utterance."""

    encoder: Encoder[Any, Any]
    consumes: str
    planned: list[InputPlan]

    @property
    def specs(self) -> list[StreamSpec]:
        """The streams it writes."""
        return self.encoder.specs

    def streams(self) -> list[StreamPlan]:
        """Builds the plan of every stream that it writes."""
        failures = {index: planned.failure for index, planned in enumerate(self.planned) if planned.failure}
        rows = [planned.rows or (0,) * len(self.specs) for planned in self.planned]
        return [
            StreamPlan(
                spec=spec,
                lengths=np.array([counts[number] for counts in rows], dtype=np.int64),
                failures=failures,
            )
            for number, spec in enumerate(self.specs)
        ]


def read_inputs(reading: CorpusReading, *, limit: int | None = None, shard: Shard | None = None) -> Inputs:
    """Cleans the transcripts of a corpus and probes its recordings.

    Args:
        reading: the corpus as read.
        limit: number of utterances, counted from the first; None for all.
        shard: only this shard of the utterances; None for all.

    Raises:
        MmerError: if an id is empty or two ids are equal after undecodable characters are removed.
    """
    cleaned = [_clean_utterance(utterance) for utterance in reading.utterances]
    dialogues = Dialogues([utterance for utterance, _ in cleaned])
    cleaned = [pair for pair in cleaned[:limit] if shard is None or shard.holds(pair[0].id)]
    check_reading(replace(reading, utterances=[utterance for utterance, _ in cleaned]), "the corpus")
    memoized_probe = memoize(_probe_or_reason)  # many utterances share a recording
    with ThreadPoolExecutor(PROBE_THREADS) as threads:
        spans = list(threads.map(lambda pair: _span(reading, pair[0], memoized_probe), cleaned))
    utterances = [
        replace(utterance, duration_s=None if isinstance(span, str) else span.duration_s)
        for (utterance, _), span in zip(cleaned, spans, strict=True)
    ]
    remarks = ["; ".join(filter(None, (reading.remarks.get(utterance.id, ""), note))) for utterance, note in cleaned]
    return Inputs(root=reading.root, utterances=utterances, spans=spans, remarks=remarks, dialogues=dialogues)


def plan_encoder(encoder: Encoder[Any, Any], inputs: Inputs, *, max_seconds: float, chunk: bool) -> EncoderPlan:
    """Plans the rows of every utterance for one encoder.

    Args:
        encoder: a loaded encoder.
        inputs: inputs of the corpus.
        max_seconds: maximum duration of an utterance.
        chunk: accept longer utterances as well.
    """
    spec = encoder.specs[0]
    limit = float("inf") if chunk else max_seconds
    count = len(inputs.utterances)
    if spec.consumes == SPEECH:
        failures = [_too_long(span, limit) for span in inputs.spans]
    else:
        failures = [NOT_TRANSCRIBED if inputs.untranscribed(index, spec) else "" for index in range(count)]
    if spec.view:
        failures = [missing_view_reason(inputs.utterances[index]) or failures[index] for index in range(count)]
    possible = [index for index in range(count) if not failures[index]]
    if spec.consumes == SPEECH:
        spans = [inputs.spans[index] for index in possible]
        plans = iter(encoder.plan([span.samples for span in spans if isinstance(span, AudioSpan)]))
    else:
        plans = iter(encoder.plan([inputs.turn(index, history_of(spec), spec) for index in possible]))
    planned = [InputPlan(failure=failure) if failure else next(plans) for failure in failures]
    return EncoderPlan(encoder=encoder, consumes=spec.consumes, planned=planned)


def plan_transcripts(plan: EncoderPlan, inputs: Inputs, wanted: Set[str]) -> EncoderPlan:
    """Restricts the plan of an ASR model to utterances that need its transcript.

    Args:
        plan: plan of the model for every utterance.
        inputs: inputs of the corpus.
        wanted: ids of the utterances to transcribe.
    """
    planned = [
        known if utterance.id in wanted else InputPlan(failure=HAS_TEXT)
        for utterance, known in zip(inputs.utterances, plan.planned, strict=True)
    ]
    return replace(plan, planned=planned)


def has_text(utterance: Utterance) -> bool:
    """Returns True if the corpus has a transcript of the utterance."""
    return bool(utterance.text.strip())


def transcript_note(plan: EncoderPlan, inputs: Inputs, index: int) -> str:
    """Returns the note on a transcript: remarks of the corpus, of the cleaning and of the encoder."""
    return "; ".join(filter(None, (inputs.remark(index, plan.specs[0]), plan.planned[index].note)))


def overflow_note(precision: str) -> str:
    """Returns the note on an utterance encoded in float32 because it overflowed in the requested precision."""
    # Caches hold this text, and a later run looks for it: it must not change.
    return f"in float32: {precision} overflowed"


def pack_batches(costs: Sequence[int], indices: Sequence[int], budget: float) -> list[list[int]]:
    """Splits utterances into batches of similar length, longest first; a pure function of the plan.

    Args:
        costs: rows of each utterance.
        indices: utterances to pack.
        budget: maximum rows of a batch, padding included; a longer utterance is a batch of its own.

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
    """Computes the digest of a speech stream's input: the audio, and the length of pieces if it is cut into some.

    Args:
        digest: digest of the decoded audio.
        samples: number of samples at 16 kHz.
        spec: spec of the stream.
    """
    limit_s = float(spec.limits.get("max_seconds") or 0)
    if not spec.limits.get("chunk") or samples <= int(limit_s * RATE_HZ):
        return digest
    return blake2b(digest + f"pieces of {limit_s} s".encode(), digest_size=16).digest()


def history_of(spec: StreamSpec) -> int:
    """Returns the maximum number of preceding turns that a stream reads."""
    return int(spec.preprocessing.get("history") or 0)


def transcript_digest(turn: Turn, spec: StreamSpec) -> bytes:
    """Computes the digest of a text stream's input: the spoken words; for character spans, the transcript as well."""
    words = "\x1e".join(turn.words(str(spec.preprocessing["event_tags"])))  # the ASCII record separator
    if spec.role == "chars" and SYMBOL_COUNT not in spec.preprocessing and is_parted(words):
        words = f"{words}\0parted"  # rows that an earlier version spelt as one word are stale, all others stay valid
    return text_digest(f"{words}\0{turn.text}" if spec.role == "tokens" else words)


def _clean_utterance(utterance: Utterance) -> tuple[Utterance, str]:
    texts = {item.name: getattr(utterance, item.name) for item in fields(utterance)}
    plain = {name: clean_text(value).text for name, value in texts.items() if isinstance(value, str)}
    if not plain["id"]:
        raise MmerError(f"id {utterance.id!r} holds only undecodable characters; give the utterance another id")
    return replace(utterance, **plain), clean_text(utterance.text).note  # type: ignore[arg-type]


def _probe_or_reason(path: Path) -> Recording | str:
    try:
        return probe(path)
    except RecordingError as error:
        return str(error)


def _span(
    reading: CorpusReading, utterance: Utterance, probe_recording: Callable[[Path], Recording | str]
) -> AudioSpan | str:
    if not utterance.audio:
        return "no recording given"
    recording = probe_recording(reading.root / utterance.audio)
    if isinstance(recording, str):
        return _with_defect(recording, reading.defects.get(utterance.id))
    try:
        return _with_defect(cut(recording, utterance.start_s, utterance.end_s), reading.defects.get(utterance.id))
    except RecordingError as error:
        return str(error)


def _with_defect(span: AudioSpan | str, defect: Defect | None) -> AudioSpan | str:
    """Adds a known defect of the release to a failure, or fails a clip whose duration shows the defect."""
    if defect is None:
        return span
    if isinstance(span, str):
        # Without the path that was tried, which a release determines: a reason holds 200 bytes.
        return span if defect.limit_s else f"{span.split(' (tried ')[0]}; {defect}"
    if defect.limit_s and span.duration_s > defect.limit_s:
        return f"{span.duration_s:.1f} s; {defect}"
    return span


def _too_long(span: AudioSpan | str, limit_s: float) -> str:
    if isinstance(span, str):
        return span
    if span.duration_s > limit_s:
        return f"{span.duration_s:g} s, longer than --max-seconds {limit_s:g}; raise it or pass --chunk"
    return ""
