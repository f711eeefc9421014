"""The main job: a corpus folder in, one cache out."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cache.audit import noted, summarize
from cache.errors import MmerError
from cache.layout import COMMITTED, read_layout
from cache.store import FeatureCache
from cache.stream import SPEECH, TRANSCRIPT
from cache.writer import writing_lock
from featurize.corpora.catalog import corpus_spec, read_corpus
from featurize.corpora.reading import Reading
from featurize.device import default_batch_seconds
from featurize.encoders.catalog import EncoderRequest, parse_requests
from featurize.encoders.load import Encoders, character_targets, consumes, load_encoders
from featurize.encoders.options import EncodingOptions
from featurize.extract import extract
from featurize.plan import EncoderPlan, Inputs, history_of, plan_encoder, read_inputs
from featurize.prepare import CorpusHeader, prepared
from featurize.progress import Progress

MEL = "logmel80"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be featurized, and how.

    Attributes:
        corpus: name of the catalog of corpora.
        root: folder of the corpus, or file of a manifest.
        cache: the file to write.
        encoders: as asked for, ``[NAME=]SOURCE[@LAYERS]``; empty for the corpus' default ones.
        options: how encoders run.
        audio_only: no text encoder and no targets from transcripts.
        mel: log-mel beside the encoders.
        batch_seconds: speech of one batch; None for what suits the device.
        limit: how many utterances, from the first; None for all.
        allow_outside: recordings of a manifest may lie outside its folder.
        replace: recompute what was computed otherwise or is damaged, and drop what left the corpus.
    """

    corpus: str
    root: Path | None
    cache: Path
    encoders: tuple[str, ...] = ()
    options: EncodingOptions
    audio_only: bool = False
    mel: bool = True
    batch_seconds: float | None = None
    limit: int | None = None
    allow_outside: bool = False
    replace: bool = False

    @property
    def batch_budget(self) -> float:
        """Speech of one batch on the device of the job."""
        return default_batch_seconds(self.options.device) if self.batch_seconds is None else self.batch_seconds


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A job read and planned: its inputs, its encoders, and what was noticed on the way."""

    job: Job
    inputs: Inputs
    plans: list[EncoderPlan]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a run left behind.

    Attributes:
        cache: the file.
        summary: as ``mmer-cache info`` gives it.
        noted: what was noted of committed rows.
        notes: what was noticed about the run as a whole.
        seconds: how long it took.
        empty: streams of this run without a single committed utterance.
    """

    cache: Path
    summary: dict[str, Any]
    noted: list[dict[str, str]]
    notes: list[str]
    seconds: float
    empty: list[str]


def read_job(job: Job) -> tuple[Reading, list[EncoderRequest]]:
    """Reads the corpus and what was asked for; the cheap half of a job, where most mistakes show.

    Raises:
        MmerError: if the corpus or an encoder is unknown, or the corpus cannot be read.
    """
    corpus_spec(job.corpus)
    parse_requests(job.encoders)
    reading = read_corpus(job.corpus, job.root, allow_outside=job.allow_outside)
    return reading, _requests(job, reading)


def plan_job(job: Job, reading: Reading, requests: Sequence[EncoderRequest]) -> Ready:
    """Loads the encoders and plans every stream.

    Raises:
        MmerError: if an encoder is not at hand.
    """
    inputs = read_inputs(reading, limit=job.limit)
    _check_history(job, inputs)
    loaded = load_encoders(requests, job.options)
    encoders: list[Any] = [*loaded.speech, *_mel(job, loaded), *loaded.text]
    if not job.audio_only and _transcribed(reading):
        encoders.append(character_targets(job.options))
    options = job.options
    plans = [plan_encoder(one, inputs, max_seconds=options.max_seconds, chunk=options.chunk) for one in encoders]
    notes = [*reading.notes, *loaded.notes, *_dropped_turns(plans, inputs)]
    return Ready(job=job, inputs=inputs, plans=plans, notes=notes)


def run_job(job: Job, progress: Progress) -> Report:
    """Featurizes a corpus, or what is missing of it.

    Raises:
        MmerError: one line on what stopped the run; everything committed stays.
    """
    started = time.monotonic()
    reading, requests = read_job(job)
    path = job.cache.resolve() if job.cache.is_symlink() else job.cache  # the lock belongs to the file, not to a link
    with writing_lock(path):
        if path.exists():
            read_layout(path)  # a file that cannot be read stops the run before the encoders are loaded
        ready = plan_job(job, reading, requests)
        header = CorpusHeader(name=job.corpus, root=reading.root)
        with prepared(path, header, ready.inputs, ready.plans, replace=job.replace, progress=progress) as (
            writer,
            notes,
        ):
            progress.note([*ready.notes, *notes])
            extract(ready.plans, ready.inputs, writer, batch_seconds=job.batch_budget, progress=progress)
    cache = FeatureCache(job.cache)
    mine = [spec.name for plan in ready.plans for spec in plan.specs]
    return Report(
        cache=job.cache,
        summary=summarize(cache),
        noted=noted(cache),
        notes=[*ready.notes, *notes],
        seconds=time.monotonic() - started,
        empty=[name for name in mine if not np.any(cache.streams[name].state == COMMITTED)],
    )


def _requests(job: Job, reading: Reading) -> list[EncoderRequest]:
    spec = corpus_spec(job.corpus)
    if job.encoders:
        requests = parse_requests(job.encoders)
        text = [request.name for request in requests if consumes(request.source) == TRANSCRIPT]
        if job.audio_only and text:
            raise MmerError(f"--audio-only leaves no room for the text encoder {text[0]}; drop one of the two")
        if job.audio_only or text or not _transcribed(reading):
            return requests
        return [*requests, *_of_modality(spec.encoders, TRANSCRIPT)]
    if job.audio_only or not _transcribed(reading):
        return _of_modality(spec.encoders, SPEECH)
    return parse_requests(spec.encoders)


def _of_modality(sources: Sequence[str], modality: str) -> list[EncoderRequest]:
    return parse_requests([source for source in sources if consumes(source) == modality])


def _transcribed(reading: Reading) -> bool:
    return any(utterance.text.strip() for utterance in reading.utterances)


def _check_history(job: Job, inputs: Inputs) -> None:
    if job.options.history and not inputs.dialogues:
        raise MmerError(f"--history {job.options.history} needs dialogues, and {job.corpus} has none; leave it out")


def _dropped_turns(plans: Sequence[EncoderPlan], inputs: Inputs) -> list[str]:
    """Says how often the oldest turns of a history were dropped to keep a text as short as it must be."""
    notes = []
    for plan in plans:
        history = history_of(plan.specs[0])
        turns = [len(inputs.turn(index, history).before) for index in range(len(plan.planned) if history else 0)]
        cut = sum(one.turns < count for one, count in zip(plan.planned, turns, strict=False) if not one.failure)
        if cut:
            notes.append(f"{plan.specs[0].name}: of {cut} utterances the oldest turns of the history did not fit")
    return notes


def _mel(job: Job, loaded: Encoders) -> list[Any]:
    """Log-mel goes with every run, unless it is not wanted, already asked for, or librosa is not installed."""
    asked = any(encoder.specs[0].name == MEL for encoder in loaded.speech)
    if not job.mel or asked:
        return []
    try:
        return load_encoders(parse_requests([MEL]), job.options).speech
    except MmerError as error:
        loaded.notes.append(str(error))
        return []
