"""LE-MER: multimodal fusion in which label embeddings guide the alignment of speech to text.

Paper: Wang et al., Interspeech 2023, arXiv:2309.02106, sections 2.1 to 2.3 and 3.2 to 3.4; no code was published.

Deviations and decisions (docs/decisions.md#le-mer):

- L-1: the conformer of the paper is in-house; any encoder with a quantizer replaces it, without second pre-training,
  and `span_mask` replaces SpecAugment. Features are frozen and pass the shared adapter (C-1), where all gradients of
  the label embeddings end.
- L-2: label embeddings are parameters; `LabelGuided.prepare` sets what the paper calls their initialization.
- L-3, L-4: words and codes that describe a class are selected in `fusion.heads.label_guided.descriptions`.
- L-5: frames and labels of speech are compared in the space of the quantizer's contrastive pre-training (`project_hid`,
  frozen by default; labels start as `project_q` of mean codevectors). ``tonal_space="lift"`` maps the labels to the
  width of the frames instead, starting at the pseudo-inverse of `project_hid`.
- L-6: no temperature.
- L-7: the mean over tokens excludes the first and the last valid token, which are special tokens in BERT and its
  relatives, before the history and after the utterance; tokens of the history count.
- L-8: the attention is ``softmax(H_t W^T H_s^T)`` over frames; the printed shapes do not multiply.
- L-9: the constraint is literal, a mean over all pairs of a batch; ``al_norm="softmax"`` and `detach_al` are variants.
- L-10: used as weights (C2, C3), the label attention passes a softmax over frames; only C1 has the constraint.
- L-11: a single modality has a masked mean, a linear layer and its label loss.
- Eq. 12: the trainer gives the cross entropy the weight 1, so the other weights are divided by `mu_m`.
- C-3: absent speech is not aligned; without text, the vector of speech is the mean of its frames, as under uniform
  attention.
- Dropout is not printed; it stands in the adapters and before the classifier.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from fusion.head import AUDIO, BOTH, TEXT, Batch, Head, HeadConfig, HeadInputs, HeadOutput, TrainingRows
from fusion.heads.label_guided.attention import (
    CONSTRAINTS,
    LabelAttention,
    attention_gap,
    attention_row_gap,
    frame_weights,
    label_loss,
    without_ends,
)
from fusion.heads.label_guided.descriptions import (
    ItemSelection,
    class_vectors_from_codes,
    class_vectors_from_words,
    cosine_note,
)
from fusion.heads.label_guided.embeddings import (
    CODEBOOK,
    CONTRASTIVE,
    FROM_TEXT,
    OFF,
    RANDOM,
    TONAL_LABELS,
    TONAL_SPACES,
    LabelEmbeddings,
    codebook_rows,
    tonal_embeddings,
)
from fusion.nn.dropout import Dropout, SpanMask
from fusion.nn.layers import Pool, input_projection, masked_mean

LABEL_WORD, TFIDF, RAW, SOFTMAX = "label-word", "tfidf", "raw", "softmax"
CHOICES: Mapping[str, tuple[str, ...]] = {
    "text_labels": (OFF, RANDOM, LABEL_WORD, TFIDF),
    "tonal_labels": TONAL_LABELS,
    "tonal_space": TONAL_SPACES,
    "constraint": CONSTRAINTS,
    "al_norm": (RAW, SOFTMAX),
}
WEIGHTS = ("mu_m", "mu_c", "mu_text", "mu_speech")
# Only `prepare` reads these
START_FIELDS = ("text_labels", "tonal_labels", "words", "frames", "idf", "contrast", "min_count")
LOSSES = {TEXT: "l_g_text", AUDIO: "l_g_speech"}


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
    def uses_codes(self) -> bool:
        """True if the labels of speech start from codes."""
        return self.has_labels(AUDIO) and self.tonal_labels == CODEBOOK

    @property
    def prepare_roles(self) -> tuple[str, ...]:
        """Text and spans of tokens if labels start from words, and codes if they start from codes."""
        words = (TEXT, "tokens") if self.word_modalities else ()
        return (*(role for role in words if role not in self.roles), *(("codes",) if self.uses_codes else ()))

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """Weights of the constraint and of the label losses, relative to `mu_m`."""
        weights = {LOSSES[TEXT]: self.mu_text, LOSSES[AUDIO]: self.mu_speech, "l_c": self.mu_c}
        active = [name for modality, name in LOSSES.items() if self.has_labels(modality)]
        active += ["l_c"] if self.has_constraint else []
        return {name: weights[name] / self.mu_m for name in active}


class LabelGuided(Head):
    """The fusion head of LE-MER; with one modality, its unimodal branch."""

    config_class, stackable = LabelGuidedConfig, True
    config: LabelGuidedConfig

    def __init__(self, config: LabelGuidedConfig, inputs: HeadInputs) -> None:
        super().__init__(config, inputs)
        self.fronts, self.labels = nn.ModuleDict(), nn.ModuleDict()
        self.project, self.pools = nn.ModuleDict(), nn.ModuleDict()
        kind, dims = "max" if config.modalities == BOTH else "mean", {}
        for role in config.roles:
            width = inputs.shapes[role][-1]
            dims[role] = config.dim or width
            self.fronts[role] = input_projection(config, inputs, role, dim=width)
            self.project[role] = nn.Linear(width, dims[role]) if width != dims[role] else nn.Identity()
            self.pools[role] = Pool(dims[role], kind=kind, learned=config.modality_dropout > 0)
        if config.has_labels(TEXT):
            self.labels[TEXT] = LabelEmbeddings(len(inputs.classes), inputs.shapes[TEXT][-1])
        if config.has_labels(AUDIO):
            self.labels[AUDIO] = tonal_embeddings(
                inputs, source=config.tonal_labels, space=config.tonal_space, trained=config.train_projection
            )
        if config.modalities == BOTH:
            self.attention = LabelAttention(speech_dim=dims[AUDIO], text_dim=dims[TEXT], constraint=config.constraint)
        self.spans = SpanMask(config.span_mask) if config.span_mask else nn.Identity()
        self.dropout = Dropout(config.dropout)
        self.classifier = nn.Linear(sum(dims.values()), len(inputs.classes))

    def forward(self, batch: Batch) -> HeadOutput:
        """Computes logits ``(batch, classes)``, and in training the constraint and the label losses."""
        features = {role: self.spans(x) if role == AUDIO else x for role, x in batch.features.items()}
        adapted = {role: front(features[role]) for role, front in self.fronts.items()}
        guides = {role: labels(adapted[role]) for role, labels in self.labels.items()}
        losses = self._label_losses(guides, batch) if self.training else {}
        rows = {role: self.project[role](x) for role, x in adapted.items()}
        if self.config.modalities != BOTH:
            pooled = torch.cat([self.pools[role](x, batch.masks[role]) for role, x in rows.items()], dim=-1)
            return HeadOutput(self.classifier(self.dropout(pooled)), losses)
        both = (guides[TEXT], guides[AUDIO]) if len(guides) > 1 else None
        alignment = self.attention(rows[TEXT], rows[AUDIO], batch.masks[AUDIO], both)
        if self.training and self.config.loss_weights.get("l_c"):
            losses["l_c"] = self._constraint(alignment.guided, alignment.learned, batch)
        return HeadOutput(self.classifier(self.dropout(self._fuse(rows, alignment.weights, batch))), losses)

    def prepare(self, rows: TrainingRows) -> list[str]:
        """Initializes the labels from words and codes of the training rows.

        Returns:
            Notes on these words and codes, and on the two classes whose labels are closest.

        Raises:
            MmerError: if no word or no code can describe a class.
        """
        config, classes = self.config, self.inputs.classes
        labels = cast(Mapping[str, LabelEmbeddings], self.labels)
        notes: list[str] = []
        if config.word_modalities:
            selection = None if config.text_labels == LABEL_WORD else config.item_selection(config.words)
            word_vectors, notes = class_vectors_from_words(rows, classes, selection)
            for role in config.word_modalities:
                labels[role].initialize(word_vectors)
        if config.uses_codes:
            weights, selection = self.inputs.weights[AUDIO], config.item_selection(config.frames)
            vectors, code_notes = class_vectors_from_codes(rows, classes, selection, weights["codevectors"])
            notes += code_notes
            labels[AUDIO].initialize(codebook_rows(vectors, weights, config.tonal_space))
        for role in labels:
            started = labels[role].vectors().detach().double().cpu().numpy()
            notes.append(cosine_note(started, classes, f"labels of {role}"))
        return [note for note in notes if note]

    def _fuse(self, rows: Mapping[str, Tensor], weights: Tensor, batch: Batch) -> Tensor:
        """Pools tokens and the speech aligned to them by dimension (eq. 11), ``(batch, text dim + speech dim)``."""
        text_mask, audio_mask = batch.masks[TEXT], batch.masks[AUDIO]
        has_speech, has_text = audio_mask.any(dim=1, keepdim=True), text_mask.any(dim=1, keepdim=True)
        aligned = self.pools[AUDIO](weights @ rows[AUDIO], text_mask & has_speech)
        speech = torch.where(has_speech & ~has_text, masked_mean(rows[AUDIO], audio_mask), aligned)
        return torch.cat([self.pools[TEXT](rows[TEXT], text_mask), speech], dim=-1)

    def _label_losses(self, guides: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        masks = {role: without_ends(mask) if role == TEXT else mask for role, mask in batch.masks.items()}
        return {
            LOSSES[role]: label_loss(guide, masks[role], batch.labels)
            for role, guide in guides.items()
            if self.config.loss_weights[LOSSES[role]]
        }

    def _constraint(self, guided: Tensor, learned: Tensor, batch: Batch) -> Tensor:
        guided = guided.detach() if self.config.detach_al else guided
        pairs = batch.masks[TEXT][:, :, None] & batch.masks[AUDIO][:, None]
        if self.config.al_norm == RAW:
            return attention_gap(guided, learned, pairs)
        return attention_row_gap(frame_weights(guided, batch.masks[AUDIO]), learned, pairs)
