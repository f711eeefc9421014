"""Planned jobs: a job whose corpus is read and checked, whose encoders are loaded, and whose streams are planned."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cache.errors import MmerError
from cache.store import FeatureCache
from cache.stream import NO_VIEW, SPEECH, TRANSCRIPT
from cache.transcripts import stored_transcripts
from cache.utterance import alike_labels, alike_note
from featurize.asr.stream import AsrEncoder, AsrEncoderSet, parse_asr
from featurize.corpora.base import CorpusReading
from featurize.corpora.catalog import MANIFEST, corpus_spec, read_corpus
from featurize.corpora.columns import parse_columns
from featurize.encoders.any_text import AnyTextEncoder
from featurize.encoders.catalog import EncoderRequest, parse_requests
from featurize.encoders.ctc_targets import CharacterTargets
from featurize.encoders.load import consumes
from featurize.extraction.job import EncoderSet, ExtractionJob
from featurize.extraction.plan import (
    AsrTexts,
    EncoderPlan,
    Inputs,
    has_text,
    history_of,
    plan_encoder,
    plan_transcripts,
    read_inputs,
)
from featurize.extraction.prepare import CorpusHeader
from featurize.inputs.ctc_vocabulary import STANDARD
from featurize.views.catalog import check_views, parse_views

LABELS_ONLY_NOTE = (
    "no recording and no text: only the utterances are stored; add features with mmer-cache import DIR {cache}"
)
MOST_DROPPED = 0.1  # share of letters without a CTC symbol from which a note says so
TEXT_ENCODERS = ("roberta-base",)  # of texts without recordings, where the corpus has no default encoder of text
AUDIO_ONLY_NOTE = "no text encoder is named: transcripts are left out; add one, as in --encoder roberta-base"


@dataclass(frozen=True, kw_only=True)
class PlannedJob:
    """A job that is read and planned: its corpus, its encoders, its inputs, and notes on all of them."""

    job: ExtractionJob
    corpus: CorpusHeader
    encoder_set: EncoderSet | AsrEncoderSet
    inputs: Inputs
    plans: list[EncoderPlan]
    notes: list[str] = field(default_factory=list)


def read_job(job: ExtractionJob) -> tuple[CorpusReading, EncoderSet]:
    """Reads the corpus and the requested encoders. It loads no weights; most mistakes show here.

    Raises:
        MmerError: if the corpus or an encoder is unknown, or the corpus cannot be read.
    """
    corpus_spec(job.corpus)
    parse_requests(job.encoders)
    views = parse_views(job.views)
    if job.asr:
        parse_asr(job.asr)
    columns = parse_columns(job.columns, job.keep_columns)
    reading = read_corpus(job.corpus, job.root, allow_outside=job.allow_outside, encoding=job.encoding, columns=columns)
    if not job.encoders and not job.asr and not any(held.audio or has_text(held) for held in reading.utterances):
        reading = replace(reading, notes=[*reading.notes, LABELS_ONLY_NOTE.format(cache=job.cache)])
        return reading, EncoderSet(requests=(), options=job.options, mel=False, characters=False)
    requests = _select_encoders(job, reading)
    modalities = {consumes(request.source) for request in requests}
    check_views(views, modalities)
    _check_asr(job, reading)
    wants_targets = job.options.ctc_vocabulary != STANDARD
    has_texts, has_audio = _has_transcripts(job, reading), _has_recordings(reading)
    if TRANSCRIPT not in modalities and has_texts and not job.audio_only:
        reading = replace(reading, notes=[*reading.notes, AUDIO_ONLY_NOTE])
    if job.mel and not has_audio:
        reading = replace(reading, notes=[*reading.notes, f"{job.corpus} has no recording: only its texts are encoded"])
    return reading, EncoderSet(
        requests=requests,
        options=job.options,
        mel=job.mel and has_audio,
        characters=has_texts and not job.audio_only and (TRANSCRIPT in modalities or wants_targets),
        views=views,
    )


def plan_transcription(job: ExtractionJob, reading: CorpusReading, path: Path) -> PlannedJob:
    """Loads the ASR model of a job and plans its transcripts.

    Args:
        job: a job with an ASR model.
        reading: its corpus.
        path: the cache file; transcripts that it has stay.

    Raises:
        MmerError: if the model is not available.
    """
    encoder_set = AsrEncoderSet(request=parse_asr(job.asr), options=job.options)
    inputs = read_inputs(reading, limit=job.limit, shard=job.shard)
    (encoder,), notes = encoder_set.load()
    wanted = {utterance.id for utterance in inputs.utterances if job.asr_all or not has_text(utterance)}
    held = (stored_transcripts(FeatureCache(path), encoder.specs[0].key) or {}) if path.exists() else {}
    plan = plan_encoder(encoder, inputs, max_seconds=job.options.max_seconds, chunk=job.options.chunk)
    return PlannedJob(
        job=job,
        corpus=_header_of(job, reading),
        encoder_set=encoder_set,
        inputs=inputs,
        plans=[plan_transcripts(plan, inputs, wanted | held.keys())],
        notes=notes,
    )


def with_transcripts(encoder_set: EncoderSet, transcription: PlannedJob, path: Path) -> tuple[EncoderSet, Inputs]:
    """Returns the encoders of a job as readers of the transcripts in its cache, and the inputs with these.

    Args:
        encoder_set: encoders of the job.
        transcription: planned transcripts of the job.
        path: the cache file.
    """
    (encoder,) = (plan.encoder for plan in transcription.plans)
    assert isinstance(encoder, AsrEncoder)
    reading = encoder.reading(every=transcription.job.asr_all)
    stored = (stored_transcripts(FeatureCache(path), reading.key) or {}) if path.exists() else {}
    inputs = transcription.inputs
    texts = AsrTexts(inputs.utterances, stored, every=reading.every)
    options = replace(encoder_set.options, transcripts=reading)
    return replace(encoder_set, options=options), replace(inputs, asr={reading: texts})


def plan_job(
    job: ExtractionJob, reading: CorpusReading, encoder_set: EncoderSet, inputs: Inputs | None = None
) -> PlannedJob:
    """Loads the encoders and plans every stream.

    Args:
        job: job to plan.
        reading: its corpus.
        encoder_set: its encoders.
        inputs: inputs with transcripts by ASR; None to read them from the corpus.

    Raises:
        MmerError: if an encoder is not available.
    """
    inputs = inputs or read_inputs(reading, limit=job.limit, shard=job.shard)
    _check_history(job, inputs, encoder_set)
    encoders, notes = encoder_set.load()
    options = job.options
    plans = [
        plan_encoder(encoder, inputs, max_seconds=options.max_seconds, chunk=options.chunk) for encoder in encoders
    ]
    alike = map(alike_note, alike_labels(utterance.label for utterance in inputs.utterances))
    notes = [
        *reading.notes,
        *alike,
        *notes,
        *_admissions(plans, inputs),
        *_dropped_letters(plans, inputs),
        *_dropped_turns(plans, inputs),
        *_left_out_of_views(plans),
    ]
    return PlannedJob(
        job=job,
        corpus=_header_of(job, reading),
        encoder_set=encoder_set,
        inputs=inputs,
        plans=plans,
        notes=notes,
    )


def _header_of(job: ExtractionJob, reading: CorpusReading) -> CorpusHeader:
    return CorpusHeader(
        name=job.corpus,
        root=reading.root,
        table=job.root.name if job.corpus == MANIFEST and job.root else "",
        encoding=job.encoding,
        allow_outside=job.allow_outside,
        columns=job.columns,
        keep_columns=job.keep_columns,
        limit=job.limit if job.limit is not None and job.limit < len(reading.utterances) else None,
    )


def ready_job(job: ExtractionJob) -> PlannedJob:
    """Reads and plans a job; of transcripts by ASR, it knows those that the cache has.

    Raises:
        MmerError: as `read_job` and `plan_job` do.
    """
    reading, encoder_set = read_job(job)
    if not job.asr:
        return plan_job(job, reading, encoder_set)
    transcription = plan_transcription(job, reading, job.cache)
    planned_job = plan_job(job, reading, *with_transcripts(encoder_set, transcription, job.cache))
    return replace(planned_job, plans=[*transcription.plans, *planned_job.plans])


def _select_encoders(job: ExtractionJob, reading: CorpusReading) -> list[EncoderRequest]:
    spec = corpus_spec(job.corpus)
    if job.encoders:
        requests = parse_requests(job.encoders)
        text = [request.name for request in requests if consumes(request.source) == TRANSCRIPT]
        if job.audio_only and text:
            raise MmerError(f"--audio-only excludes the text encoder {text[0]}; remove one of the two")
        speech = [request.name for request in requests if consumes(request.source) == SPEECH]
        if speech and not _has_recordings(reading):
            raise MmerError(f"{speech[0]} reads recordings, and {job.corpus} names none; remove --encoder {speech[0]}")
        if job.asr and not text and not job.audio_only:  # transcripts are wanted for an encoder of text
            return [*requests, *(_requests_of(spec.encoders, TRANSCRIPT) or parse_requests(TEXT_ENCODERS))]
        return requests
    if job.audio_only and not _has_recordings(reading):
        raise MmerError(f"--audio-only needs recordings, and {job.corpus} names none; remove the option")
    if not _has_recordings(reading):
        return _requests_of(spec.encoders, TRANSCRIPT) or parse_requests(TEXT_ENCODERS)
    if job.audio_only or not _has_transcripts(job, reading):
        return _requests_of(spec.encoders, SPEECH)
    return parse_requests(spec.encoders)


def _requests_of(sources: Sequence[str], modality: str) -> list[EncoderRequest]:
    return [request for request in parse_requests(sources) if consumes(request.source) == modality]


def _has_transcripts(job: ExtractionJob, reading: CorpusReading) -> bool:
    return bool(job.asr) or any(map(has_text, reading.utterances))


def _check_asr(job: ExtractionJob, reading: CorpusReading) -> None:
    if job.asr_all and not job.asr:
        raise MmerError("--asr-all needs --asr MODEL, the model that transcribes")
    if not job.asr:
        return
    if job.audio_only:
        raise MmerError("--asr is for text encoders, and --audio-only excludes them; remove one of the two")
    if not job.asr_all and all(map(has_text, reading.utterances)):
        raise MmerError(
            f"every utterance of {job.corpus} has a transcript of the corpus; pass --asr-all to transcribe all of them"
        )
    if job.shard and job.options.history:
        raise MmerError("--history with --asr reads turns of other shards, which are not transcribed; omit --shards")


def _has_recordings(reading: CorpusReading) -> bool:
    return any(utterance.audio for utterance in reading.utterances)


def _check_history(job: ExtractionJob, inputs: Inputs, encoder_set: EncoderSet) -> None:
    option = f"--history {job.options.history}"
    if job.options.history and not inputs.dialogues:
        raise MmerError(f"{option} needs dialogues, and {job.corpus} has none; omit the option")
    if job.options.history and not any(consumes(request.source) == TRANSCRIPT for request in encoder_set.requests):
        raise MmerError(f"{option} is for text encoders, and this run has none; add one, as in --encoder roberta-base")


def _dropped_letters(plans: Sequence[EncoderPlan], inputs: Inputs) -> list[str]:
    """Returns a note if the CTC targets lack many of the letters of the corpus."""
    notes = []
    for plan in plans:
        if not isinstance(plan.encoder, CharacterTargets):
            continue
        words = [plan.encoder.words(inputs.turn(index, 0, plan.specs[0])) for index in range(len(plan.planned))]
        letters = Counter(character for text in words for character in text if character.isalpha())
        lost = sum(count for letter, count in letters.items() if plan.encoder.vocabulary.dropped(letter))
        if lost > MOST_DROPPED * letters.total():
            share = f"{lost / letters.total():.0%} of the letters of the transcripts"
            notes.append(
                f"{plan.specs[0].name}: {share} have no symbol and are dropped; pass "
                "--ctc-vocab FILE with the characters of this language"
            )
    return notes


def _dropped_turns(plans: Sequence[EncoderPlan], inputs: Inputs) -> list[str]:
    """Returns a note for each encoder that drops the oldest turns of a history to keep texts within its limit."""
    notes = []
    for plan in plans:
        history = history_of(plan.specs[0])
        count = len(plan.planned) if history else 0
        turns = [len(inputs.turn(index, history, plan.specs[0]).before) for index in range(count)]
        pairs = zip(plan.planned, turns, strict=False)  # turns are empty without a history
        cut = sum(planned.turns < most for planned, most in pairs if not planned.failure)
        if cut and not plan.specs[0].view:  # the note on the originals says it for their views
            notes.append(f"{plan.specs[0].name}: the oldest turns of the history did not fit for {cut} utterances")
    return notes


def _admissions(plans: Sequence[EncoderPlan], inputs: Inputs) -> list[str]:
    """Compares batches of transcripts with single ones for encoders of families that mmer does not know."""
    notes = []
    for plan in plans:
        if isinstance(plan.encoder, AnyTextEncoder):
            possible = [index for index, planned in enumerate(plan.planned) if not planned.failure]
            notes.append(
                plan.encoder.admit([inputs.turn(index, plan.planned[index].turns, plan.specs[0]) for index in possible])
            )
    return [note for note in notes if note]


def _left_out_of_views(plans: Sequence[EncoderPlan]) -> list[str]:
    """Returns a note for each encoder of views with the number of utterances that have none, and the reasons."""
    notes = []
    for plan in plans:
        reasons = Counter(planned.failure for planned in plan.planned if planned.failure.startswith(NO_VIEW))
        if reasons:
            counts = ", ".join(f"{count} ({reason.removeprefix(NO_VIEW)})" for reason, count in reasons.items())
            notes.append(f"{plan.specs[0].name}: utterances without a view: {counts}")
    return notes
