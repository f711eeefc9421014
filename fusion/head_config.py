"""Configuration and inputs of a head, without torch: fields, roles, shapes, and the rows it may learn from."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from fusion.arrays import ClassIds

Weights = Mapping[str, npt.NDArray[Any]]
EncodeTexts: TypeAlias = Callable[[Sequence[str]], npt.NDArray[np.float64]]  # a vector for each text, (texts, dim)
BOTH, AUDIO, TEXT = "both", "audio", "text"
MODALITIES = (BOTH, AUDIO, TEXT)
TOKENS = "tokens"  # role with the id and the character span of each token of the text stream
OWN, ALL = "own", "all"
HISTORY_POOLS = (OWN, ALL)  # tokens over which text with history is pooled
CTC_SYMBOLS = 32  # characters of wav2vec2-base, including the blank
MOST_CTC_SYMBOLS = 256  # an index is stored in one byte


@dataclass(frozen=True, kw_only=True)
class HeadInputs:
    """Description of the data that a head is built for.

    Attributes:
        classes: names of the classes, in the order of their indices.
        shapes: role -> shape of one row of the stream that is read for the role, ``(dim,)`` or ``(layers, dim)``.
        weights: role -> pre-trained weights of the encoder of that stream, as stored in the cache.
        layers: role -> layers of that stream, as written after ``@``.
        encode_texts: encoder of the text stream, for texts of `Head.prepare`; None if it is not available.
        tuned: roles whose encoders learn with the head.
        symbols: number of symbols of the CTC targets, the blank included.
        loss: main loss, for a head that computes it itself: ``cross_entropy`` of classes, ``ccc`` or ``mse`` of
            dimensions, whose names are in `classes`.
    """

    classes: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    weights: Mapping[str, Weights] = field(default_factory=dict)
    layers: Mapping[str, str] = field(default_factory=dict)
    encode_texts: EncodeTexts | None = None
    tuned: frozenset[str] = frozenset()
    symbols: int = CTC_SYMBOLS
    loss: str = "cross_entropy"

    @property
    def has_classes(self) -> bool:
        """True if the head predicts classes, False if it predicts values."""
        return self.loss == "cross_entropy"


class TrainingRows(Protocol):
    """Training subset of a fold, the only data that `Head.prepare` may learn from.

    Attributes:
        labels: class of each utterance, int64 ``(n,)``.
    """

    labels: ClassIds

    def __len__(self) -> int:
        """Returns the number of utterances."""
        ...

    def text(self, index: int) -> str:
        """Returns the transcript of one utterance of the subset, as stored."""
        ...

    def length(self, role: str, index: int) -> int:
        """Returns the number of rows of one utterance of the subset."""
        ...

    def rows(self, role: str, index: int) -> npt.NDArray[Any]:
        """Returns the cached rows of one utterance of the subset, ``(rows, ...)``."""
        ...


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Configuration fields common to all heads; the configuration of a head adds its own.

    Attributes:
        per_model: fields in which models of one stack may differ: their values change neither a shape nor the
            computation, only dropout rates, weights of losses and initial weights.
        dim: width of the head; 0 for the width of its audio stream, or of its text stream if it reads no audio.
        adapter: whether a residual adapter precedes every branch of frozen features.
        tuned_adapter: whether a residual adapter precedes the branches of tuned encoders too.
        dropout: rate of all dropout, in [0, 1).
        modalities: ``both``, ``audio`` or ``text``.
        modality_dropout: probability in [0, 1) that an utterance loses one of its two modalities during training.
        standardize: whether each dimension is first scaled to mean 0 and variance 1 over the training subset of the
            fold.
    """

    per_model: ClassVar[frozenset[str]] = frozenset({"dropout"})

    dim: int = 0
    adapter: bool = True
    tuned_adapter: bool = False
    dropout: float = 0.1
    modalities: str = BOTH
    modality_dropout: float = 0.0
    standardize: bool = False

    def __post_init__(self) -> None:
        if self.modalities not in MODALITIES:
            raise ValueError(f"modalities must be one of {', '.join(MODALITIES)}, got {self.modalities!r}")
        for name in ("dropout", "modality_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.modality_dropout and self.modalities != BOTH:
            rate, only = self.modality_dropout, self.modalities
            raise ValueError(f"modality_dropout ({rate}) needs two modalities, got {only} only; set it to 0")
        if self.dim < 0:
            raise ValueError(f"dim must be a width, or 0 for the width of the stream, got {self.dim}")

    def reads(self, modality: str) -> bool:
        """Checks whether the head reads a modality, ``audio`` or ``text``."""
        return self.modalities in {BOTH, modality}

    def width(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Returns the width of the head for streams of these row shapes."""
        first = AUDIO if self.reads(AUDIO) else TEXT
        return self.dim or shapes[first][-1]

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles whose streams are required for prediction and training."""
        return self.branches

    @property
    def branches(self) -> tuple[str, ...]:
        """The modalities that the head reads, in the order of its branches."""
        return tuple(modality for modality in (AUDIO, TEXT) if self.reads(modality))

    @property
    def training_roles(self) -> tuple[str, ...]:
        """Roles that are read in training only."""
        return ()

    @property
    def prepare_roles(self) -> tuple[str, ...]:
        """Roles that only `Head.prepare` reads, from training rows; `HeadInputs.shapes` includes them."""
        return ()

    @property
    def encodes_texts(self) -> bool:
        """True if `Head.prepare` encodes texts of its own, where `HeadInputs.encode_texts` is available."""
        return False

    @property
    def optional_roles(self) -> tuple[str, ...]:
        """Roles that training reads in addition if the cache has a stream for them."""
        return ()

    @property
    def needs_view(self) -> bool:
        """True if the cache must have a stream for at least one of the optional roles."""
        return False

    def bound_to(self, roles: Collection[str]) -> "HeadConfig":
        """Returns the configuration for a cache, with every choice made that depends on the streams it has.

        Args:
            roles: roles for which streams are selected.
        """
        return self

    @property
    def weight_roles(self) -> tuple[str, ...]:
        """Roles with encoders whose pre-trained weights the head starts from."""
        return ()

    @property
    def every_role(self) -> set[str]:
        """All roles for which a stream may be chosen."""
        return {*self.roles, *self.training_roles, *self.prepare_roles, *self.weight_roles, *self.optional_roles}

    @property
    def needs_classes(self) -> str:
        """Part of the head that needs classes, with the fields that switch it off; empty if there is none."""
        return ""

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Weight of each auxiliary loss by name; losses of weight 0 are not computed."""
        return {}


def view_role(role: str, number: int = 1) -> str:
    """Returns the role of an augmented view of a role; of several views, the first has no number.

    Example:
        >>> view_role("text"), view_role("text", 2)
        ('text.view', 'text.view.2')
    """
    return f"{role}.view" if number == 1 else f"{role}.view.{number}"


def numbered_view(role: str) -> tuple[str, int]:
    """Returns the role under which a head reads a stream, and the number of the view; the inverse of `view_role`.

    Example:
        >>> numbered_view("text.view.2"), numbered_view("text.view"), numbered_view("text")
        (('text.view', 2), ('text.view', 1), ('text', 1))
    """
    match = re.fullmatch(r"(.+\.view)\.(\d+)", role)
    return (match[1], int(match[2])) if match else (role, 1)
