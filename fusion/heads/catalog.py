"""Catalog of fusion heads: their names, papers, configurations and construction.

A head outside the catalog is named by its import path, ``package.module:Class`` (`fusion.heads.import_path`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from cache.errors import MmerError
from fusion.config import configured, nearest
from fusion.data.memory import is_out_of_memory
from fusion.head import AUDIO, TEXT, Head, HeadConfig, HeadInputs
from fusion.heads.baselines import Concat, CrossAttention, Score, Unimodal
from fusion.heads.bimodal import Bimodal
from fusion.heads.import_path import import_head, is_import_path, source_digest
from fusion.heads.jfm import JFM
from fusion.heads.label_guided.head import LabelGuided
from fusion.heads.rescmfa import ResCMFA
from fusion.heads.tab import MulTAB
from fusion.nn.dropout import seed_dropout


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """One row of the catalog.

    Attributes:
        head: class of the head.
        summary: description in one line.
        paper: DOI, arXiv number or other reference of the publication.
        fixed: fields whose value belongs to the row and cannot be changed, field -> value.
        source: digest of the source file of a head named by its import path; empty for a head of the catalog.
    """

    head: type[Head]
    summary: str
    paper: str
    fixed: Mapping[str, object] = field(default_factory=dict)
    source: str = ""

    @property
    def config(self) -> type[HeadConfig]:
        """Class of the configuration."""
        return self.head.config_class


HEADS: Mapping[str, HeadSpec] = {
    "rescmfa": HeadSpec(
        head=ResCMFA,
        summary="GCF2-Net: residual cross-modal fusion attention, global-aware block, CTC",
        paper="doi:10.3389/fnins.2023.1183132",
    ),
    "bimodal": HeadSpec(
        head=Bimodal,
        summary="cross-modal coding blocks and BiGRU, predictive coding and contrastive learning",
        paper="doi:10.1080/08839514.2024.2356992",
    ),
    "tab": HeadSpec(
        head=MulTAB,
        summary="Mul-TAB: self-attention, cross-modal encoder, temporal-aware block",
        paper="doi:10.3390/app14083276",
    ),
    "jfm": HeadSpec(
        head=JFM,
        summary="joint vectors through layers of ViT and RoBERTa, inter-class contrastive learning",
        paper="arXiv:2405.17900",
    ),
    "label-guided": HeadSpec(
        head=LabelGuided,
        summary="LE-MER: label embeddings guide how speech is aligned to text",
        paper="Interspeech 2023, github.com/Digimonseeker/LE-MER",
    ),
    "concat": HeadSpec(
        head=Concat,
        summary="pooled audio and text, concatenated",
        paper="baseline of JFM, 2024",
    ),
    "cross-attention": HeadSpec(
        head=CrossAttention,
        summary="one cross-attention each way, pooled and concatenated",
        paper="baseline of JFM, 2024",
    ),
    "audio": HeadSpec(
        head=Unimodal,
        summary="audio alone: mean pool and a linear layer",
        paper="arXiv:2105.01051",
        fixed={"modalities": AUDIO},
    ),
    "text": HeadSpec(
        head=Unimodal,
        summary="text alone: mean pool and a linear layer",
        paper="arXiv:2105.01051",
        fixed={"modalities": TEXT},
    ),
    "score": HeadSpec(
        head=Score,
        summary="the sum of the logits of audio alone and text alone, each trained by itself",
        paper="baseline of LE-MER, Interspeech 2023",
    ),
}


def head_spec(name: str) -> HeadSpec:
    """Returns the head of a name, imported if the name is ``package.module:Class``.

    The name must come from the user. For a name that was read from a file, use `stored_head_spec`.

    Raises:
        MmerError: if the name is unknown, or the class cannot be imported or is not a usable head.
    """
    if is_import_path(name):
        head = import_head(name)
        summary = next(iter((head.__doc__ or "").strip().splitlines()), "")
        return HeadSpec(head=head, summary=summary, paper="", source=source_digest(head))
    if name not in HEADS:
        own_head = "a head of your own is named module:Class, such as my_heads:MyHead"
        raise MmerError(f"unknown head {name!r}; {own_head if '.' in name or ':' in name else nearest(name, HEADS)}")
    return HEADS[name]


def stored_head_spec(name: str, *, allowed: str | None = None, source: str = "") -> HeadSpec:
    """Returns the head of a name read from a run folder; runs no code that the user did not name.

    A head of the catalog is always returned. An import path may be another person's code: it is imported only if the
    user named the same path. After this call, `config_for` and `build_head` may be called with the name.

    Args:
        name: ``fusion`` in run.json.
        allowed: import path that the user named, on the command line or as an argument; None if the user named none.
        source: ``source`` in run.json, the digest of the head's source file; empty if it was not recorded.

    Raises:
        MmerError: if the name is an import path that is not allowed or an unknown name, or the source file of the head
            has changed since the run was trained.
    """
    if is_import_path(name) and name != allowed:
        named = f", not {allowed}" if allowed else ""
        raise MmerError(
            f"the run was trained with head {name}, which is code outside mmer and is imported only on request; "
            f"if you trust it, name it: --fusion {name}{named}"
        )
    spec = head_spec(name)
    if source and spec.source and source != spec.source:
        raise MmerError(
            f"the source file of head {name} has changed since the run was trained; restore the file, or train again"
        )
    return spec


def file_name_of(name: str) -> str:
    """Returns the name of a head in the form that file names contain.

    Example:
        >>> file_name_of("label-guided"), file_name_of("my.heads:Gated")
        ('label-guided', 'my-heads-Gated')
    """
    return name.replace(".", "-").replace(":", "-") if is_import_path(name) else name


def config_for(name: str, values: Mapping[str, object]) -> HeadConfig:
    """Builds the configuration of a head; fields that are not given keep their defaults.

    Args:
        name: name in the catalog, or an import path.
        values: field -> value, as text or as the value itself.

    Raises:
        MmerError: if the head or a field is unknown, or a value is not allowed.

    Example:
        >>> config = config_for("text", {"pooling": "max", "dropout": "0.2"})
        >>> config.pooling, config.dropout, config.modalities
        ('max', 0.2, 'text')
    """
    spec = head_spec(name)
    for fixed, value in spec.fixed.items():
        if values.get(fixed, value) != value:
            raise MmerError(f"{fixed} of head {name} is always {value}, got {values[fixed]!r}")
    return configured(spec.config, {**values, **spec.fixed}, owner=f"head {name}")


def build_head(name: str, config: HeadConfig, inputs: HeadInputs, *, seed: int) -> Head:
    """Builds a head on the CPU; equal seeds give equal heads.

    The caller's random generators keep their state.

    Args:
        name: name in the catalog, or an import path.
        config: an instance of the head's `Head.config_class`.
        inputs: description of the data.
        seed: seed of the weights and of all dropout.

    Raises:
        MmerError: if the name is unknown, the configuration does not fit the data, or the head does not fit in memory.
        ValueError: if the configuration belongs to another head.
    """
    spec = head_spec(name)
    if type(config) is not spec.config:
        raise ValueError(f"head {name} is configured by {spec.config.__name__}, got {type(config).__name__}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs too, which are not forked here
        try:
            head = spec.head(config, inputs)
        except ValueError as error:
            raise MmerError(f"head {name}: {error}") from error
        except (RuntimeError, MemoryError, TypeError) as error:
            if not is_out_of_memory(error):
                raise
            raise MmerError(f"head {name} needs more memory than is available; choose a smaller dim") from error
    seed_dropout(head, seed)
    return head


def count_parameters(head: nn.Module) -> int:
    """Counts the trainable parameters."""
    return sum(parameter.numel() for parameter in head.parameters() if parameter.requires_grad)
