"""What is to be featurized and how; read, checked and planned before anything runs.

The encoders of a run in their order, loaded alike on every machine that takes part.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch

from cache.errors import MmerError
from cache.stream import SPEECH, TRANSCRIPT
from featurize.corpora.base import CorpusReading
from featurize.corpora.catalog import corpus_spec, read_corpus
from featurize.encoders.base import Encoder
from featurize.encoders.catalog import EncoderRequest, parse_requests
from featurize.encoders.load import character_targets, consumes, load_encoders
from featurize.encoders.options import EncodingOptions
from featurize.extraction.plan import EncoderPlan, Inputs, history_of, plan_encoder, read_inputs
from featurize.extraction.prepare import CorpusHeader
from featurize.extraction.shard import Shard
from featurize.runtime.device import default_batch_seconds

MEL = "logmel80"
DEMO, MANIFEST = "demo", "manifest"  # corpora of the catalog that have a rule of their own for root or cache
PATTERN_SIGNS = frozenset("*?[")


@dataclass(frozen=True, kw_only=True)
class EncoderSet:
    """Which encoders a run has.

    Attributes:
        requests: as asked for.
        options: how they run.
        mel: log-mel beside them.
        characters: CTC targets beside them.
    """

    requests: Sequence[EncoderRequest]
    options: EncodingOptions
    mel: bool
    characters: bool

    def load(self) -> tuple[list[Encoder[Any, Any]], list[str]]:
        """Loads them: those of speech, then those of transcripts; and what was noticed on the way.

        Raises:
            MmerError: if one of them is not at hand.
        """
        loaded = load_encoders(self.requests, self.options)
        mel, notes = self._mel(any(encoder.specs[0].name == MEL for encoder in loaded.speech))
        characters = [character_targets(self.options)] if self.characters else []
        return [*loaded.speech, *mel, *loaded.text, *characters], [*loaded.notes, *notes]

    def _mel(self, asked: bool) -> tuple[Sequence[Encoder[Any, Any]], list[str]]:
        """Log-mel goes with every run, unless it is not wanted, already asked for, or librosa is not installed."""
        if not self.mel or asked:
            return [], []
        try:
            return load_encoders(parse_requests([MEL]), self.options).speech, []
        except MmerError as error:
            return [], [str(error)]


@dataclass(frozen=True, kw_only=True)
class ExtractionJob:
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
        shard: only this share of the utterances; None for all.
        allow_outside: recordings of a manifest may lie outside its folder.
        replace: recompute what was computed otherwise or is damaged, and drop what left the corpus.
        wait: for another run that writes to the file, instead of stopping.
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
    shard: Shard | None = None
    allow_outside: bool = False
    replace: bool = False
    wait: bool = False

    def batch_budget(self, device: torch.device) -> float:
        """Gives the seconds of speech of one batch on a device."""
        return default_batch_seconds(device) if self.batch_seconds is None else self.batch_seconds


class JobOptions(TypedDict, total=False):
    """Options of `job_of`: the fields of `EncodingOptions` but its device, and some of `ExtractionJob`."""

    dtype: str
    precision: str
    codes: bool | None
    event_tags: str
    truncate: bool
    history: int
    max_tokens: int | None
    max_seconds: float
    chunk: bool
    start_layers: int
    audio_only: bool
    mel: bool
    batch_seconds: float | None
    limit: int | None
    allow_outside: bool
    replace: bool
    wait: bool


def job_of(
    corpus: str,
    *,
    root: Path | None = None,
    cache: Path | None = None,
    encoders: Sequence[str] = (),
    device: torch.device,
    **options: Unpack[JobOptions],
) -> ExtractionJob:
    """Builds a job with the usual places of caches and of the built-in corpus.

    Args:
        corpus: name of the catalog of corpora.
        root: folder of the corpus, or file of a manifest; None for the built-in corpus, which is generated there.
        cache: the file to write; None for one below ``cache/``, named after the corpus or the manifest.
        encoders: ``[NAME=]SOURCE[@LAYERS]``; empty for the default encoders of the corpus.
        device: where encoders run.
        options: fields of `ExtractionJob` and of `EncodingOptions`.

    Raises:
        ValueError: if the cache is a pattern of files.

    Example:
        >>> job = job_of("demo", device=torch.device("cpu"), max_seconds=30)
        >>> job.cache.as_posix(), job.root.as_posix(), job.options.max_seconds
        ('cache/demo.h5', 'cache/demo', 30)
    """
    name = root.stem if corpus == MANIFEST and root else corpus
    cache = cache or Path("cache") / f"{name}.h5"
    if PATTERN_SIGNS & set(str(cache)):
        raise ValueError(f"cache must be one file to write, got the pattern {cache}")
    if corpus == DEMO and root is None:
        root = cache.parent / DEMO
    given: dict[str, Any] = dict(options)
    encoding = {name: given.pop(name) for name in EncodingOptions.__dataclass_fields__.keys() & given.keys()}
    return ExtractionJob(
        corpus=corpus,
        root=root,
        cache=cache,
        encoders=tuple(encoders),
        options=EncodingOptions(device=device, **encoding),
        **given,
    )


@dataclass(frozen=True, kw_only=True)
class PlannedJob:
    """A job read and planned: its corpus, its encoders, its inputs, and what was noticed on the way."""

    job: ExtractionJob
    corpus: CorpusHeader
    lineup: EncoderSet
    inputs: Inputs
    plans: list[EncoderPlan]
    notes: list[str] = field(default_factory=list)


def read_job(job: ExtractionJob) -> tuple[CorpusReading, EncoderSet]:
    """Reads the corpus and what was asked for; the cheap half of a job, where most mistakes show.

    Raises:
        MmerError: if the corpus or an encoder is unknown, or the corpus cannot be read.
    """
    corpus_spec(job.corpus)
    parse_requests(job.encoders)
    reading = read_corpus(job.corpus, job.root, allow_outside=job.allow_outside)
    return reading, EncoderSet(
        requests=_requests(job, reading),
        options=job.options,
        mel=job.mel,
        characters=not job.audio_only and _transcribed(reading),
    )


def plan_job(job: ExtractionJob, reading: CorpusReading, lineup: EncoderSet) -> PlannedJob:
    """Loads the encoders and plans every stream.

    Raises:
        MmerError: if an encoder is not at hand.
    """
    inputs = read_inputs(reading, limit=job.limit, shard=job.shard)
    _check_history(job, inputs, lineup)
    encoders, notes = lineup.load()
    options = job.options
    plans = [plan_encoder(one, inputs, max_seconds=options.max_seconds, chunk=options.chunk) for one in encoders]
    notes = [*reading.notes, *notes, *_dropped_turns(plans, inputs)]
    return PlannedJob(
        job=job,
        corpus=CorpusHeader(name=job.corpus, root=reading.root),
        lineup=lineup,
        inputs=inputs,
        plans=plans,
        notes=notes,
    )


def ready_job(job: ExtractionJob) -> PlannedJob:
    """Reads and plans a job.

    Raises:
        MmerError: as `read_job` and `plan_job` do.
    """
    return plan_job(job, *read_job(job))


def _requests(job: ExtractionJob, reading: CorpusReading) -> list[EncoderRequest]:
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
    return [request for request in parse_requests(sources) if consumes(request.source) == modality]


def _transcribed(reading: CorpusReading) -> bool:
    return any(utterance.text.strip() for utterance in reading.utterances)


def _check_history(job: ExtractionJob, inputs: Inputs, lineup: EncoderSet) -> None:
    asked = f"--history {job.options.history}"
    if job.options.history and not inputs.dialogues:
        raise MmerError(f"{asked} needs dialogues, and {job.corpus} has none; leave it out")
    if job.options.history and not any(consumes(request.source) == TRANSCRIPT for request in lineup.requests):
        raise MmerError(f"{asked} is for text encoders, and this run has none; name one, as in --encoder roberta-base")


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
