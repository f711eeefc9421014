"""RoBERTa, BERT and DistilBERT: contextual token vectors, token ids and their character spans.

Papers: RoBERTa (Liu et al., 2019, arXiv:1907.11692), BERT (Devlin et al., 2019, arXiv:1810.04805), DistilBERT (Sanh et
al., 2019, arXiv:1910.01108).
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from cache.rows import Rows
from cache.stream import StreamSpec
from featurize.encoders.base import Planned
from featurize.encoders.layers import LayerChoice, tapped
from featurize.transcript import spoken


class TextEncoder:
    """A frozen text encoder on one device.

    Args:
        model: Hugging Face's base model, in eval mode and float32.
        tokenizer: its fast tokenizer.
        spec: of the encoder; its name is the stream's, its layers are set per choice.
        choices: hidden states of each stream of token vectors.
        event_tags: ``strip`` or ``keep``.
        truncate: cut what is longer than the encoder takes instead of failing.
        device: where to run.
        precision: type the model computes in.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        spec: StreamSpec,
        choices: Sequence[LayerChoice],
        event_tags: str,
        truncate: bool,
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        self.model = model.to(device).eval()
        self.tokenizer = tokenizer
        self.start_weights: Mapping[str, npt.NDArray[Any]] = {}
        self.device = device
        self.event_tags, self._truncate = event_tags, truncate
        self.choices = choices
        self._wanted = {index for choice in choices for index in choice.indices}
        self._precision = precision
        self._models = {torch.float32: self.model}
        if precision != torch.float32:
            self._models[precision] = copy.deepcopy(self.model).to(precision)
        self.max_tokens = max_tokens(model, tokenizer)
        self.specs = self._specs(spec, int(model.config.hidden_size))  # type: ignore[union-attr, arg-type]

    def plan(self, sizes: Sequence[str]) -> list[Planned]:
        """Tokenizes transcripts: rows are tokens, special ones included."""
        return [self._planned(text) for text in sizes]

    def encode(self, inputs: Sequence[str], *, precise: bool = False) -> list[tuple[Rows, ...]]:
        """Encodes transcripts: vectors ``(tokens, ...)`` per choice, then int32 ``(tokens, 3)`` id, start, end.

        The span ``[start, end)`` counts characters of the transcript as stored, event tags included; special tokens
        have an empty one.
        """
        encoded = [self._tokens(text) for text in inputs]
        lengths = [len(tokens) for tokens in encoded]
        ids = torch.full((len(encoded), max(lengths)), int(self.tokenizer.pad_token_id or 0))
        for row, tokens in zip(ids, encoded, strict=True):
            row[: len(tokens)] = torch.from_numpy(tokens[:, 0])
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        outputs = self._vectors(ids, mask, torch.float32 if precise else self._precision)
        return [
            (*(output[index, :length] for output in outputs), encoded[index]) for index, length in enumerate(lengths)
        ]

    def _planned(self, text: str) -> Planned:
        words = spoken(text, self.event_tags).text
        ids = self.tokenizer(words, verbose=False)["input_ids"]
        unknown = ids.count(self.tokenizer.unk_token_id)
        notes = [f"{unknown} tokens unknown to the vocabulary"] if unknown else []
        if len(ids) > self.max_tokens:
            if not self._truncate:
                return Planned(failure=f"{len(ids)} tokens, the encoder takes {self.max_tokens}; --truncate cuts")
            notes.append(f"truncated from {len(ids)} to {self.max_tokens} tokens")
        count = min(len(ids), self.max_tokens)
        return Planned(rows=(count,) * len(self.specs), cost=count, note="; ".join(notes))

    def _tokens(self, text: str) -> npt.NDArray[np.int32]:
        words = spoken(text, self.event_tags)
        encoded = self.tokenizer(
            words.text, truncation=True, max_length=self.max_tokens, return_offsets_mapping=True, verbose=False
        )
        rows = [
            (token, int(words.positions[start]), int(words.positions[end - 1]) + 1) if end > start else (token, 0, 0)
            for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ]
        return np.array(rows, dtype=np.int32)

    def _vectors(self, ids: Tensor, mask: Tensor, precision: torch.dtype) -> list[Rows]:
        model: Any = self._models[precision]
        with torch.inference_mode(), tapped(_layers(model), self._wanted) as hidden:
            last = model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device)).last_hidden_state
            return [choice.select(hidden, last).float().cpu().numpy() for choice in self.choices]

    def _specs(self, spec: StreamSpec, dim: int) -> list[StreamSpec]:
        vectors = [
            replace(
                spec,
                name=f"{spec.name}@{choice.text}" if choice.indices else spec.name,
                layers=choice.text,
                shape=choice.row_shape(dim),
            )
            for choice in self.choices
        ]
        tokens = replace(spec, name=f"{spec.name}.tokens", role="tokens", layers="tokenizer", shape=(3,), dtype="int32")
        return [*vectors, replace(tokens, weights="", precision="float32")]


def max_tokens(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> int:
    """Gives how many tokens a model takes, special ones included."""
    config: Any = model.config
    # RoBERTa counts positions from the padding index on
    first = config.pad_token_id + 1 if config.model_type == "roberta" else 0
    return int(min(tokenizer.model_max_length, config.max_position_embeddings - first))


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Digests everything that decides how a text becomes tokens."""
    return blake2b(tokenizer.backend_tokenizer.to_str().encode(), digest_size=16).hexdigest()


def count_layers(model: nn.Module) -> int:
    """Gives how many layers a text model has."""
    return len(_layers(model))


def _layers(model: nn.Module) -> nn.ModuleList:
    stack: Any = getattr(model, "encoder", None) or model.transformer
    layers: nn.ModuleList = stack.layer
    return layers
