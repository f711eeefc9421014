"""Parity check of batching: utterances encoded in one batch against each alone through plain Hugging Face."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import Wav2Vec2FeatureExtractor

from cache.rows import Rows
from featurize.encoders.any_text import AnyTextEncoder, text_states
from featurize.encoders.base import Waveform
from featurize.encoders.layers import CONV, LayerChoice
from featurize.encoders.one_by_one import OneByOneEncoder, inputs_of, states_of
from featurize.encoders.speech import ChunkedEncoder, SpeechEncoder, full_float32
from featurize.encoders.text import TextEncoder
from featurize.encoders.vit_mel import BANDS, COLUMNS, PATCH, ROWS, MelEncoder, count_columns
from featurize.encoders.whisper import WhisperEncoder, count_frames
from featurize.extraction.encode import EncodeInput, encode_request, load_input
from featurize.extraction.plan import EncoderPlan, Inputs
from featurize.extraction.planned_job import PlannedJob
from featurize.inputs.audio import RATE_HZ

TOLERANCE = 1e-5  # of the relative L2 in float32
COMPARED = (SpeechEncoder, WhisperEncoder, OneByOneEncoder, MelEncoder, TextEncoder)


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The deviation of an encoder's batched features from single ones, for the worst utterance of a sample.

    Attributes:
        encoder: name of its first stream.
        precision: type in which the Transformer computed.
        utterances: number of compared utterances.
        relative: L2 norm of the difference divided by the norm of the features.
        absolute: largest difference of a single value.
    """

    encoder: str
    precision: str
    utterances: int
    relative: float
    absolute: float

    @property
    def exact(self) -> bool:
        """True if float32 features are within the tolerance; other precisions have no limit and are always exact."""
        return self.precision != "float32" or self.relative <= TOLERANCE


def check_parity(planned_job: PlannedJob, utterances: int) -> list[Parity]:
    """Compares one mixed batch of utterances, spread over all lengths, with each utterance alone."""
    batched = [plan for plan in planned_job.plans if isinstance(_unchunked(plan.encoder), COMPARED)]
    return [_measure_parity(plan, planned_job.inputs, utterances) for plan in batched]


def reference_speech(encoder: SpeechEncoder, waveform: Waveform) -> Rows:
    """Encodes one waveform as Hugging Face documents it: feature extractor, model, no mask.

    Returns:
        The expected rows of the encoder's first stream, ``(frames, ...)``.
    """
    extractor: Any = Wav2Vec2FeatureExtractor(do_normalize=encoder.normalize)  # type: ignore[no-untyped-call]
    values = extractor(waveform, sampling_rate=RATE_HZ, return_tensors="pt").input_values
    return _run_alone(encoder.base, encoder.choices[0], input_values=values.to(encoder.device))


def reference_whisper(encoder: WhisperEncoder, waveform: Waveform) -> Rows:
    """Encodes one waveform in its window of 30 s by Hugging Face's model, ``(frames, ...)`` of the first stream."""
    features = encoder.extractor(waveform, sampling_rate=RATE_HZ, return_tensors="pt").input_features
    return _run_alone(encoder.model, encoder.choices[0], input_features=features.to(encoder.device))[
        : count_frames(len(waveform))
    ]


def reference_any(encoder: OneByOneEncoder, waveform: Waveform) -> Rows:
    """Encodes one waveform by the feature extractor and the model of a checkpoint, ``(frames, ...)``."""
    values = {name: value.to(encoder.device) for name, value in inputs_of(encoder.extractor, [waveform]).items()}
    with torch.inference_mode():
        states = states_of(encoder.model, values)
    (planned,) = encoder.plan([len(waveform)])
    chosen = encoder.choices[0].select(dict(enumerate(states[:-1])), states[-1])
    rows: Rows = chosen[0, : planned.rows[0]].float().cpu().numpy()
    return rows


def reference_text(encoder: TextEncoder, words: str) -> Rows:
    """Encodes one text as Hugging Face documents it, ``(tokens, ...)`` of the encoder's first stream."""
    encoded = encoder.tokenizer(words, return_tensors="pt", truncation=True, max_length=encoder.max_tokens)
    if isinstance(encoder, AnyTextEncoder):
        ids = encoded["input_ids"].to(encoder.device)
        with torch.inference_mode():
            states = text_states(encoder.model, ids, torch.ones_like(ids))
        rows: Rows = encoder.choices[0].select(dict(enumerate(states[:-1])), states[-1])[0].float().cpu().numpy()
        return rows
    return _run_alone(encoder.model, encoder.choices[0], **encoded.to(encoder.device))


