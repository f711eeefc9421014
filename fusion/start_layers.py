"""Pre-trained Transformer layers that a head starts from, as a cache keeps them.

They are stored as ``layers.I.NAME`` under torch's own names, beside ``heads``, ``norm_eps`` and ``norm_first``; layer I
turns hidden state I into hidden state I + 1.
"""

import torch

from cache.errors import MmerError
from fusion.attention import TransformerLayer
from fusion.inputs import Weights

MOST_LAYERS = 12  # of ViT-base, and after the middle of a large language model
ADD_THEM = "run `mmer-featurize CORPUS --encoder roberta-large@12 --encoder vit-mel-base --start-layers {}` to add them"


def layers_from(weights: Weights, first: int) -> list[int]:
    """Gives the indices of the stored layers from one on, as far as they go without a gap.

    Example:
        >>> import numpy as np
        >>> layers_from({f"layers.{index}.norm1.bias": np.zeros(4) for index in (4, 5, 12)}, 4)
        [4, 5]
    """
    stored = {int(name.split(".")[1]) for name in weights if name.startswith("layers.")}
    found: list[int] = []
    while first + len(found) in stored:
        found.append(first + len(found))
    return found


def chosen_layers(weights: Weights, what: str, *, first: int, count: int, last: bool) -> list[int]:
    """Chooses layers to start from: those from index `first` on, or the last of the stored ones that follow it.

    Args:
        weights: what the cache holds of the encoder.
        what: whose layers they are, for the error.
        first: index of the first that may be used.
        count: how many are wanted.
        last: whether to take the last of the stored ones.

    Raises:
        MmerError: if too few are stored, or none but the first where the last are asked for.
    """
    stored = layers_from(weights, first)
    if len(stored) < count:
        raise MmerError(
            f"{count} {what} layers are needed from layer {first} on, the cache holds {len(stored)}; "
            f"{add_them(MOST_LAYERS if last else count)}"
        )
    if last and len(stored) == count < MOST_LAYERS:
        raise MmerError(f"the cache holds the first {count} {what} layers alone, not the last; {add_them(MOST_LAYERS)}")
    return stored[-count:] if last else stored[:count]


def add_them(count: int) -> str:
    """Names the command that adds so many layers of each encoder to a cache."""
    return ADD_THEM.format(count)


def layer_width(weights: Weights, index: int) -> int:
    """Gives the width of the rows that a stored layer takes."""
    return int(weights[f"layers.{index}.norm1.weight"].shape[0])


def start_layer(weights: Weights, index: int, *, dropout: float) -> TransformerLayer:
    """Builds a layer that computes what the pre-trained one does.

    Args:
        weights: what the cache holds of the encoder.
        index: of the layer, among those that `layers_from` gives.
        dropout: rate of the layer in training; the pre-trained one's is not stored.
    """
    mine = f"layers.{index}."
    state = {name.removeprefix(mine): torch.tensor(one) for name, one in weights.items() if name.startswith(mine)}
    feedforward, dim = state["linear1.weight"].shape
    layer = TransformerLayer(
        dim=dim,
        heads=int(weights["heads"]),
        feedforward=feedforward,
        dropout=dropout,
        norm_first=bool(weights["norm_first"]),
        eps=float(weights["norm_eps"]),
    )
    layer.load_state_dict(state, assign=True)
    return layer
