"""Transcripts by ASR: how a stream of a cache holds them, and the text that an utterance's features were computed from.

The corpus' own texts stay in the column ``text`` of the utterances. A stream ``MODEL.asr`` has the UTF-8 bytes of the
transcripts, one a row; an utterance has as many rows as its speech may need, and those after its text are zero. The
role of the stream is ``codes``, integers computed from speech, so that earlier versions read such a file as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.joined import AnyCache
from cache.layout import COMMITTED
from cache.store import Stream
from cache.stream import Scalar, StreamSpec

ENDING = ".asr"  # of the name of a stream of transcripts
VARIANT = "+asr"  # in the name of a stream whose encoder has read transcripts by ASR
SOURCE, KEY, EVERY = "asr", "asr.key", "asr.all"  # entries of `StreamSpec.preprocessing` of such a stream
HAS_TEXT = "has a transcript of the corpus"  # reason of an utterance that is not transcribed
MARKS = frozenset({SOURCE, KEY, EVERY})
BYTES_PER_S, LEAST_BYTES = 96, 256  # of a transcript: twice what the fastest speech needs in any script


@dataclass(frozen=True, kw_only=True)
class AsrReading:
    """The transcripts that encoders of text read.

    Attributes:
        source: hub id of the ASR model, or the name of its folder.
        key: key of the stream of transcripts; it covers model, revision and weights.
        every: read the transcript of every utterance, not only of those without a text of the corpus.
    """

    source: str
    key: str
    every: bool

    @property
    def marks(self) -> dict[str, Scalar]:
        """The entries of `StreamSpec.preprocessing` of streams that are computed from these transcripts."""
        return {SOURCE: self.source, KEY: self.key, EVERY: self.every}

    @classmethod
    def of(cls, spec: StreamSpec) -> "AsrReading | None":
        """Returns what a stream was computed from; None for the corpus' own texts."""
        marks = spec.preprocessing
        if not marks.get(SOURCE) or not marks.get(KEY):
            return None
        return cls(source=str(marks[SOURCE]), key=str(marks[KEY]), every=bool(marks.get(EVERY)))


def longest_bytes(duration_s: float) -> int:
    """Returns the greatest number of bytes of a transcript; a longer one repeats itself.

    Example:
        >>> longest_bytes(2.5)
        496
    """
    return LEAST_BYTES + int(duration_s * BYTES_PER_S)


def cut_text(text: str, most_bytes: int) -> str:
    """Returns a text of at most so many bytes, cut between characters.

    Example:
        >>> cut_text("naïve", 3)
        'na'
    """
    return text.encode()[:most_bytes].decode("utf-8", "ignore")


def text_rows(text: str, count: int) -> npt.NDArray[np.uint8]:
    """Returns a text as rows of a stream of transcripts, uint8 ``(count, 1)``.

    Raises:
        ValueError: if the text is longer than the rows.
    """
    encoded = text.encode()
    if len(encoded) > count:
        raise ValueError(f"a transcript must have at most {count} bytes, got {len(encoded)}")
    return np.frombuffer(encoded.ljust(count, b"\0"), dtype=np.uint8)[:, None].copy()


def row_text(rows: npt.NDArray[np.uint8]) -> str:
    """Returns the text of rows; a file may come from anybody, so that invalid bytes are replaced."""
    return rows.tobytes().rstrip(b"\0").decode("utf-8", "replace").replace("\0", "")


def is_transcripts(spec: StreamSpec) -> bool:
    """Returns True for a stream of transcripts by ASR."""
    return spec.role == "codes" and spec.name.endswith(ENDING) and spec.shape == (1,) and spec.dtype == "uint8"


def stored_transcripts(cache: AnyCache, key: str) -> dict[str, str] | None:
    """Reads the transcripts of one ASR model, by utterance id; None if the cache has no stream of this key."""
    found: dict[str, str] | None = None
    for file in cache.files:
        for stream in file.streams.values():
            if is_transcripts(stream.spec) and stream.key == key:
                found = {**(found or {}), **_texts(stream, file.ids)}
    return found


def texts_read(cache: AnyCache, spec: StreamSpec) -> list[str]:
    """Returns the text of each utterance that a stream of a cache was computed from.

    Args:
        cache: open cache.
        spec: a stream that consumes transcripts.

    Raises:
        MmerError: if it was computed from transcripts by ASR that the cache lacks.
    """
    reading = AsrReading.of(spec)
    if reading is None:
        return [utterance.text for utterance in cache.utterances]
    stored = stored_transcripts(cache, reading.key)
    if stored is None:
        raise MmerError(
            f"{cache.path} lacks the transcripts by {reading.source} that {spec.name} was computed from; "
            f"run mmer-featurize with --asr {reading.source} again"
        )
    return [text or "" for text in chosen_texts(cache, stored, every=reading.every)]


def chosen_texts(cache: AnyCache, stored: Mapping[str, str], *, every: bool) -> Sequence[str | None]:
    """Returns the text of each utterance: its transcript by ASR or, unless `every`, the corpus' own if there is one."""
    return [
        utterance.text if utterance.text.strip() and not every else stored.get(utterance.id)
        for utterance in cache.utterances
    ]


def _texts(stream: Stream, ids: Sequence[str]) -> dict[str, str]:
    committed = np.flatnonzero(stream.state == COMMITTED).tolist()
    return {ids[index]: row_text(stream.stored(index).values) for index in committed}
