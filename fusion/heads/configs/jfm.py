"""Hyperparameters of JFM: fields, defaults, checks, and the roles that follow from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fusion.head_config import AUDIO, TEXT, HeadConfig

MOST_LAYERS = 12  # as `fusion.nn.pretrained.MOST_LAYERS`
MEL, PATCHES, LANGUAGE = "mel", "patches", "language"
JOINT, LATE, CFA, CONCAT = "joint", "late", "cfa", "concat"
JFM = "jfm"  # the name of JOINT in Table 3
LAYER12, BASE768 = "layer12", "base768"
FIRST, LAST = "first", "last"
CHOICES = {"fusion": (JOINT, LATE, CFA, CONCAT), "text": (LAYER12, BASE768), "layers": (FIRST, LAST)}
ICL = "icl"


@dataclass(frozen=True, kw_only=True)
class JFMConfig(HeadConfig):
    """Configuration of JFM; its widths are those of the pre-trained layers, so `dim` and `adapter` stay off.

    Attributes:
        fusion: ``joint`` (or ``jfm``) for joint blocks. Without them, text is what the extractor returns: with
            ``late``, audio is the CLS row of the stream `patches`; with ``cfa``, the rows of both streams attend to
            each other; with ``concat``, the final rows are concatenated and classified together.
        joint: whether the streams exchange joint vectors.
        joint_length: number of joint vectors of each block and direction.
        blocks: number of pre-trained layers of each stream; those of a language model only with ``fusion=joint``, and
            none with ``fusion=late``.
        layers: which of the stored layers are used, ``first`` or ``last``.
        freeze_layers: whether all parts that start from pre-trained weights keep them, as in PMF.
        text: ``layer12``; or ``base768``, which accepts text rows of any width and maps them by a linear layer to the
            width of the language layers, whose weights are then those of the role ``language``. Without joint blocks
            text keeps its width in both cases.
        extractor_layers: number of layers between the cached text and the blocks.
        extractor_heads: number of attention heads of each of these layers, and with ``fusion=cfa`` of the attention
            between the streams; there the greatest smaller number that divides the width of the stream.
        icl: whether the inter-class contrastive loss is trained too.
        icl_weight: weight of that loss.
        tau: temperature of that loss.
    """

    per_model: ClassVar[frozenset[str]] = HeadConfig.per_model | {"icl_weight", "layers"}

    adapter: bool = False
    fusion: str = JOINT
    joint: bool = True
    joint_length: int = 4
    blocks: int = 2
    layers: str = FIRST
    freeze_layers: bool = False
    text: str = LAYER12
    extractor_layers: int = 2
    extractor_heads: int = 8
    icl: bool = True
    icl_weight: float = 1.0
    tau: float = 0.07

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fusion == JFM:
            object.__setattr__(self, "fusion", JOINT)  # one value for one computation, so that runs agree
        if self.dim or self.adapter:
            raise ValueError("jfm has the widths of its pre-trained layers and no adapter: dim must be 0, adapter off")
        if self.standardize:
            raise ValueError("pre-trained layers need the features of the encoder unchanged: standardize must be false")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be {' or '.join(allowed)}, got {getattr(self, name)!r}")
        if not 1 <= self.blocks <= MOST_LAYERS:
            raise ValueError(f"blocks must be 1 to {MOST_LAYERS}, got {self.blocks}; fusion={LATE} has no blocks")
        for name, least in (("joint_length", 1), ("extractor_layers", 0), ("extractor_heads", 1), ("icl_weight", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.tau <= 0:
            raise ValueError(f"tau must be above 0, got {self.tau}")

    @property
    def language_layers(self) -> int:
        """Number of layers of the language model: `blocks`, or 0 without joint blocks."""
        return self.blocks if self.fusion == JOINT else 0

    @property
    def roles(self) -> tuple[str, ...]:
        """Log-mel or, with ``fusion=late``, patches; and text."""
        roles = {AUDIO: PATCHES if self.fusion == LATE else MEL, TEXT: TEXT}
        return tuple(role for modality, role in roles.items() if self.reads(modality))

    @property
    def weight_roles(self) -> tuple[str, ...]:
        """Roles whose encoders must have their start weights in the cache.

        Without joint blocks text is still among them, so that of several text streams the same one is chosen as with
        joint blocks.
        """
        language = (LANGUAGE,) if self.language_layers else ()
        text = language if self.text == BASE768 else (TEXT,)
        return ((PATCHES,) if MEL in self.roles else ()) + (text if self.reads(TEXT) else ())

    @property
    def needs_classes(self) -> str:
        """The inter-class contrastive loss, if it is trained."""
        return "its contrastive loss compares classes; pass --set icl=false" if self.icl and self.icl_weight else ""

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Weight of the inter-class contrastive loss."""
        return {ICL: self.icl_weight} if self.icl else {}
