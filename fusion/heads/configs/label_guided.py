"""Hyperparameters of LE-MER: fields, defaults, checks, and the roles that follow from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fusion.head_config import ALL, AUDIO, HISTORY_POOLS, OWN, TEXT, TOKENS, HeadConfig

LABEL_WORD, TFIDF, RAW, SOFTMAX = "label-word", "tfidf", "raw", "softmax"
OFF, RANDOM, FROM_TEXT, CODEBOOK = "off", "random", "text", "codebook"
TONAL_LABELS = (OFF, RANDOM, FROM_TEXT, CODEBOOK)
CONTRASTIVE, LIFT = "contrastive", "lift"
TONAL_SPACES = (CONTRASTIVE, LIFT)
CONSTRAINTS = ("C1", "C2", "C3", "C4")
CHOICES: Mapping[str, tuple[str, ...]] = {
    "text_labels": (OFF, RANDOM, LABEL_WORD, TFIDF),
    "tonal_labels": TONAL_LABELS,
    "tonal_space": TONAL_SPACES,
    "constraint": CONSTRAINTS,
    "al_norm": (RAW, SOFTMAX),
    "history_pool": HISTORY_POOLS,
}
WEIGHTS = ("mu_m", "mu_c", "mu_text", "mu_speech")

# Only `prepare` reads these
START_FIELDS = ("text_labels", "tonal_labels", "words", "frames", "idf", "contrast", "min_count")
LOSSES = {TEXT: "l_g_text", AUDIO: "l_g_speech"}
UTTERANCE, CLASS = "utterance", "class"
IDF = (UTTERANCE, CLASS)


@dataclass(frozen=True, kw_only=True)
class ItemSelection:
    """Rules by which the items that describe a class are selected.

    Attributes:
        most: maximum number of items.
        idf: what counts as a document, ``utterance`` or ``class``.
        contrast: whether the mean score in the other classes is subtracted.
        min_count: number of training utterances in which an item must occur, if a class has enough such items.
    """

    most: int
    idf: str = UTTERANCE
    contrast: bool = False
    min_count: int = 5

    def __post_init__(self) -> None:
        for name in ("most", "min_count"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.idf not in IDF:
            raise ValueError(f"idf must be one of {', '.join(IDF)}, got {self.idf!r}")


@dataclass(frozen=True, kw_only=True)
class LabelGuidedConfig(HeadConfig):
    """Configuration of LE-MER; `dim`, if set, is the width of both modalities in the alignment.

    Attributes:
        text_labels: start of the labels of text (semantic): ``random``, ``label-word`` or ``tfidf``; ``off`` for no
            labels.
        tonal_labels: start of the labels of speech (tonal): ``random``, ``text`` (from the words that describe a
            class) or ``codebook``; ``off`` for no labels.
        words, frames: number of words and of joint codes that describe a class.
        idf: document of TF-IDF, ``utterance`` or ``class``.
        contrast: whether TF-IDF subtracts the mean score of the other classes.
        min_count: number of training utterances in which a word or code must occur, if there are enough such items.
        constraint: ``C1`` uses the learned attention and a loss that pulls it to the label attention, ``C2`` the mean
            of both attentions, ``C3`` the label attention, ``C4`` the learned attention. Unless both modalities have
            labels, C1 has no such loss.
        al_norm: form of the label attention in the loss of C1, ``raw`` or ``softmax``.
        detach_al: whether the loss of C1 has no gradient to the label attention.
        tonal_space: space in which frames and labels are compared, ``contrastive`` or ``lift``.
        train_projection: whether `project_hid` is trained too.
        span_mask: share of the frames that are hidden in training, in spans.
        history_pool: tokens that the classifier's vector pools of a text stream with history, ``all`` as in the
            paper, or ``own`` (those of the current turn); attention and labels always read all.
        mu_m: weight of the cross entropy; only its ratio to the other weights matters.
        mu_c, mu_text, mu_speech: weights of the constraint and of the label losses of text and of speech.
    """

    per_model: ClassVar[frozenset[str]] = HeadConfig.per_model.union(WEIGHTS, START_FIELDS)
    text_labels: str = TFIDF
    tonal_labels: str = CODEBOOK
    words: int = 9
    frames: int = 100
    idf: str = "utterance"
    contrast: bool = False
    min_count: int = 5
    constraint: str = "C1"
    al_norm: str = RAW
    detach_al: bool = False
    tonal_space: str = CONTRASTIVE
    train_projection: bool = False
    span_mask: float = 0.0
    history_pool: str = ALL
    mu_m: float = 1.0
    mu_c: float = 0.5
    mu_text: float = 0.2
    mu_speech: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.standardize:
            raise ValueError("label embeddings need the features of the encoder unchanged: standardize must be false")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("mu_c", "mu_text", "mu_speech"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.mu_m <= 0:
            raise ValueError(f"mu_m must be positive, got {self.mu_m}")
        if self.constraint in {"C2", "C3"} and OFF in {self.text_labels, self.tonal_labels}:
            raise ValueError(f"constraint {self.constraint} needs the labels of both modalities, got off")
        for name in ("words", "frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        self.item_selection(self.words)  # checks idf and min_count

    @property
    def roles(self) -> tuple[str, ...]:
        """The modalities, and the spans of tokens if only those of the current turn are pooled."""
        return (*self.branches, *((TOKENS,) if self.history_pool == OWN and self.reads(TEXT) else ()))

    def item_selection(self, most: int) -> ItemSelection:
        """Returns the rules by which at most so many words or codes are selected for a class."""
        return ItemSelection(most=most, idf=self.idf, contrast=self.contrast, min_count=self.min_count)

    def has_labels(self, modality: str) -> bool:
        """Returns whether the head reads a modality and has labels for it."""
        return self.reads(modality) and (self.text_labels if modality == TEXT else self.tonal_labels) != OFF

    @property
    def has_constraint(self) -> bool:
        """True if a loss pulls the learned attention to the label attention."""
        return self.constraint == "C1" and self.has_labels(TEXT) and self.has_labels(AUDIO)

    @property
    def word_modalities(self) -> tuple[str, ...]:
        """The modalities whose labels start from words."""
        uses_words = {TEXT: self.text_labels != RANDOM, AUDIO: self.tonal_labels == FROM_TEXT}
        return tuple(modality for modality in (AUDIO, TEXT) if uses_words[modality] and self.has_labels(modality))

    @property
    def encodes_texts(self) -> bool:
        """True if labels start from words: the words of each class pass the text encoder (L-4)."""
        return bool(self.word_modalities)

    @property
    def uses_codes(self) -> bool:
        """True if the labels of speech start from codes."""
        return self.has_labels(AUDIO) and self.tonal_labels == CODEBOOK

    @property
    def prepare_roles(self) -> tuple[str, ...]:
        """Text and spans of tokens if labels start from words, and codes if they start from codes."""
        words = (TEXT, TOKENS) if self.word_modalities else ()
        return (*(role for role in words if role not in self.roles), *(("codes",) if self.uses_codes else ()))

    @property
    def needs_classes(self) -> str:
        """The label embeddings, which describe classes."""
        if not self.has_labels(TEXT) and not self.has_labels(AUDIO):
            return ""
        return "its label embeddings describe classes; pass --set text_labels=off --set tonal_labels=off"

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Weights of the constraint and of the label losses, relative to `mu_m`."""
        weights = {LOSSES[TEXT]: self.mu_text, LOSSES[AUDIO]: self.mu_speech, "l_c": self.mu_c}
        active = [name for modality, name in LOSSES.items() if self.has_labels(modality)]
        active += ["l_c"] if self.has_constraint else []
        return {name: weights[name] / self.mu_m for name in active}
