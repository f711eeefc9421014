"""Heads with their encoders in front as ONNX files: waveforms and token ids in, predictions out.

Inputs are, for a head that reads speech, ``waveform`` (16 kHz, at least 400 samples, ``(batch, samples)``) and
``waveform_mask``; for one that reads text, ``tokens`` (ids of the tokenizer, int64 ``(batch, tokens)``) and
``tokens_mask``. Masks are bool and True where a value is valid. Features are not rounded to the type of the cache.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cache.errors import MmerError
from cache.stream import StreamSpec
from featurize.encoders.layers import LayerChoice, parse_layers
from featurize.encoders.text import text_layers
from featurize.inputs.audio import MIN_SAMPLES
from fusion.end_to_end.learning.model import TunedModel
from fusion.end_to_end.learning.source import Folders, load_encoder
from fusion.end_to_end.prediction.models import Model
from fusion.end_to_end.sharing.onnx_head import ModelOutput, OnnxFile, export_checked, exportable
from fusion.head import Batch, Head
from fusion.head_config import AUDIO, TEXT

FAMILIES: Mapping[str, str] = {AUDIO: "wav2vec2", TEXT: "roberta"}  # role -> family that can be exported
INPUTS: Mapping[str, str] = {AUDIO: "waveform", TEXT: "tokens"}
FRAME = 320  # samples
FIRST_ID = 5  # token ids below are special


class SpeechFront(nn.Module):
    """A wav2vec 2.0 encoder for padded batches, with the values that each utterance has alone.

    Args:
        model: Hugging Face's base model in eval mode.
        choice: hidden states that the head reads.
        normalize: zero mean and unit variance of each utterance.
    """

    def __init__(self, model: Any, choice: LayerChoice, *, normalize: bool) -> None:
        super().__init__()
        self.model, self.choice, self.normalize = model, choice, normalize
        self.stable = bool(model.config.do_stable_layer_norm)

    def forward(self, waveform: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns rows ``(batch, frames, ...)`` and their mask from waveforms and bool ``(batch, samples)``."""
        lengths = mask.sum(dim=1)  # (batch,)
        if self.normalize:
            waveform = _normed(waveform, mask, 1e-7, dim=1)
        hidden = (waveform * mask)[:, None]  # (batch, 1, samples)
        for layer in self.model.feature_extractor.conv_layers:
            (kernel,), (stride,) = layer.conv.kernel_size, layer.conv.stride
            lengths = torch.div(lengths - kernel, stride, rounding_mode="floor") + 1
            if isinstance(getattr(layer, "layer_norm", None), nn.GroupNorm):
                hidden = layer.activation(_group_normed(layer.layer_norm, layer.conv(hidden), lengths))
            else:
                hidden = layer(hidden)
        valid = torch.arange(hidden.shape[2]) < lengths[:, None]  # (batch, frames)
        rows = self._encoded(hidden.transpose(1, 2), valid)
        return rows, valid

    def _encoded(self, features: Tensor, valid: Tensor) -> Tensor:
        encoder, projection = self.model.encoder, self.model.feature_projection
        hidden = projection.projection(projection.layer_norm(features)) * valid[..., None]
        hidden = hidden + encoder.pos_conv_embed(hidden)
        hidden = hidden if self.stable else encoder.layer_norm(hidden)
        states = _states(encoder.layers, hidden, valid)
        last = states[len(encoder.layers)]
        return self.choice.select(states, encoder.layer_norm(last) if self.stable else last)


