"""Stream of transcripts: an ASR model as an encoder, so that transcripts are planned, resumed and checked as features.

The stream ``MODEL.asr`` is written before the encoders of text are planned: they count the tokens of its texts.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from cache.errors import MmerError
from cache.rows import Rows
from cache.stream import StreamSpec
from cache.transcripts import ENDING, AsrReading, longest_bytes, text_rows
from featurize.asr.transcriber import Transcriber
from featurize.encoders.base import Encoder, InputPlan, Waveform
from featurize.encoders.options import EncodingOptions
from featurize.inputs.audio import RATE_HZ
from featurize.runtime.versions import library_versions


@dataclass(frozen=True, kw_only=True)
class AsrRequest:
    """A requested ASR model: the name of its stream without the ending, and its hub id or folder."""

    name: str
    source: str

    @property
    def stream(self) -> str:
        """The name of its stream."""
        return f"{self.name}{ENDING}"


def parse_asr(text: str) -> AsrRequest:
    """Reads the value of ``--asr``.

    Raises:
        MmerError: if it is neither a folder nor a hub id, or the name is invalid.

    Example:
        >>> parse_asr("openai/whisper-tiny.en")
        AsrRequest(name='whisper-tiny.en', source='openai/whisper-tiny.en')
    """
    named, _, rest = text.partition("=")
    source = text if not rest or Path(text).is_dir() else rest
    source = source.rstrip("/") or source
    if not Path(source).is_dir() and not re.fullmatch(r"\w[\w.-]*/[\w.-]+", source):
        raise MmerError(f"unknown ASR model {source!r}; name a folder or a hub id such as openai/whisper-tiny.en")
    name = named if rest and source == rest else Path(source).resolve().name
    if not re.fullmatch(r"\w[\w. -]*", name):
        raise MmerError(f"--asr {text!r} needs a plain name, as in --asr NAME={source}")
    return AsrRequest(name=name, source=source)


class AsrEncoder:
    """An ASR model as an encoder of waveforms; its rows are the bytes of transcripts.

    Args:
        transcriber: loaded model.
        name: name of the stream.
    """

    def __init__(self, transcriber: Transcriber, name: str) -> None:
        self._transcriber = transcriber
        self.start_weights: Mapping[str, npt.NDArray[Any]] = {}
        self.specs = [
            StreamSpec(
                name=name,
                role="codes",
                source=transcriber.source,
                revision=transcriber.revision,
                weights=transcriber.weights,
                layers="transcript",
                shape=(1,),
                dtype="uint8",
                preprocessing=transcriber.settings,
                versions=library_versions(),
            )
        ]

    def reading(self, *, every: bool) -> AsrReading:
        """Returns what encoders of text read: the transcripts of all utterances, or of those without a text."""
        (spec,) = self.specs
        return AsrReading(source=spec.source, key=spec.key, every=every)

    def plan(self, sizes: Sequence[int]) -> list[InputPlan]:
        """Reserves the rows of each transcript by the length of its recording in samples."""
        return [InputPlan(rows=(longest_bytes(samples / RATE_HZ),), cost=samples) for samples in sizes]

    def encode(self, inputs: Sequence[Waveform], *, precise: bool = False) -> list[tuple[Rows, ...]]:
        """Transcribes waveforms: the bytes of each text, uint8 ``(bytes, 1)``."""
        counts = [plan.rows[0] for plan in self.plan(list(map(len, inputs)))]
        texts = self._transcriber(inputs)
        return [(text_rows(text, count),) for text, count in zip(texts, counts, strict=True)]


@dataclass(frozen=True, kw_only=True)
class AsrEncoderSet:
    """The ASR model of a run, loaded in the same way on every machine that takes part."""

    request: AsrRequest
    options: EncodingOptions

    def load(self) -> tuple[list[Encoder[Any, Any]], list[str]]:
        """Loads the model; there are no notes.

        Raises:
            MmerError: if it is not available.
        """
        return [AsrEncoder(Transcriber(self.request.source, self.options.device), self.request.stream)], []
