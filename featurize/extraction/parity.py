"""How far batching moves a feature: the same utterances in one batch, and each alone through plain Hugging Face."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import Wav2Vec2FeatureExtractor

from cache.rows import Rows
from featurize.encoders.base import Waveform
from featurize.encoders.layers import CONV, LayerChoice
from featurize.encoders.speech import ChunkedEncoder, SpeechEncoder, full_float32
from featurize.encoders.text import TextEncoder
from featurize.encoders.vit_mel import BANDS, COLUMNS, PATCH, ROWS, MelEncoder, columns_of
from featurize.extraction.encode import EncodeInput, load_source, order_of
from featurize.extraction.job import PlannedJob
from featurize.extraction.plan import EncoderPlan, Inputs
from featurize.inputs.audio import RATE_HZ

TOLERANCE = 1e-5  # relative L2, float32
BATCHED = (SpeechEncoder, MelEncoder, TextEncoder)


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far an encoder's batch was from one by one, the worst utterance of those tried.

    Attributes:
        encoder: name of its stream.
        precision: what the Transformer computed in.
        utterances: how many were tried.
        relative: L2 norm of the difference over that of the features.
        absolute: largest difference of one value.
    """

    encoder: str
    precision: str
    utterances: int
    relative: float
    absolute: float

    @property
    def exact(self) -> bool:
        """Tells whether float32 features are within the tolerance; other precisions promise nothing."""
        return self.precision != "float32" or self.relative <= TOLERANCE


def check_parity(ready: PlannedJob, utterances: int) -> list[Parity]:
    """Compares one mixed batch of utterances, spread over all lengths, with each of them alone."""
    batched = [plan for plan in ready.plans if isinstance(_whole(plan.encoder), BATCHED)]
    return [_parity(plan, ready.inputs, utterances) for plan in batched]


def reference_speech(encoder: SpeechEncoder, waveform: Waveform) -> Rows:
    """Encodes one waveform the way Hugging Face documents: feature extractor, model, no mask.

    Gives what the encoder's first stream should hold, ``(frames, ...)``.
    """
    extractor: Any = Wav2Vec2FeatureExtractor(do_normalize=encoder.normalize)  # type: ignore[no-untyped-call]
    values = extractor(waveform, sampling_rate=RATE_HZ, return_tensors="pt").input_values
    return _alone_through(encoder.base, encoder.choices[0], input_values=values.to(encoder.device))


def reference_text(encoder: TextEncoder, words: str) -> Rows:
    """Encodes one text alone, likewise; gives ``(tokens, ...)``."""
    encoded = encoder.tokenizer(words, return_tensors="pt", truncation=True, max_length=encoder.max_tokens)
    return _alone_through(encoder.model, encoder.choices[0], **encoded.to(encoder.device))


def reference_mel(encoder: MelEncoder, waveform: Waveform) -> Rows:
    """Encodes one waveform as an image by Hugging Face's own embeddings and layers, ``(1 + 5 * columns, ...)``.

    Each band of the image stands in all channels, as a grey photograph; rows come in the order of the pixels, positions
    from Hugging Face's interpolation to 15 s.
    """
    model = encoder.model
    ((mel,),) = encoder.mel.encode([waveform])
    columns = columns_of(len(mel))
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
    """Gives the relative L2 and the largest absolute deviation."""
    difference = found.astype(np.float64) - expected.astype(np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(expected)), float(np.abs(difference).max())


def _parity(plan: EncoderPlan, inputs: Inputs, utterances: int) -> Parity:
    chosen = _spread(plan, utterances)
    found = [load_source(order_of(plan, inputs, index), plan.specs) for index in chosen]
    values = [one.value for one in found if isinstance(one, EncodeInput)]
    encoder = _whole(plan.encoder)
    rows = encoder.encode(values) if values else []
    pairs = [deviation(one[0], _alone(encoder, value)) for one, value in zip(rows, values, strict=True)]
    spec = plan.specs[0]
    relative, absolute = (max(numbers, default=0.0) for numbers in (zip(*pairs, strict=True) if pairs else ((), ())))
    return Parity(
        encoder=spec.name, precision=spec.precision, utterances=len(pairs), relative=relative, absolute=absolute
    )


def _spread(plan: EncoderPlan, utterances: int) -> list[int]:
    possible = [index for index, one in enumerate(plan.planned) if not one.failure and one.cost > 1]
    ordered: Sequence[int] = sorted(possible, key=lambda index: plan.planned[index].cost)
    places = np.linspace(0, len(ordered) - 1, min(utterances, len(ordered))).round().astype(int)
    return [ordered[place] for place in places]


def _alone(encoder: Any, value: Any) -> Rows:
    with full_float32(encoder.device):
        if isinstance(encoder, SpeechEncoder):
            return reference_speech(encoder, value)
        if isinstance(encoder, MelEncoder):
            return reference_mel(encoder, value)
        return reference_text(encoder, encoder.words(value))


def _whole(encoder: Any) -> Any:
    return encoder.whole if isinstance(encoder, ChunkedEncoder) else encoder


def _positions(embeddings: Any, columns: int) -> torch.Tensor:
    """Gives Hugging Face's positions of an image of that many columns, ``(1, 1 + rows * columns, dim)``."""
    rows = torch.empty(1, 1 + ROWS * columns, embeddings.position_embeddings.shape[-1])
    positions: torch.Tensor = embeddings.interpolate_pos_encoding(rows, ROWS * PATCH, columns * PATCH)
    return positions


def _alone_through(model: Any, choice: LayerChoice, **values: torch.Tensor) -> Rows:
    with torch.inference_mode():
        output = model(**values, output_hidden_states=True)
        hidden = {CONV: output.get("extract_features"), **dict(enumerate(output.hidden_states))}
        chosen = choice.select(hidden, output.last_hidden_state)
    rows: Rows = chosen[0].float().cpu().numpy()
    return rows