class TextFront(nn.Module):
    """A RoBERTa encoder for padded batches.

    Args:
        model: Hugging Face's base model in eval mode.
        choice: hidden states that the head reads.
    """

    def __init__(self, model: Any, choice: LayerChoice) -> None:
        super().__init__()
        self.model, self.choice = model, choice

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns rows ``(batch, tokens, ...)`` and their mask from ids and bool ``(batch, tokens)``."""
        padding = int(self.model.config.pad_token_id or 0)
        hidden = self.model.embeddings(input_ids=torch.where(mask, tokens, padding))
        layers = text_layers(self.model)
        states = _states(layers, hidden, mask)
        return self.choice.select(states, states[len(layers)]), mask


class FullModel(nn.Module):
    """Encoders and a head with tensors as inputs: waveforms or token ids of all roles, then their masks.

    Args:
        head: trained head.
        fronts: role -> its encoder, in the order of the roles of the head.
        output: predictions from the outputs of the head.
    """

    def __init__(self, head: Head, fronts: Mapping[str, nn.Module], output: ModelOutput) -> None:
        super().__init__()
        self.head, self.fronts, self.output = head, nn.ModuleDict(fronts), output

    def forward(self, *tensors: Tensor) -> Tensor:
        """Returns probabilities or values, ``(batch, outputs)``."""
        count = len(self.fronts)
        given = zip(self.fronts.items(), tensors[:count], tensors[count:], strict=True)
        encoded = {role: front(values, mask) for (role, front), values, mask in given}
        index = torch.zeros(tensors[0].shape[0], dtype=torch.int64)  # labels and indices are not read in eval mode
        batch = Batch(
            features={role: rows for role, (rows, _) in encoded.items()},
            masks={role: mask for role, (_, mask) in encoded.items()},
            labels=index,
            indices=index,
        )
        predictions: Tensor = self.output(self.head(batch).logits)
        return predictions


def export_full(model: Model, path: Path, folders: Folders) -> OnnxFile:
    """Writes a model with its encoders as an ONNX file and compares it with torch on padded batches.

    Args:
        model: model of a run.
        path: file to write.
        folders: name of an encoder -> folder with its weights.

    Raises:
        MmerError: if an encoder is of another family or not available, or the model cannot be exported.
    """
    head = model.head.head if isinstance(model.head, TunedModel) else model.head
    fronts = {role: _front(model, role, folders) for role in head.config.roles}
    output = ModelOutput(model.scale)
    full = FullModel(exportable(head), fronts, output).eval()
    reference = FullModel(head, fronts, output).eval()
    names = [INPUTS[role] for role in fronts]
    sizes = [{0: "batch", 1: f"{name}_length"} for name in names]
    sounds = AUDIO in fronts
    metadata = {"classes": json.dumps(list(head.inputs.classes)), **({"rate_hz": "16000"} if sounds else {})}
    return export_checked(
        full,
        path,
        output=output,
        reference=reference,
        make_inputs=lambda shape: _inputs(fronts, *shape),
        names=[*names, *(f"{name}_mask" for name in names)],
        axes=sizes * 2,
        metadata=metadata,
    )


def _front(model: Model, role: str, folders: Folders) -> nn.Module:
    """Returns the encoder of a role."""
    spec = model.specs[role]
    tuned = isinstance(model.head, TunedModel) and role in model.head.loaded
    if role not in FAMILIES or (not tuned and spec.layers == "conv"):
        raise MmerError(f"--onnx full: {role} of {spec.name} is not among {', '.join(FAMILIES)}; pass --onnx instead")
    if isinstance(model.head, TunedModel) and role in model.head.loaded:
        base, choice = model.head.loaded[role].merged().base, model.head.starts[role].choice
    else:
        base, choice = _frozen(role, spec, folders)
    family = base.config.model_type
    if family != FAMILIES[role]:
        supported = " and ".join(FAMILIES.values())
        raise MmerError(f"--onnx full: {spec.name} is of family {family}; supported: {supported}; pass --onnx instead")
    if role == TEXT:
        return TextFront(base, choice).eval()
    return SpeechFront(base, choice, normalize=bool(spec.preprocessing.get("normalize"))).eval()


def _frozen(role: str, spec: StreamSpec, folders: Folders) -> tuple[Any, LayerChoice]:
    base = load_encoder(role, spec, spec.weights, folders).base
    count = int(base.config.num_hidden_layers)
    return base, parse_layers(spec.layers, layers=count, encoder=spec.encoder)


def _inputs(fronts: Mapping[str, nn.Module], count: int, rows: int) -> list[Tensor]:
    """Draws waveforms and token ids of a padded batch, and their masks."""
    random = torch.Generator().manual_seed(count)
    values, masks = [], []
    for role, front in fronts.items():
        least, length = (MIN_SAMPLES, MIN_SAMPLES + FRAME * rows) if role == AUDIO else (1, rows)
        if role == AUDIO:
            values.append(torch.randn((count, length), generator=random))
        else:
            model: Any = front.model
            values.append(torch.randint(FIRST_ID, int(model.config.vocab_size), (count, length), generator=random))
        lengths = torch.randint(least, length + 1, (count,), generator=random)
        lengths[0] = length
        masks.append(torch.arange(length) < lengths[:, None])
    return [*values, *masks]


def _states(layers: Any, hidden: Tensor, mask: Tensor) -> dict[int, Tensor]:
    """Returns the input and the output of every Transformer layer by the index of the hidden state."""
    rows = hidden.shape[1]
    seen = mask[:, None, None].expand(-1, 1, rows, rows)
    states = {0: hidden}
    for index, layer in enumerate(layers, start=1):
        output = layer(hidden, attention_mask=seen)
        hidden = output if isinstance(output, Tensor) else output[0]
        states[index] = hidden
    return states


def _group_normed(norm: nn.GroupNorm, hidden: Tensor, lengths: Tensor) -> Tensor:
    """Normalizes each channel of ``(batch, channels, samples)`` over its valid samples."""
    valid = torch.arange(hidden.shape[2]) < lengths[:, None, None]
    normed = _normed(hidden, valid, norm.eps, dim=2)
    return normed * norm.weight[:, None] + norm.bias[:, None]


def _normed(values: Tensor, valid: Tensor, eps: float, *, dim: int) -> Tensor:
    """Brings valid values to mean 0 and variance 1 along a dimension."""
    count = valid.sum(dim=dim, keepdim=True)
    mean = (values * valid).sum(dim=dim, keepdim=True) / count
    centred = (values - mean) * valid
    return centred / torch.sqrt((centred**2).sum(dim=dim, keepdim=True) / count + eps)
