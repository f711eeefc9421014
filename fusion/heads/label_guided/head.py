"""LE-MER: label embeddings guide how speech is aligned to text (Wang et al., Interspeech 2023, arXiv:2309.02106).

Sections 2.2 to 2.4 and 3.2 to 3.4; no code was published. Deviations and readings:
- L-1: the conformer was in-house; any encoder with a quantizer stands for it, without second pre-training; `span_mask`
  stands for SpecAugment. Features are frozen, behind the shared adapter (C-1), where all gradients of the labels end.
- L-2: label embeddings are parameters; what the paper calls initialization is what `LabelGuided.prepare` sets.
- L-3, L-4: see `fusion.heads.label_guided.descriptions`, for rare words and stop words too.
- L-5: frames and tonal labels meet in the space of the quantizer's contrastive pre-training (`project_hid`, frozen by
  default; labels start as `project_q` of mean codevectors). ``tonal_space="lift"`` takes labels to the frames instead,
  starting at the pseudo-inverse of `project_hid`.
- L-6: no temperature. L-7: the mean over tokens leaves out the first and the last valid one, where BERT and relatives
  put special tokens, before the history and after the turn; tokens of the history count.
- L-8: the attention is ``softmax(H_t W^T H_s^T)`` over frames; the printed shapes do not multiply.
- L-9: the constraint is literal, a mean over all pairs of a batch; ``al_norm="softmax"`` and `detach_al` are variants.
- L-10: as weights, C2 and C3, the label attention passes a softmax over frames; only C1 has the constraint.
- L-11: one modality: masked mean, linear, and its label loss.
- Eq. 12: training takes the cross entropy with weight 1, so the other weights are divided by `mu_m`.
- C-3: speech that is absent is aligned to nothing; with no text, speech is heard as by a token that asks for nothing,
  by the mean of its frames. Dropout is not printed: in the adapters and before the classifier.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

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
from fusion.heads.label_guided.descriptions import Choice, code_rows, cosine_note, word_rows
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
STARTS = ("text_labels", "tonal_labels", "words", "frames", "idf", "contrast", "min_count")  # read by `prepare` alone
LOSSES = {TEXT: "l_g_text", AUDIO: "l_g_speech"}


@dataclass(frozen=True, kw_only=True)
class LabelGuidedConfig(HeadConfig):
    """Configures LE-MER; `dim`, if set, is the width that both modalities are projected to before they are aligned.

    Attributes:
        text_labels: how semantic labels start: ``random``, ``label-word``, ``tfidf``; ``off`` for none.
        tonal_labels: how tonal labels start: ``random``, ``text`` (the semantic description), ``codebook``; or ``off``.
        words, frames: words and joint codes that describe a class.
        idf: what TF-IDF takes for a document, ``utterance`` or ``class``.
        contrast: whether TF-IDF subtracts the mean score of the other classes.
        min_count: training utterances that a word or code must occur in, where there are enough such.
        constraint: ``C1`` pulls attention to the labels', ``C2`` takes the mean of both, ``C3`` the labels', ``C4`` its
            own. Without labels on either side C1 has nothing to pull to.
        al_norm: ``raw`` or ``softmax``, how C1 sees the labels' attention.
        detach_al: whether C1 leaves the labels' attention alone.
        tonal_space: where frames and labels are compared, ``contrastive`` or ``lift``.
        train_projection: whether `project_hid` is trained too.
        span_mask: share of the frames that training hides, in spans.
        mu_m: weight of the cross entropy; only its ratio to the others matters.
        mu_c, mu_text, mu_speech: weights of the constraint, of the semantic and of the tonal label loss.
    """

    per_model: ClassVar[frozenset[str]] = HeadConfig.per_model.union(WEIGHTS, STARTS)
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
            raise ValueError("label embeddings lie among the features as encoders give them: standardize must be false")
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
        self.choice(self.words)
        self.choice(self.frames)

    def choice(self, most: int) -> Choice:
        """Tells how words or frames are chosen."""
        return Choice(most=most, idf=self.idf, contrast=self.contrast, min_count=self.min_count)

    def labelled(self, modality: str) -> bool:
        """Tells whether a modality takes part and has labels."""
        return self.reads(modality) and (self.text_labels if modality == TEXT else self.tonal_labels) != OFF

    @property
    def constrained(self) -> bool:
        """Whether attention is pulled to that of the labels."""
        return self.constraint == "C1" and self.labelled(TEXT) and self.labelled(AUDIO)

    @property
    def by_words(self) -> tuple[str, ...]:
        """The modalities whose labels start from words."""
        started = {TEXT: self.text_labels != RANDOM, AUDIO: self.tonal_labels == FROM_TEXT}
        return tuple(modality for modality in (AUDIO, TEXT) if started[modality] and self.labelled(modality))

    @property
    def by_codes(self) -> bool:
        """Whether tonal labels start from codes."""
        return self.labelled(AUDIO) and self.tonal_labels == CODEBOOK

    @property
    def prepare_roles(self) -> tuple[str, ...]:
        """Words need the spans of tokens, tonal labels need codes."""
        words = (TEXT, "tokens") if self.by_words else ()
        return (*(role for role in words if role not in self.roles), *(("codes",) if self.by_codes else ()))

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The constraint's and those of the label losses."""
        weights = {LOSSES[TEXT]: self.mu_text, LOSSES[AUDIO]: self.mu_speech, "l_c": self.mu_c}
        active = [name for modality, name in LOSSES.items() if self.labelled(modality)]
        active += ["l_c"] if self.constrained else []
        return {name: weights[name] / self.mu_m for name in active}


