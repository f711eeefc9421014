"""Options of encoders: device, precision, limits of inputs."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cache.stream import Scalar
from cache.transcripts import AsrReading
from featurize.inputs.ctc_vocabulary import STANDARD, CtcVocabulary

PRECISIONS: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, kw_only=True)
class EncodingOptions:
    """Options of a run that apply to all its encoders.

    Attributes:
        device: device on which encoders run.
        dtype: type in which features are stored.
        precision: type in which Transformers compute.
        codes: quantizer codes: True requires them, False omits them, None computes them if the checkpoint has them.
        event_tags: ``strip`` or ``keep``.
        ctc_vocabulary: symbols of the CTC targets.
        truncate: cut transcripts that are too long instead of failing.
        history: number of preceding turns of the dialogue that a text encoder reads with an utterance.
        max_tokens: maximum number of tokens of a text, special tokens included; None for the encoder's limit.
        max_seconds: maximum duration of an utterance.
        chunk: encode longer utterances in pieces instead of failing.
        start_layers: number of pre-trained layers that are stored for JFM to start from.
        transcripts: transcripts by ASR that encoders of text read; None for the corpus' own.
    """

    device: torch.device
    dtype: str = "float16"
    precision: str = "float32"
    codes: bool | None = None
    event_tags: str = "strip"
    ctc_vocabulary: CtcVocabulary = STANDARD
    truncate: bool = False
    history: int = 0
    max_tokens: int | None = None
    max_seconds: float = 60.0
    chunk: bool = False
    start_layers: int = 2
    transcripts: AsrReading | None = None


def in_precisions(model: nn.Module, precision: torch.dtype) -> dict[torch.dtype, Any]:
    """Returns a float32 model by the type that it computes in: as it is, and a copy in the requested precision."""
    if precision == torch.float32:
        return {precision: model}
    return {torch.float32: model, precision: copy.deepcopy(model).to(precision)}


def recorded_limits(options: EncodingOptions, *, chunk: bool) -> dict[str, Scalar]:
    """Returns the limits of inputs that a stream's spec records."""
    return {"max_seconds": options.max_seconds, "chunk": chunk}
