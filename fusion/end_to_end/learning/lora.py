"""LoRA adapters in an encoder, by the package peft (Hu et al., 2022, arXiv:2106.09685)."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cache.errors import MmerError

# Names of the projections of queries and values, which get adapters, as in the paper; of each family one pair fits.
# WavLM computes its attention from the weights alone, past any adapter, so its feed-forward layers get them.
TARGETS: Sequence[tuple[str, str]] = (
    ("q_proj", "v_proj"),
    ("linear_q", "linear_v"),
    ("query_proj", "value_proj"),
    ("query", "value"),
    ("q_lin", "v_lin"),
)
OTHERS: Mapping[str, tuple[str, str]] = {"wavlm": ("intermediate_dense", "output_dense")}
SCALE = 2  # alpha over rank


def with_adapters(base: nn.Module, rank: int, *, seed: int) -> nn.Module:
    """Adds adapters to the attention layers of a base model in place; nothing else of it learns.

    Args:
        base: Hugging Face's base model.
        rank: rank of the adapters.
        seed: seed of their initial weights.

    Returns:
        The model of peft around it.

    Raises:
        MmerError: if peft is not installed, or the attention of the model has other names.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MmerError("LoRA needs the package peft; run `pip install peft`") from error
    names = {name.rpartition(".")[2] for name, module in base.named_modules() if isinstance(module, nn.Linear)}
    family = str(base.config.model_type)  # type: ignore[union-attr]
    pairs = [OTHERS[family]] if family in OTHERS else TARGETS
    targets = next((list(pair) for pair in pairs if names.issuperset(pair)), None)
    if targets is None:
        raise MmerError(f"LoRA knows no attention projections of {family}; tune layers instead, as in --tune ROLE=3")
    config: Any = LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules=targets)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")  # peft asks transformers the old way
        torch.default_generator.manual_seed(seed)
        adapted: nn.Module = get_peft_model(base, config)
    return adapted


def save_adapters(adapted: Any, folder: Path) -> None:
    """Writes adapters in the format of peft."""
    adapted.save_pretrained(str(folder))


def merge_adapters(adapted: Any) -> None:
    """Merges adapters into the weights of the base model, in place."""
    adapted.merge_and_unload()
