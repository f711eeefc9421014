"""One batch from inputs to stored rows: loading, encoding, conversion; the same on every machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cache.rows import Rows, StoredRows, all_finite, to_stored
from cache.stream import SPEECH, StreamSpec
from cache.writer import Row
from featurize.encoders.base import Encoder, Waveform
from featurize.extraction.plan import (
    EncoderPlan,
    Inputs,
    overflow_note,
    speech_digest,
    transcript_digest,
    transcript_note,
)
from featurize.inputs.audio import RATE_HZ, AudioSpan, RecordingError, load
from featurize.inputs.transcript import Turn


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeRequest:
    """One utterance to encode: its span of audio or its turn, and the note of its plan."""

    index: int
    value: AudioSpan | Turn
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeInput:
    """One loaded input of an encoder, its digest for each stream, and the note that is stored with its rows."""

    index: int
    value: Waveform | Turn
    digests: tuple[bytes, ...]
    note: str


@dataclass(frozen=True, slots=True)
class FailedInput:
    """One utterance that cannot be encoded, and the reason."""

    index: int
    reason: str


def encode_request(plan: EncoderPlan, inputs: Inputs, index: int) -> EncodeRequest:
    """Builds the request for an utterance whose plan has no failure."""
    planned = plan.planned[index]
    if plan.consumes != SPEECH:
        return EncodeRequest(
            index=index,
            value=inputs.turn(index, planned.turns, plan.specs[0]),
            note=transcript_note(plan, inputs, index),
        )
    span = inputs.spans[index]
    assert isinstance(span, AudioSpan)  # a plan without a failure has one
    return EncodeRequest(index=index, value=span, note=planned.note)


def load_input(request: EncodeRequest, specs: Sequence[StreamSpec]) -> EncodeInput | FailedInput:
    """Loads the input that an encoder of these streams reads for one utterance."""
    if isinstance(request.value, Turn):
        digests = tuple(transcript_digest(request.value, spec) for spec in specs)
        return EncodeInput(index=request.index, value=request.value, digests=digests, note=request.note)
    try:
        loaded = load(request.value, pieces=_in_pieces(request.value, specs[0]))
    except RecordingError as error:
        return FailedInput(request.index, str(error))
    digests = tuple(speech_digest(loaded.digest, request.value.samples, spec) for spec in specs)
    note = "; ".join(filter(None, (loaded.note, request.note)))
    return EncodeInput(index=request.index, value=loaded.waveform, digests=digests, note=note)


def _in_pieces(span: AudioSpan, spec: StreamSpec) -> bool:
    """Returns True if an encoder reads a recording piece by piece, so that its waveform need not be held."""
    limit_s = float(spec.limits.get("max_seconds") or 0)
    return bool(spec.limits.get("chunk")) and not spec.view and span.samples > int(limit_s * RATE_HZ)


def encode_inputs(encoder: Encoder[Any, Any], inputs: Sequence[EncodeInput | FailedInput]) -> list[Row | FailedInput]:
    """Encodes a batch: one `Row` per stream for every utterance, or one failure."""
    loaded = [item for item in inputs if isinstance(item, EncodeInput)]
    outputs = encode_split(encoder, [item.value for item in loaded]) if loaded else []
    results: list[Row | FailedInput] = [item for item in inputs if isinstance(item, FailedInput)]
    for item, output in zip(loaded, outputs, strict=True):
        rows = _rows(encoder, item, output)
        results += [FailedInput(item.index, rows)] if isinstance(rows, str) else rows
    return results


def encode_split(
    encoder: Encoder[Any, Any], values: Sequence[Any], *, precise: bool = False
) -> list[tuple[Rows, ...] | str]:
    """Encodes a batch, in halves if it does not fit the memory; an input that does not fit alone gives a reason."""
    try:
        return list(encoder.encode(values, precise=precise))
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(values) == 1:
        return ["out of memory for this utterance alone; try --chunk or another --device"]
    middle = len(values) // 2
    halves = (values[:middle], values[middle:])
    return [output for half in halves for output in encode_split(encoder, half, precise=precise)]


def _rows(encoder: Encoder[Any, Any], item: EncodeInput, output: tuple[Rows, ...] | str) -> list[Row] | str:
    """Converts computed values to stored rows, or returns the reason why they cannot be stored."""
    if isinstance(output, str):
        return output
    specs = encoder.specs
    note, stored = item.note, _stored(specs, output)
    if not all(map(all_finite, stored)) and specs[0].precision != "float32":
        output = encode_split(encoder, [item.value], precise=True)[0]
        if isinstance(output, str):
            return output
        stored = _stored(specs, output)
        # It comes first, so that a long note on the input cannot cut it off.
        note = "; ".join(filter(None, (overflow_note(specs[0].precision), note)))
    if not all(map(all_finite, stored)):
        return _nonfinite_reason(output, specs[0])
    return [
        Row(stream=spec.name, index=item.index, stored=rows, digest=digest, note=note)
        for spec, rows, digest in zip(specs, stored, item.digests, strict=True)
    ]


def _stored(specs: Sequence[StreamSpec], output: tuple[Rows, ...]) -> list[StoredRows]:
    return [to_stored(rows, spec.dtype) for spec, rows in zip(specs, output, strict=True)]


def _nonfinite_reason(output: tuple[Rows, ...], spec: StreamSpec) -> str:
    if all(np.isfinite(rows).all() for rows in output):
        peak = max(float(np.abs(rows).max()) for rows in output)
        return f"values up to {peak:.3g} do not fit {spec.dtype}; pass --dtype float32"
    return "the encoder returns NaN or infinity, in float32 as well"


def _out_of_memory(error: BaseException) -> bool:
    # On the CPU, torch raises a plain RuntimeError with this text.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)