class LabelGuided(Head):
    """LE-MER; with one modality its unimodal branch."""

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
        if config.labelled(TEXT):
            self.labels[TEXT] = LabelEmbeddings(len(inputs.classes), inputs.shapes[TEXT][-1])
        if config.labelled(AUDIO):
            self.labels[AUDIO] = tonal_embeddings(
                inputs, source=config.tonal_labels, space=config.tonal_space, trained=config.train_projection
            )
        if config.modalities == BOTH:
            self.attention = LabelAttention(speech_dim=dims[AUDIO], text_dim=dims[TEXT], constraint=config.constraint)
        self.spans = SpanMask(config.span_mask) if config.span_mask else nn.Identity()
        self.dropout = Dropout(config.dropout)
        self.classifier = nn.Linear(sum(dims.values()), len(inputs.classes))

    def forward(self, batch: Batch) -> HeadOutput:
        """Gives logits, and in training the constraint and the label losses."""
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
        return HeadOutput(self.classifier(self.dropout(self._fused(rows, alignment.weights, batch))), losses)

    def prepare(self, rows: TrainingRows) -> list[str]:
        """Starts the labels from words and codes of the training rows; tells which, and how little they differ.

        Raises:
            MmerError: if nothing can describe a class.
        """
        config, classes, labels = self.config, self.inputs.classes, cast(Any, self.labels)
        notes: list[str] = []
        if config.by_words:
            choice = None if config.text_labels == LABEL_WORD else config.choice(config.words)
            found, notes = word_rows(rows, classes, choice)
            for role in config.by_words:
                labels[role].start(found)
        if config.by_codes:
            weights = self.inputs.weights[AUDIO]
            vectors, told = code_rows(rows, classes, config.choice(config.frames), weights["codevectors"])
            notes += told
            labels[AUDIO].start(codebook_rows(vectors, weights, config.tonal_space))
        for role in labels:
            started = labels[role].vectors().detach().double().cpu().numpy()
            notes.append(cosine_note(started, classes, f"labels of {role}"))
        return [note for note in notes if note]

    def _fused(self, rows: Mapping[str, Tensor], weights: Tensor, batch: Batch) -> Tensor:
        """Pools tokens and the speech aligned to them, ``(batch, dims)``: eq. 11, whose pool is by dimension."""
        text_mask, audio_mask = batch.masks[TEXT], batch.masks[AUDIO]
        heard, read = audio_mask.any(dim=1, keepdim=True), text_mask.any(dim=1, keepdim=True)
        aligned = self.pools[AUDIO](weights @ rows[AUDIO], text_mask & heard)
        speech = torch.where(heard & ~read, masked_mean(rows[AUDIO], audio_mask), aligned)
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
