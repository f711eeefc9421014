"""Extraction jobs: corpus, encoders and options of a run.

An `EncoderSet` loads the same encoders in the same order on every machine that takes part in a run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch

from cache.errors import MmerError
from cache.patterns import is_pattern
from featurize.corpora.catalog import MANIFEST, default_cache, default_root
from featurize.corpora.imported import imported_name, is_imported, write_imported
from featurize.encoders.base import Encoder
from featurize.encoders.catalog import EncoderRequest, parse_requests
from featurize.encoders.load import character_targets, load_encoders
from featurize.encoders.options import EncodingOptions
from featurize.extraction.shard import Shard
from featurize.inputs.ctc_vocabulary import read_ctc_vocabulary
from featurize.runtime.device import default_batch_seconds
from featurize.views.catalog import ViewRequest
from featurize.views.load import load_views

MEL = "logmel80"


@dataclass(frozen=True, kw_only=True)
class EncoderSet:
    """The encoders of a run.

    Attributes:
        requests: requested encoders.
        options: options of all encoders.
        mel: add log-mel.
        characters: add CTC targets.
        views: augmented views of the speech and the texts that the encoders read.
    """

    requests: Sequence[EncoderRequest]
    options: EncodingOptions
    mel: bool
    characters: bool
    views: Sequence[ViewRequest] = ()

    def load(self) -> tuple[list[Encoder[Any, Any]], list[str]]:
        """Loads the encoders of speech, then those of transcripts; also returns notes on them.

        Raises:
            MmerError: if an encoder is not available.
        """
        loaded = load_encoders(self.requests, self.options)
        mel, notes = self._load_mel(any(encoder.specs[0].name == MEL for encoder in loaded.speech))
        characters = [character_targets(self.options)] if self.characters else []
        views = load_views(self.views, loaded, self.requests)
        return [*loaded.speech, *mel, *loaded.text, *characters, *views], [*loaded.notes, *notes]

    def _load_mel(self, requested: bool) -> tuple[Sequence[Encoder[Any, Any]], list[str]]:
        """Loads log-mel, unless it is not wanted or already requested; returns a note if librosa is missing."""
        if not self.mel or requested:
            return [], []
        try:
            return load_encoders(parse_requests([MEL]), self.options).speech, []
        except MmerError as error:
            return [], [str(error)]


@dataclass(frozen=True, kw_only=True)
class ExtractionJob:
    """The description of one run: a corpus, its encoders, and the cache to write.

    Attributes:
        corpus: name in the catalog of corpora.
        root: folder of the corpus, or file of a manifest.
        cache: the file to write.
        encoders: requested encoders, ``[NAME=]SOURCE[@LAYERS]``; empty for the default encoders of the corpus.
        options: options of all encoders.
        views: requested views, ``lsa`` or ``cbca[:K]``.
        audio_only: compute no text encoder and no targets from transcripts.
        mel: add log-mel to the encoders, if the corpus has recordings.
        batch_seconds: seconds of speech of one batch; None for a value that suits the device.
        limit: number of utterances, counted from the first; None for all.
        shard: compute only this shard of the utterances; None for all.
        allow_outside: recordings of a manifest may lie outside its folder.
        encoding: encoding of the corpus' files of text; None for Unicode.
        columns: columns to read under other names, ``NAME=COLUMN``.
        keep_columns: further columns of a manifest to keep.
        replace: recompute features that were computed differently or are damaged; drop utterances that left the corpus.
        wait: wait for another run that writes to the file instead of stopping.
        asr: ASR model whose transcripts the text encoders read, ``[NAME=]MODEL``; empty for the corpus' own.
        asr_all: transcribe every utterance, not only those without a text of the corpus.
    """

    corpus: str
    root: Path | None
    cache: Path
    encoders: tuple[str, ...] = ()
    options: EncodingOptions
    views: tuple[str, ...] = ()
    audio_only: bool = False
    mel: bool = True
    batch_seconds: float | None = None
    limit: int | None = None
    shard: Shard | None = None
    allow_outside: bool = False
    encoding: str | None = None
    columns: tuple[str, ...] = ()
    keep_columns: tuple[str, ...] = ()
    replace: bool = False
    wait: bool = False
    asr: str = ""
    asr_all: bool = False

    def batch_budget(self, device: torch.device) -> float:
        """Returns the seconds of speech of one batch on a device."""
        return default_batch_seconds(device) if self.batch_seconds is None else self.batch_seconds


class JobOptions(TypedDict, total=False):
    """Options of `job_of`: the fields of `EncodingOptions` except its device, and some of `ExtractionJob`."""

    dtype: str
    precision: str
    codes: bool | None
    event_tags: str
    truncate: bool
    history: int
    max_tokens: int | None
    ctc_vocab: Path | None
    max_seconds: float
    chunk: bool
    start_layers: int
    views: tuple[str, ...]
    audio_only: bool
    mel: bool
    batch_seconds: float | None
    limit: int | None
    allow_outside: bool
    encoding: str | None
    columns: tuple[str, ...]
    keep_columns: tuple[str, ...]
    splits: tuple[str, ...]
    replace: bool
    wait: bool
    asr: str
    asr_all: bool


def job_of(
    corpus: str,
    *,
    root: Path | None = None,
    cache: Path | None = None,
    encoders: Sequence[str] = (),
    device: torch.device,
    **options: Unpack[JobOptions],
) -> ExtractionJob:
    """Builds a job with the default locations of caches and of the built-in corpus.

    A data set of another library (``hf:OWNER/NAME``, ``audformat:FOLDER``) is written as a manifest first; `splits`
    names those of its splits to read.

    Args:
        corpus: name in the catalog of corpora, or a data set of another library.
        root: folder of the corpus, or file of a manifest; None for the built-in corpus, which is then generated in
            the folder of the cache.
        cache: the file to write; None for a file in ``cache/``, named after the corpus or the manifest.
        encoders: ``[NAME=]SOURCE[@LAYERS]``; empty for the default encoders of the corpus.
        device: where encoders run.
        options: further fields of `ExtractionJob` and of `EncodingOptions`; ``ctc_vocab`` is the file of its CTC
            vocabulary.

    Raises:
        MmerError: if the file of the CTC vocabulary cannot be used.
        ValueError: if the cache is a pattern of files.
        MmerError: if a data set of another library cannot be read.

    Example:
        >>> job = job_of("demo", device=torch.device("cpu"), max_seconds=30)
        >>> job.cache.as_posix(), job.root.as_posix(), job.options.max_seconds
        ('cache/demo.h5', 'cache/demo', 30)
    """
    cache = default_cache(corpus, root, cache)
    if is_pattern(cache):
        raise ValueError(f"cache must be one file to write, got the pattern {cache}")
    root = default_root(corpus, root, cache)
    fields: dict[str, Any] = dict(options)
    splits = fields.pop("splits", ())
    if is_imported(corpus):
        root = write_imported(corpus, root or cache.parent / imported_name(corpus), splits)
        corpus, fields["allow_outside"] = MANIFEST, True  # recordings of a local data set stay where they are
    elif splits:
        raise MmerError(f"--split is for hf:OWNER/NAME and audformat:FOLDER, not for {corpus}; remove it")
    encoding = {name: fields.pop(name) for name in EncodingOptions.__dataclass_fields__.keys() & fields.keys()}
    if table := fields.pop("ctc_vocab", None):
        encoding["ctc_vocabulary"] = read_ctc_vocabulary(table)
    return ExtractionJob(
        corpus=corpus,
        root=root,
        cache=cache,
        encoders=tuple(encoders),
        options=EncodingOptions(device=device, **encoding),
        **fields,
    )
