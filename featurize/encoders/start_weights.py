"""Weights of pre-trained layers that JFM starts from, under the names of torch's own Transformer layer.

A head loads ``layers.I.NAME`` into ``nn.TransformerEncoderLayer(dim, heads, hidden, activation="gelu",
norm_first=norm_first, layer_norm_eps=norm_eps, batch_first=True)``; layer I turns hidden state I into hidden state
I + 1. They are there for post-norm encoders laid out as BERT (RoBERTa, BERT) and for the pre-norm ViT.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from featurize.encoders.layers import LayerChoice
from featurize.encoders.vit_mel import COLUMNS, patch_kernel, patch_positions, position_grid

ACTIVATION = "gelu"  # the exact one, as torch's layer computes it

Weights = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class LayerNames:
    """Where a family keeps the parts of a layer.

    Attributes:
        projections: of query, key and value.
        parts: torch's name of each other part -> the family's.
        norm_first: layer norms stand before attention and feed-forward, not after.
    """

    projections: tuple[str, str, str]
    parts: Mapping[str, str]
    norm_first: bool


_BERT = LayerNames(
    projections=("attention.self.query", "attention.self.key", "attention.self.value"),
    parts={
        "self_attn.out_proj": "attention.output.dense",
        "linear1": "intermediate.dense",
        "linear2": "output.dense",
        "norm1": "attention.output.LayerNorm",
        "norm2": "output.LayerNorm",
    },
    norm_first=False,
)
_VIT = LayerNames(
    projections=("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    parts={
        "self_attn.out_proj": "attention.o_proj",
        "linear1": "mlp.fc1",
        "linear2": "mlp.fc2",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
    },
    norm_first=True,
)
LAYER_NAMES: Mapping[str, LayerNames] = {"roberta": _BERT, "bert": _BERT, "vit": _VIT}


def text_start_weights(
    model: nn.Module, layers: nn.ModuleList, choices: Sequence[LayerChoice], count: int
) -> tuple[Weights, str]:
    """Gives the layers that follow each single hidden state asked for.

    Args:
        model: Hugging Face's base model.
        layers: its layers.
        choices: hidden states of its streams; nothing follows several, their mean or the encoder's output.
        count: how many layers after each.

    Returns:
        The weights by name, and a note where there are fewer layers than asked for.
    """
    config: Any = model.config
    singles = [choice.single for choice in choices if choice.single is not None]
    if config.model_type not in LAYER_NAMES or not singles:
        return {}, ""
    if config.hidden_act != ACTIVATION:
        return {}, _other_activation(config)
    left = {index: min(count, len(layers) - index) for index in singles}
    wanted = sorted({layer for index in singles for layer in range(index, index + left[index])})
    notes = [_fewer(f"after hidden state {index}", left[index], count) for index in singles if left[index] < count]
    return _layers(config, layers, wanted), "; ".join(notes)


def vit_start_weights(model: nn.Module, count: int) -> tuple[Weights, str]:
    """Gives what ViT makes of a log-mel image before its layers, its first layers and its final norm.

    Args:
        model: Hugging Face's ``ViTModel``.
        count: how many layers.

    Returns:
        The weights by name, and a note where there are fewer layers than asked for: ``cls (dim,)``,
        ``patch.weight (dim, 16, 16)``, bands by frames, ``patch.bias``, ``positions (1 + 5 * 94, dim)`` in the order
        of the rows, ``position_grid (14, 14, dim)`` as pre-trained, ``norm.weight`` and ``norm.bias``, and the layers.
    """
    parts: Any = model
    embeddings = parts.embeddings
    projection = embeddings.patch_embeddings.projection
    weights = {
        "cls": embeddings.cls_token[0, 0],
        "patch.weight": patch_kernel(projection),
        "patch.bias": projection.bias,
        "positions": patch_positions(embeddings, COLUMNS),
        "position_grid": position_grid(embeddings),
        "norm.weight": parts.layernorm.weight,
        "norm.bias": parts.layernorm.bias,
    }
    plain = {name: _plain(tensor) for name, tensor in weights.items()}
    if parts.config.hidden_act != ACTIVATION:
        return plain, _other_activation(parts.config)
    there = min(count, len(parts.layers))
    note = _fewer("in all", there, count) if there < count else ""
    return plain | _layers(parts.config, parts.layers, range(there)), note


def _layers(config: Any, layers: nn.ModuleList, wanted: Sequence[int]) -> Weights:
    if not wanted:
        return {}
    names = LAYER_NAMES[config.model_type]
    weights: Weights = {
        "heads": np.array(config.num_attention_heads, dtype=np.int64),
        "norm_eps": np.array(config.layer_norm_eps, dtype=np.float64),
        "norm_first": np.array(names.norm_first, dtype=np.int64),
    }
    for index in wanted:
        parts = _layer(layers[index], names)
        weights.update({f"layers.{index}.{name}": _plain(tensor) for name, tensor in parts.items()})
    return weights


def _layer(layer: nn.Module, names: LayerNames) -> dict[str, Tensor]:
    """Renames the parts of one layer; query, key and value are one matrix in torch."""
    three = [layer.get_submodule(name) for name in names.projections]
    parts: dict[str, Tensor] = {
        "self_attn.in_proj_weight": torch.cat([_weight(one) for one in three]),
        "self_attn.in_proj_bias": torch.cat([_bias(one) for one in three]),
    }
    for name, theirs in names.parts.items():
        part = layer.get_submodule(theirs)
        parts |= {f"{name}.weight": _weight(part), f"{name}.bias": _bias(part)}
    return parts


def _weight(part: Any) -> Tensor:
    weight: Tensor = part.weight
    return weight


def _bias(part: Any) -> Tensor:
    """Gives the bias of a linear layer or a norm; zeros where a ViT goes without for query, key and value."""
    return torch.zeros(part.weight.shape[0]) if part.bias is None else part.bias


def _plain(tensor: Tensor) -> npt.NDArray[np.float32]:
    values: npt.NDArray[np.float32] = tensor.detach().float().cpu().contiguous().numpy()
    return values


def _fewer(where: str, there: int, count: int) -> str:
    return f"has {there or 'no'} layer{'' if there == 1 else 's'} {where}: fewer start layers than {count}"


def _other_activation(config: Any) -> str:
    return f"computes with {config.hidden_act}, not {ACTIVATION}: no start layers"
