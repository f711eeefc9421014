"""RoBERTa, BERT, DistilBERT and DeBERTa: contextual token vectors, token ids and their character spans.

With a history, the turns before an utterance stand before it in one text, parted by spaces; of a text that gets too
long the oldest turns are dropped, and the utterance itself stays whole.

Papers: RoBERTa (Liu et al., 2019, arXiv:1907.11692), BERT (Devlin et al., 2019, arXiv:1810.04805), DistilBERT (Sanh et
al., 2019, arXiv:1910.01108), DeBERTa v3 (He et al., 2023, arXiv:2111.09543).
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import BatchEncoding, PreTrainedTokenizerBase

from cache.errors import MmerError
from cache.rows import Rows
from cache.stream import StreamSpec
from featurize.encoders.base import InputPlan
from featurize.encoders.layers import LayerChoice, tapped
from featurize.inputs.transcript import Turn, spoken

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how SentencePiece writes it


class TextEncoder:
    """A frozen text encoder on one device.

    Args:
        model: Hugging Face's base model, in eval mode and float32.
        tokenizer: its fast tokenizer.
        spec: of the encoder; its name is the stream's, its layers are set per choice.
        choices: hidden states of each stream of token vectors.
        start_weights: what heads start from, by name.
        event_tags: ``strip`` or ``keep``.
        truncate: cut what is longer than the encoder takes instead of failing.
        history: how many turns before an utterance are read too.
        longest: most tokens of a text, special ones included; None for what the encoder takes.
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
        start_weights: Mapping[str, npt.NDArray[Any]],
        event_tags: str,
        truncate: bool,
        history: int = 0,
        longest: int | None = None,
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        self.model = model.to(device).eval()
        self.tokenizer = tokenizer
        self.start_weights = start_weights
        self.device = device
        self.event_tags, self._truncate = event_tags, truncate
        self.choices = choices
        self._wanted = {index for choice in choices for index in choice.indices}
        self._precision = precision
        self._models = {torch.float32: self.model}
        if precision != torch.float32:
            self._models[precision] = copy.deepcopy(self.model).to(precision)
        takes = max_tokens(model, tokenizer)
        self.max_tokens = min(takes, longest or takes)
        self._limit = "--max-tokens" if self.max_tokens < takes else "the encoder"
        special = tokenizer.num_special_tokens_to_add()
        if self.max_tokens <= special:
            raise MmerError(f"--max-tokens must leave room beside {special} special tokens, got {self.max_tokens}")
        self._history = history
        self.specs = self._specs(spec, int(model.config.hidden_size))  # type: ignore[union-attr, arg-type]

    def plan(self, sizes: Sequence[Turn]) -> list[InputPlan]:
        """Tokenizes transcripts: rows are tokens, special ones and those of the history included."""
        return [self._planned(turn) for turn in sizes]

    def encode(self, inputs: Sequence[Turn], *, precise: bool = False) -> list[tuple[Rows, ...]]:
        """Encodes transcripts: vectors ``(tokens, ...)`` per choice, then int32 ``(tokens, 3)`` id, start, end.

        The span ``[start, end)`` counts characters of the transcript as stored, event tags included; special tokens
        and those of the history have an empty one. The history is as planned: nothing of it is dropped here.
        """
        encoded = [self._tokens(turn) for turn in inputs]
        lengths = [len(tokens) for tokens in encoded]
        ids = torch.full((len(encoded), max(lengths)), int(self.tokenizer.pad_token_id or 0))
        for row, tokens in zip(ids, encoded, strict=True):
            row[: len(tokens)] = torch.from_numpy(tokens[:, 0])
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        outputs = self._vectors(ids, mask, torch.float32 if precise else self._precision)
        return [
            (*(output[index, :length] for output in outputs), encoded[index]) for index, length in enumerate(lengths)
        ]

    def words(self, turn: Turn) -> str:
        """Gives the text that is tokenized: what is spoken in the history and in the turn itself."""
        return " ".join(turn.words(self.event_tags))

    def _planned(self, turn: Turn) -> InputPlan:
        turns = len(turn.before)
        ids = self._ids(turn)
        while turns and len(ids) > self.max_tokens:
            turns -= 1
            ids = self._ids(turn.latest(turns))
        unknown = ids.count(self.tokenizer.unk_token_id)
        notes = [f"{unknown} tokens unknown to the vocabulary"] if unknown else []
        if len(ids) > self.max_tokens:
            if not self._truncate:
                return InputPlan(failure=f"{len(ids)} tokens, {self._limit} takes {self.max_tokens}; --truncate cuts")
            notes.append(f"truncated from {len(ids)} to {self.max_tokens} tokens")
        count = min(len(ids), self.max_tokens)
        return InputPlan(rows=(count,) * len(self.specs), cost=count, turns=turns, note="; ".join(notes))

    def _ids(self, turn: Turn) -> list[int]:
        ids: list[int] = self.tokenizer(self.words(turn), verbose=False)["input_ids"]
        return ids

    def _tokens(self, turn: Turn) -> npt.NDArray[np.int32]:
        text = self.words(turn)
        encoded = self.tokenizer(
            text, truncation=True, max_length=self.max_tokens, return_offsets_mapping=True, verbose=False
        )
        positions = spoken(turn.text, self.event_tags).positions
        history = len(text) - len(positions)  # characters of the turns before, which get no span
        rows = [
            (token, *_span(positions, start - history, end - history))
            for token, (start, end) in zip(encoded["input_ids"], _visible(text, encoded), strict=True)
        ]
        return np.array(rows, dtype=np.int32)

    def _vectors(self, ids: Tensor, mask: Tensor, precision: torch.dtype) -> list[Rows]:
        model: Any = self._models[precision]
        with torch.inference_mode(), tapped(layers_of(model), self._wanted) as hidden:
            last = model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device)).last_hidden_state
            return [choice.select(hidden, last).float().cpu().numpy() for choice in self.choices]

    def _specs(self, spec: StreamSpec, dim: int) -> list[StreamSpec]:
        variant = f"+history{self._history}" if self._history else ""
        vectors = [
            replace(
                spec,
                name=f"{spec.name}@{choice.text}{variant}" if choice.indices else f"{spec.name}{variant}",
                layers=choice.text,
                shape=choice.row_shape(dim),
            )
            for choice in self.choices
        ]
        tokens = replace(spec, name=f"{spec.name}{variant}.tokens", role="tokens", layers="tokenizer", shape=(3,))
        return [*vectors, replace(tokens, dtype="int32", weights="", precision="float32")]


