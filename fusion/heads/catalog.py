"""The heads known by name, how one is configured, and how it is built."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import nn

from cache.errors import MmerError
from fusion.config import configured, nearest
from fusion.data.memory import is_out_of_memory
from fusion.head import AUDIO, TEXT, HeadConfig, HeadInputs
from fusion.heads.baselines import (
    Concat,
    ConcatConfig,
    CrossAttention,
    CrossAttentionConfig,
    Score,
    ScoreConfig,
    Unimodal,
    UnimodalConfig,
)
from fusion.heads.bimodal import Bimodal, BimodalConfig
from fusion.heads.jfm import JFM, JFMConfig
from fusion.heads.label_guided.head import LabelGuided, LabelGuidedConfig
from fusion.heads.rescmfa import ResCMFA, ResCMFAConfig
from fusion.heads.tab import MulTAB, MulTABConfig
from fusion.nn.dropout import seed_dropout

AnyHead: TypeAlias = ResCMFA | Bimodal | MulTAB | JFM | LabelGuided | Concat | CrossAttention | Unimodal | Score


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """One row of the catalog.

    Attributes:
        head: class to build.
        config: class of its configuration.
        summary: what it is, in a line.
        paper: where it was published.
        fixed: values that make the row what it is, by field; nothing else may be asked for.
    """

    head: Callable[[Any, HeadInputs], AnyHead]
    config: type[HeadConfig]
    summary: str
    paper: str
    fixed: Mapping[str, object] = field(default_factory=dict)


HEADS: Mapping[str, HeadSpec] = {
    "rescmfa": HeadSpec(
        head=ResCMFA,
        config=ResCMFAConfig,
        summary="GCF2-Net: residual cross-modal fusion attention, global-aware block, CTC",
        paper="doi:10.3389/fnins.2023.1183132",
    ),
    "bimodal": HeadSpec(
        head=Bimodal,
        config=BimodalConfig,
        summary="cross-modal coding blocks and BiGRU, predictive coding and contrastive learning",
        paper="doi:10.1080/08839514.2024.2356992",
    ),
    "tab": HeadSpec(
        head=MulTAB,
        config=MulTABConfig,
        summary="Mul-TAB: self-attention, cross-modal encoder, temporal-aware block",
        paper="doi:10.3390/app14083276",
    ),
    "jfm": HeadSpec(
        head=JFM,
        config=JFMConfig,
        summary="joint vectors through layers of ViT and RoBERTa, inter-class contrastive learning",
        paper="arXiv:2405.17900",
    ),
    "label-guided": HeadSpec(
        head=LabelGuided,
        config=LabelGuidedConfig,
        summary="LE-MER: label embeddings guide how speech is aligned to text",
        paper="Interspeech 2023, github.com/Digimonseeker/LE-MER",
    ),
    "concat": HeadSpec(
        head=Concat,
        config=ConcatConfig,
        summary="pooled audio and text, concatenated",
        paper="baseline of JFM, 2024",
    ),
    "cross-attention": HeadSpec(
        head=CrossAttention,
        config=CrossAttentionConfig,
        summary="one cross-attention each way, pooled and concatenated",
        paper="baseline of JFM, 2024",
    ),
    "audio": HeadSpec(
        head=Unimodal,
        config=UnimodalConfig,
        summary="audio alone: mean pool and a linear layer",
        paper="arXiv:2105.01051",
        fixed={"modalities": AUDIO},
    ),
    "text": HeadSpec(
        head=Unimodal,
        config=UnimodalConfig,
        summary="text alone: mean pool and a linear layer",
        paper="arXiv:2105.01051",
        fixed={"modalities": TEXT},
    ),
    "score": HeadSpec(
        head=Score,
        config=ScoreConfig,
        summary="the sum of the logits of audio alone and text alone, each trained by itself",
        paper="baseline of LE-MER, Interspeech 2023",
    ),
}


def head_spec(name: str) -> HeadSpec:
    """Looks a head up by its name.

    Raises:
        MmerError: if there is none of that name.
    """
    if name not in HEADS:
        raise MmerError(f"unknown head {name!r}; {nearest(name, HEADS)}")
    return HEADS[name]


def config_for(name: str, values: Mapping[str, object]) -> HeadConfig:
    """Builds the configuration of a head from the fields that are to differ from their defaults.

    Args:
        name: of the catalog.
        values: by field, as text or as they are.

    Raises:
        MmerError: if there is no such head or field, or a value is not allowed.

    Example:
        >>> config = config_for("text", {"pooling": "max", "dropout": "0.2"})
        >>> config.pooling, config.dropout, config.modalities
        ('max', 0.2, 'text')
    """
    spec = head_spec(name)
    for one, value in spec.fixed.items():
        if values.get(one, value) != value:
            raise MmerError(f"{one} of head {name} is always {value}, got {values[one]!r}")
    return configured(spec.config, {**values, **spec.fixed}, owner=f"head {name}")


def build_head(name: str, config: HeadConfig, inputs: HeadInputs, *, seed: int) -> AnyHead:
    """Builds a head on the CPU, the same for the same seed; the caller's random generators stay as they are.

    Args:
        name: of the catalog.
        config: of the class that the catalog names.
        inputs: what is known of the data.
        seed: of the weights and of all dropout.

    Raises:
        MmerError: if there is no head of that name, or the configuration does not suit the data.
        ValueError: if the configuration is another head's.
    """
    spec = head_spec(name)
    if type(config) is not spec.config:
        raise ValueError(f"head {name} is configured by {spec.config.__name__}, got {type(config).__name__}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs too, and fork none of them
        try:
            head = spec.head(config, inputs)
        except ValueError as error:
            raise MmerError(f"head {name}: {error}") from error
        except (RuntimeError, MemoryError, TypeError) as error:
            if not is_out_of_memory(error):
                raise
            raise MmerError(f"head {name} takes more memory than there is; choose a smaller dim") from error
    seed_dropout(head, seed)
    return head


def count_parameters(head: nn.Module) -> int:
    """Counts the parameters that are trained."""
    return sum(part.numel() for part in head.parameters() if part.requires_grad)
