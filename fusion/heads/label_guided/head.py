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
from typing import cast

import torch
from torch import Tensor, nn

from fusion.head import Batch, Head, HeadOutput
from fusion.head_config import AUDIO, BOTH, TEXT, HeadInputs, TrainingRows
from fusion.heads.configs.label_guided import LABEL_WORD, LOSSES, RAW, LabelGuidedConfig
from fusion.heads.label_guided.attention import (
    LabelAttention,
    attention_gap,
    attention_row_gap,
    frame_weights,
    label_loss,
    without_ends,
)
from fusion.heads.label_guided.descriptions import class_vectors_from_codes, class_vectors_from_words, cosine_note
from fusion.heads.label_guided.embeddings import LabelEmbeddings, codebook_rows, tonal_embeddings
from fusion.heads.pooling import pooled_mask
from fusion.nn.dropout import Dropout, SpanMask
from fusion.nn.layers import Pool, input_projection, masked_mean


class LabelGuided(Head):
    """The fusion head of LE-MER; with one modality, its unimodal branch."""

    config_class, stackable = LabelGuidedConfig, True
    config: LabelGuidedConfig

    def __init__(self, config: LabelGuidedConfig, inputs: HeadInputs) -> None:
        super().__init__(config, inputs)
        self.fronts, self.labels = nn.ModuleDict(), nn.ModuleDict()
        self.project, self.pools = nn.ModuleDict(), nn.ModuleDict()
        kind, dims = "max" if config.modalities == BOTH else "mean", {}
        for role in config.branches:
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
            masks = {role: pooled_mask(batch, role, self.config.history_pool) for role in rows}
            pooled = torch.cat([self.pools[role](x, masks[role]) for role, x in rows.items()], dim=-1)
            return HeadOutput(self.classifier(self.dropout(pooled)), losses, pooled)
        both = (guides[TEXT], guides[AUDIO]) if len(guides) > 1 else None
        alignment = self.attention(rows[TEXT], rows[AUDIO], batch.masks[AUDIO], both)
        if self.training and self.config.loss_weights.get("l_c"):
            losses["l_c"] = self._constraint(alignment.guided, alignment.learned, batch)
        fused = self._fuse(rows, alignment.weights, batch)
        return HeadOutput(self.classifier(self.dropout(fused)), losses, fused)

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
            word_vectors, notes = class_vectors_from_words(rows, classes, selection, self.inputs.encode_texts)
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
        text_mask, audio_mask = pooled_mask(batch, TEXT, self.config.history_pool), batch.masks[AUDIO]
        has_speech, has_text = audio_mask.any(dim=1, keepdim=True), text_mask.any(dim=1, keepdim=True)
        aligned = self.pools[AUDIO](weights @ rows[AUDIO], text_mask & has_speech)
        speech = torch.where(has_speech & ~has_text, masked_mean(rows[AUDIO], audio_mask), aligned)
        return torch.cat([self.pools[TEXT](rows[TEXT], text_mask), speech], dim=-1)

    def _label_losses(self, guides: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        masks = {role: without_ends(mask) if role == TEXT else mask for role, mask in batch.masks.items()}
        return {
            LOSSES[role]: label_loss(guide, masks[role], batch.classes)
            for role, guide in guides.items()
            if self.config.loss_weights[LOSSES[role]]
        }

    def _constraint(self, guided: Tensor, learned: Tensor, batch: Batch) -> Tensor:
        guided = guided.detach() if self.config.detach_al else guided
        pairs = batch.masks[TEXT][:, :, None] & batch.masks[AUDIO][:, None]
        if self.config.al_norm == RAW:
            return attention_gap(guided, learned, pairs)
        return attention_row_gap(frame_weights(guided, batch.masks[AUDIO]), learned, pairs)