def max_tokens(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> int:
    """Gives how many tokens a model takes, special ones included."""
    config: Any = model.config
    # RoBERTa counts positions from the padding index on
    first = config.pad_token_id + 1 if config.model_type == "roberta" else 0
    return int(min(tokenizer.model_max_length, config.max_position_embeddings - first))


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Digests everything that decides how a text becomes tokens."""
    return blake2b(tokenizer.backend_tokenizer.to_str().encode(), digest_size=16).hexdigest()


def layers_of(model: nn.Module) -> nn.ModuleList:
    """Gives the layers of a text model."""
    stack: Any = getattr(model, "encoder", None) or model.transformer
    layers: nn.ModuleList = stack.layer
    return layers


def _visible(text: str, encoded: BatchEncoding) -> Iterator[tuple[int, int]]:
    """Gives the span of each token in a text, without the space before a word, which SentencePiece counts to it."""
    for piece, (start, end) in zip(encoded.tokens(), encoded["offset_mapping"], strict=True):
        seen = "" if piece == SPACE else text[start:end].lstrip()
        yield end - len(seen), end


def _span(positions: npt.NDArray[np.int32], start: int, end: int) -> tuple[int, int]:
    """Gives the span in the transcript as stored of a span of what is spoken; empty where it holds none of it."""
    start = max(start, 0)  # a token may begin with the space before it
    return (int(positions[start]), int(positions[end - 1]) + 1) if end > start else (0, 0)