def reference_mel(encoder: MelEncoder, waveform: Waveform) -> Rows:
    """Encodes one waveform as an image by Hugging Face's embeddings and layers, ``(1 + 5 * columns, ...)``.

    The image is the same in all channels, as a grey photograph. Patches are computed in the order of the pixels, with
    positions from Hugging Face's interpolation to 15 s, and then sorted by time.
    """
    model = encoder.model
    ((mel,),) = encoder.mel.encode([waveform])
    columns = count_columns(len(mel))
    image = np.zeros((BANDS, columns * PATCH), dtype=np.float32)
    image[:, : len(mel)] = mel.T
    grey = torch.from_numpy(image).to(encoder.device).expand(1, model.config.num_channels, -1, -1)
    with torch.inference_mode():
        patches = model.embeddings.patch_embeddings(grey / model.config.num_channels)  # (1, rows * columns, dim)
        table = _positions(model.embeddings, max(columns, COLUMNS))
        grid = table[:, 1:].reshape(1, ROWS, -1, table.shape[-1])[:, :, :columns]
        states = torch.cat([model.embeddings.cls_token + table[:, :1], patches + grid.flatten(1, 2)], dim=1)
        hidden = [states]
        for layer in model.layers:
            hidden.append(layer(hidden[-1]))
        chosen = encoder.choices[0].select(dict(enumerate(hidden)), model.layernorm(hidden[-1]))[0]
    by_time = chosen[1:].reshape(ROWS, columns, *chosen.shape[1:]).transpose(0, 1).flatten(0, 1)
    rows: Rows = torch.cat([chosen[:1], by_time]).cpu().numpy()
    return rows


def deviation(found: Rows, expected: Rows) -> tuple[float, float]:
    """Computes the relative L2 and the largest absolute deviation."""
    difference = found.astype(np.float64) - expected.astype(np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(expected)), float(np.abs(difference).max())


def _measure_parity(plan: EncoderPlan, inputs: Inputs, utterances: int) -> Parity:
    indices = _spread_by_length(plan, utterances)
    loaded = [load_input(encode_request(plan, inputs, index), plan.specs) for index in indices]
    values = [item.value for item in loaded if isinstance(item, EncodeInput)]
    encoder = _unchunked(plan.encoder)
    batched = encoder.encode(values) if values else []
    deviations = [
        deviation(streams[0], _reference(encoder, value)) for streams, value in zip(batched, values, strict=True)
    ]
    spec = plan.specs[0]
    return Parity(
        encoder=spec.name,
        precision=spec.precision,
        utterances=len(deviations),
        relative=max((relative for relative, _ in deviations), default=0.0),
        absolute=max((absolute for _, absolute in deviations), default=0.0),
    )


def _spread_by_length(plan: EncoderPlan, utterances: int) -> list[int]:
    possible = [index for index, planned in enumerate(plan.planned) if not planned.failure and planned.cost > 1]
    ordered = sorted(possible, key=lambda index: plan.planned[index].cost)
    ranks = np.linspace(0, len(ordered) - 1, min(utterances, len(ordered))).round().astype(int)
    return [ordered[rank] for rank in ranks]


def _reference(encoder: Any, value: Any) -> Rows:
    with full_float32(encoder.device):
        if isinstance(encoder, SpeechEncoder):
            return reference_speech(encoder, value)
        if isinstance(encoder, WhisperEncoder):
            return reference_whisper(encoder, value)
        if isinstance(encoder, OneByOneEncoder):
            return reference_any(encoder, value)
        if isinstance(encoder, MelEncoder):
            return reference_mel(encoder, value)
        return reference_text(encoder, encoder.words(value))


def _unchunked(encoder: Any) -> Any:
    return encoder.encoder if isinstance(encoder, ChunkedEncoder) else encoder


def _positions(embeddings: Any, columns: int) -> torch.Tensor:
    """Computes Hugging Face's positions of an image with a number of columns, ``(1, 1 + rows * columns, dim)``."""
    rows = torch.empty(1, 1 + ROWS * columns, embeddings.position_embeddings.shape[-1])
    positions: torch.Tensor = embeddings.interpolate_pos_encoding(rows, ROWS * PATCH, columns * PATCH)
    return positions


def _run_alone(model: Any, choice: LayerChoice, **values: torch.Tensor) -> Rows:
    with torch.inference_mode():
        output = model(**values, output_hidden_states=True)
        hidden = {CONV: output.get("extract_features"), **dict(enumerate(output.hidden_states))}
        chosen = choice.select(hidden, output.last_hidden_state)
    rows: Rows = chosen[0].float().cpu().numpy()
    return rows
