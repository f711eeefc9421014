"""What becomes of a batch, on whatever machine: loaded, encoded, and turned into the rows that are stored."""

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
from featurize.inputs.audio import AudioSpan, RecordingError, load
from featurize.inputs.transcript import Turn


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeRequest:
    """One utterance to be encoded: where its sound lies or what is said, and what was noticed while planning it."""

    index: int
    value: AudioSpan | Turn
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeInput:
    """One input of an encoder, its digest for each stream, and what was noticed about it."""

    index: int
    value: Waveform | Turn
    digests: tuple[bytes, ...]
    note: str


@dataclass(frozen=True, slots=True)
class FailedInput:
    """One utterance that cannot be encoded, and why."""

    index: int
    reason: str


def order_of(plan: EncoderPlan, inputs: Inputs, index: int) -> EncodeRequest:
    """Gives all that an encoder needs to know of an utterance that it can encode."""
    planned = plan.planned[index]
    if plan.consumes != SPEECH:
        return EncodeRequest(
            index=index, value=inputs.turn(index, planned.turns), note=transcript_note(plan, inputs, index)
        )
    span = inputs.spans[index]
    assert isinstance(span, AudioSpan)  # a plan without a failure has one
    return EncodeRequest(index=index, value=span, note=planned.note)


def load_source(order: EncodeRequest, specs: Sequence[StreamSpec]) -> EncodeInput | FailedInput:
    """Loads what an encoder of these streams reads of one utterance, or says why it cannot be had."""
    if isinstance(order.value, Turn):
        digests = tuple(transcript_digest(order.value, spec) for spec in specs)
        return EncodeInput(index=order.index, value=order.value, digests=digests, note=order.note)
    try:
        loaded = load(order.value)
    except RecordingError as error:
        return FailedInput(order.index, str(error))
    digests = tuple(speech_digest(loaded.digest, order.value.samples, spec) for spec in specs)
    note = "; ".join(one for one in (loaded.note, order.note) if one)
    return EncodeInput(index=order.index, value=loaded.waveform, digests=digests, note=note)


def encode_sources(encoder: Encoder[Any, Any], found: Sequence[EncodeInput | FailedInput]) -> list[Row | FailedInput]:
    """Encodes a batch: a row of each stream for every utterance, or why there is none."""
    sources = [one for one in found if isinstance(one, EncodeInput)]
    outputs = encode_split(encoder, [source.value for source in sources]) if sources else []
    made: list[Row | FailedInput] = [one for one in found if isinstance(one, FailedInput)]
    for source, output in zip(sources, outputs, strict=True):
        rows = _rows(encoder, source, output)
        made += [FailedInput(source.index, rows)] if isinstance(rows, str) else rows
    return made


def encode_split(
    encoder: Encoder[Any, Any], values: Sequence[Any], *, precise: bool = False
) -> list[tuple[Rows, ...] | str]:
    """Encodes a batch, in halves where it does not fit the memory; one input that does not fit gives the reason."""
    try:
        return list(encoder.encode(values, precise=precise))
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(values) == 1:
        return ["out of memory for this utterance alone; try --chunk or another --device"]
    half = len(values) // 2
    parts = (values[:half], values[half:])
    return [output for part in parts for output in encode_split(encoder, part, precise=precise)]


def _rows(encoder: Encoder[Any, Any], source: EncodeInput, output: tuple[Rows, ...] | str) -> list[Row] | str:
    """Converts what was computed to what is stored, or says why it cannot be."""
    if isinstance(output, str):
        return output
    specs = encoder.specs
    note, stored = source.note, _stored(specs, output)
    if not all(map(all_finite, stored)) and specs[0].precision != "float32":
        output = encode_split(encoder, [source.value], precise=True)[0]
        if isinstance(output, str):
            return output
        stored = _stored(specs, output)
        # first, so that no long note of the input cuts it off
        note = "; ".join(one for one in (overflow_note(specs[0].precision), note) if one)
    if not all(map(all_finite, stored)):
        return _not_finite(output, specs[0])
    return [
        Row(stream=spec.name, index=source.index, stored=rows, digest=digest, note=note)
        for spec, rows, digest in zip(specs, stored, source.digests, strict=True)
    ]


def _stored(specs: Sequence[StreamSpec], output: tuple[Rows, ...]) -> list[StoredRows]:
    return [to_stored(rows, spec.dtype) for spec, rows in zip(specs, output, strict=True)]


def _not_finite(output: tuple[Rows, ...], spec: StreamSpec) -> str:
    if all(np.isfinite(rows).all() for rows in output):
        peak = max(float(np.abs(rows).max()) for rows in output)
        return f"values up to {peak:.3g} do not fit {spec.dtype}; --dtype float32 holds them"
    return "the encoder gives NaN or infinity, in float32 too"


def _out_of_memory(error: BaseException) -> bool:
    told = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in told
