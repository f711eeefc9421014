"""Weights of pre-trained layers that JFM starts from, under the names of torch's Transformer layer.

A head loads ``layers.I.NAME`` into ``nn.TransformerEncoderLayer(dim, heads, hidden, activation="gelu",
norm_first=norm_first, layer_norm_eps=norm_eps, batch_first=True)``; layer I turns hidden state I into hidden state
I + 1. Supported are post-norm encoders with the structure of BERT (RoBERTa, BERT) and the pre-norm ViT.
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

ACTIVATION = "gelu"  # without approximation, as torch's layer computes it

Weights = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class LayerNames:
    """Submodule names of a Transformer layer in one model family.

    Attributes:
        projections: names of the projections of query, key and value.
        submodules: torch's name of every other submodule -> the family's name.
        norm_first: layer norms precede attention and feed-forward instead of following them.
    """

    projections: tuple[str, str, str]
    submodules: Mapping[str, str]
    norm_first: bool


_BERT = LayerNames(
    projections=("attention.self.query", "attention.self.key", "attention.self.value"),
    submodules={
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
    submodules={
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
    """Returns the weights of the layers that follow each requested single hidden state.

    Args:
        model: Hugging Face's base model.
        layers: its layers.
        choices: hidden states of its streams; a stack, a mean and the encoder's output have no following layer.
        count: number of layers after each hidden state.

    Returns:
        The weights by name, and a note if there are fewer layers than requested, otherwise an empty text.
    """
    config: Any = model.config
    singles = [choice.single for choice in choices if choice.single is not None]
    if config.model_type not in LAYER_NAMES or not singles:
        return {}, ""
    if config.hidden_act != ACTIVATION:
        return {}, _activation_note(config)
    available = {index: min(count, len(layers) - index) for index in singles}
    wanted = sorted({layer for index in singles for layer in range(index, index + available[index])})
    notes = [
        _fewer_note(f"after hidden state {index}", available[index], count)
        for index in singles
        if available[index] < count
    ]
    return _layers(config, layers, wanted), "; ".join(notes)


def vit_start_weights(model: nn.Module, count: int) -> tuple[Weights, str]:
    """Returns the weights of a ViT over log-mel: its embedding of images, its first layers and its final norm.

    Args:
        model: Hugging Face's ``ViTModel``.
        count: number of layers.

    Returns:
        The weights by name, and a note if there are fewer layers than requested, otherwise an empty text. The names
        are ``cls (dim,)``, ``patch.weight (dim, 16, 16)``, bands by frames, ``patch.bias (dim,)``,
        ``positions (1 + 5 * 94, dim)`` in the order of the rows, ``position_grid (14, 14, dim)`` as pre-trained,
        ``norm.weight``, ``norm.bias``, and those of the layers.
    """
    vit: Any = model
    embeddings = vit.embeddings
    projection = embeddings.patch_embeddings.projection
    weights = {
        "cls": embeddings.cls_token[0, 0],
        "patch.weight": patch_kernel(projection),
        "patch.bias": projection.bias,
        "positions": patch_positions(embeddings, COLUMNS),
        "position_grid": position_grid(embeddings),
        "norm.weight": vit.layernorm.weight,
        "norm.bias": vit.layernorm.bias,
    }
    arrays = {name: _as_array(tensor) for name, tensor in weights.items()}
    if vit.config.hidden_act != ACTIVATION:
        return arrays, _activation_note(vit.config)
    available = min(count, len(vit.layers))
    note = _fewer_note("in all", available, count) if available < count else ""
    return arrays | _layers(vit.config, vit.layers, range(available)), note


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
        tensors = _rename_layer(layers[index], names)
        weights.update({f"layers.{index}.{name}": _as_array(tensor) for name, tensor in tensors.items()})
    return weights


def _rename_layer(layer: nn.Module, names: LayerNames) -> dict[str, Tensor]:
    """Returns the weights of one layer under torch's names; torch joins query, key and value in one matrix."""
    projections = [layer.get_submodule(name) for name in names.projections]
    tensors: dict[str, Tensor] = {
        "self_attn.in_proj_weight": torch.cat([_weight(projection) for projection in projections]),
        "self_attn.in_proj_bias": torch.cat([_bias(projection) for projection in projections]),
    }
    for name, family_name in names.submodules.items():
        submodule = layer.get_submodule(family_name)
        tensors |= {f"{name}.weight": _weight(submodule), f"{name}.bias": _bias(submodule)}
    return tensors


def _weight(module: Any) -> Tensor:
    weight: Tensor = module.weight
    return weight


def _bias(module: Any) -> Tensor:
    """Returns the bias of a linear layer or a norm; zeros if there is none, as in query, key and value of some ViTs."""
    return torch.zeros(module.weight.shape[0]) if module.bias is None else module.bias


def _as_array(tensor: Tensor) -> npt.NDArray[np.float32]:
    values: npt.NDArray[np.float32] = tensor.detach().float().cpu().contiguous().numpy()
    return values


def _fewer_note(where: str, available: int, count: int) -> str:
    return f"has {available or 'no'} layer{'' if available == 1 else 's'} {where}: fewer start layers than {count}"


def _activation_note(config: Any) -> str:
    return f"uses the activation {config.hidden_act}, not {ACTIVATION}: no start layers"
