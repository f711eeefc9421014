"""Report of a run: the contents of its cache, notes, and streams without any row."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.audit import left_out, noted, summarize
from cache.joined import AnyCache, AnyStream, open_cache
from cache.layout import COMMITTED
from cache.transcripts import stored_transcripts

if TYPE_CHECKING:
    from featurize.asr.word_errors import WordErrors


@dataclass(frozen=True, kw_only=True)
class ExtractionReport:
    """The result of a run.

    Attributes:
        cache: the file, or the pattern of the files of all shards.
        streams: names of the streams of this run.
        summary: summary of the cache, as ``mmer-cache info`` prints it.
        noted: notes on committed rows.
        notes: notes on the run as a whole.
        seconds: duration of the run.
        empty: streams of this run without any committed utterance.
        word_errors: errors of the transcripts by ASR against the corpus' texts; None where both do not exist.
    """

    cache: Path
    streams: list[str]
    summary: dict[str, Any]
    noted: list[dict[str, str]]
    notes: list[str]
    seconds: float
    empty: list[str]
    word_errors: "WordErrors | None" = None


def build_report(
    cache: Path,
    streams: Sequence[str],
    *,
    notes: Sequence[str],
    seconds: float,
    transcripts: str = "",
    opened: AnyCache | None = None,
) -> ExtractionReport:
    """Builds the report of a run from its cache.

    Args:
        cache: the file, or the pattern of several files.
        streams: names of the streams of the run.
        notes: notes on the run as a whole.
        seconds: duration of the run.
        transcripts: stream of the transcripts by ASR of the run; empty for none.
        opened: the cache, if it is open already.
    """
    opened = open_cache(cache) if opened is None else opened
    return ExtractionReport(
        cache=cache,
        streams=list(streams),
        summary=summarize(opened),
        noted=noted(opened),
        notes=list(notes),
        seconds=seconds,
        empty=[name for name in streams if _is_empty(opened.streams[name])],
        word_errors=_word_errors(opened, transcripts) if transcripts else None,
    )


def _word_errors(cache: AnyCache, name: str) -> "WordErrors | None":
    from featurize.asr.word_errors import word_errors  # here: it needs transformers, and a finished run does not

    return word_errors(cache, name, stored_transcripts(cache, cache.stream(name).key) or {})


def _is_empty(stream: AnyStream) -> bool:
    """Returns True for a stream without committed rows that leaves out some utterance for want of rows."""
    return not np.any(stream.state == COMMITTED) and len(left_out(stream)) < len(stream)
