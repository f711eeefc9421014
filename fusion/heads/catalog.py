"""Catalog of fusion heads: their names, papers, configurations and construction.

A head outside the catalog is named by its import path, ``package.module:Class`` (`fusion.heads.import_path`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

from cache.errors import MmerError
from cache.near_names import nearest
from fusion.config import configured
from fusion.head_config import AUDIO, TEXT, HeadConfig
from fusion.heads.configs.baselines import (
    ConcatConfig,
    CrossAttentionConfig,
    ProbeConfig,
    ScoreConfig,
    UnimodalConfig,
)
from fusion.heads.configs.bimodal import BimodalConfig
from fusion.heads.configs.jfm import JFMConfig
from fusion.heads.configs.label_guided import LabelGuidedConfig
from fusion.heads.configs.rescmfa import ResCMFAConfig
from fusion.heads.configs.tab import MulTABConfig

if TYPE_CHECKING:
    from fusion.head import Head

SCORE_FUSION = "score"  # also the late fusion of finished runs
IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def is_import_path(name: str) -> bool:
    """Returns whether the name of a head is an import path.

    Example:
        >>> is_import_path("my_heads:Gated"), is_import_path("a.b:Gated"), is_import_path("rescmfa")
        (True, True, False)
    """
    return IMPORT_PATH.fullmatch(name) is not None


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """One row of the catalog.

    Attributes:
        head: import path ``package.module:Class``, so that the catalog is read without torch.
        config: class of its configuration, equal to `Head.config_class` of the class.
        summary: description in one line.
        paper: DOI, arXiv number or other reference of the publication.
        fixed: fields whose value belongs to the row and cannot be changed, field -> value.
        source: digest of the source file of a head named by its import path; empty for a head of the catalog.
    """

    head: str
    config: type[HeadConfig]
    summary: str
    paper: str
    fixed: Mapping[str, object] = field(default_factory=dict)
    source: str = ""

    def head_class(self) -> "type[Head]":
        """Imports the class of the head."""
        module, _, name = self.head.partition(":")
        found: type[Head] = getattr(import_module(module), name)
        return found


HEADS: Mapping[str, HeadSpec] = {
    "rescmfa": HeadSpec(
        head="fusion.heads.rescmfa:ResCMFA",
        config=ResCMFAConfig,
        summary="GCF2-Net: residual cross-modal fusion attention, global-aware block, CTC",
        paper="doi:10.3389/fnins.2023.1183132",
    ),
    "bimodal": HeadSpec(
        head="fusion.heads.bimodal:Bimodal",
        config=BimodalConfig,
        summary="cross-modal coding blocks and BiGRU, predictive coding and contrastive learning",
        paper="doi:10.1080/08839514.2024.2356992",
    ),
    "tab": HeadSpec(
        head="fusion.heads.tab:MulTAB",
        config=MulTABConfig,
        summary="Mul-TAB: self-attention, cross-modal encoder, temporal-aware block",
        paper="doi:10.3390/app14083276",
    ),
    "jfm": HeadSpec(
        head="fusion.heads.jfm:JFM",
        config=JFMConfig,
        summary="joint vectors through layers of ViT and RoBERTa, inter-class contrastive learning",
        paper="arXiv:2405.17900",
    ),
    "label-guided": HeadSpec(
        head="fusion.heads.label_guided.head:LabelGuided",
        config=LabelGuidedConfig,
        summary="LE-MER: label embeddings guide how speech is aligned to text",
        paper="Interspeech 2023, github.com/Digimonseeker/LE-MER",
    ),
    "concat": HeadSpec(
        head="fusion.heads.baselines:Concat",
        config=ConcatConfig,
        summary="pooled audio and text, concatenated",
        paper="baseline of mmer",
    ),
    "cross-attention": HeadSpec(
        head="fusion.heads.baselines:CrossAttention",
        config=CrossAttentionConfig,
        summary="one cross-attention each way, pooled and concatenated",
        paper="baseline of mmer",
    ),
    "audio": HeadSpec(
        head="fusion.heads.baselines:Unimodal",
        config=UnimodalConfig,
        summary="audio alone: mean pool and a linear layer",
        paper="arXiv:2105.01051",
        fixed={"modalities": AUDIO},
    ),
    "text": HeadSpec(
        head="fusion.heads.baselines:Unimodal",
        config=UnimodalConfig,
        summary="text alone: mean pool and a linear layer",
        paper="arXiv:2105.01051",
        fixed={"modalities": TEXT},
    ),
    "probe": HeadSpec(
        head="fusion.heads.probe:Probe",
        config=ProbeConfig,
        summary="logistic regression over mean and deviation, C chosen on dev: seconds",
        paper="baseline of mmer",
    ),
    "score": HeadSpec(
        head="fusion.heads.baselines:Score",
        config=ScoreConfig,
        summary="the sum of the logits of audio alone and text alone, each trained by itself",
        paper="baseline of mmer",
    ),
}


def head_spec(name: str) -> HeadSpec:
    """Returns the head of a name, imported if the name is ``package.module:Class``.

    The name must come from the user. For a name that was read from a file, use `stored_head_spec`.

    Raises:
        MmerError: if the name is unknown, or the class cannot be imported or is not a usable head.
    """
    if is_import_path(name):
        from fusion.heads.import_path import import_head, source_digest  # imports torch

        head = import_head(name)
        summary = next(iter((head.__doc__ or "").strip().splitlines()), "")
        return HeadSpec(head=name, config=head.config_class, summary=summary, paper="", source=source_digest(head))
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
            f"the run was trained with head {name}, which is code outside mmer and is imported only on request; if you "
            f"trust it, name it: --head {name}{named} (mmer-predict, mmer-export), or head={name!r} in Python"
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
