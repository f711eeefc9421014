"""RoBERTa, BERT, DistilBERT and DeBERTa: contextual token vectors, token ids and their character spans.

With a history, the preceding turns are joined to an utterance in one text, separated by spaces. If the text is too
long, its oldest turns are dropped; the utterance itself stays complete.

Papers: RoBERTa (Liu et al., 2019, arXiv:1907.11692), BERT (Devlin et al., 2019, arXiv:1810.04805), DistilBERT (Sanh et
al., 2019, arXiv:1910.01108), DeBERTa v3 (He et al., 2023, arXiv:2111.09543).
"""

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
from cache.transcripts import VARIANT, AsrReading
from featurize.encoders.base import InputPlan
from featurize.encoders.layers import LayerChoice, captured_states
from featurize.encoders.options import in_precisions
from featurize.inputs.transcript import Turn, spoken

SENTENCEPIECE_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how SentencePiece writes a space


class TextEncoder:
    """A frozen text encoder on one device.

    Args:
        model: Hugging Face's base model, in eval mode and float32.
        tokenizer: its fast tokenizer.
        spec: spec that all streams share; name, layers and shape are set for each choice.
        choices: hidden states of each stream of token vectors.
        start_weights: pre-trained weights that heads start from, by name.
        event_tags: ``strip`` or ``keep``.
        truncate: cut texts that are too long instead of failing.
        history: number of preceding turns that are read with an utterance.
        max_tokens: maximum number of tokens of a text, special ones included; None for the encoder's limit.
        device: device on which the encoder runs.
        precision: type in which the model computes.
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
        max_tokens: int | None = None,
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
        self._models = in_precisions(self.model, precision)
        model_limit = max_model_tokens(model, tokenizer)
        self.max_tokens = min(model_limit, max_tokens or model_limit)
        self._limit_text = "--max-tokens" if self.max_tokens < model_limit else "the encoder"
        special = tokenizer.num_special_tokens_to_add()
        if self.max_tokens <= special:
            raise MmerError(f"--max-tokens must exceed the number of special tokens, {special}; got {self.max_tokens}")
        self._history = history
        self.specs = self._specs(spec, int(model.config.hidden_size))  # type: ignore[union-attr, arg-type]

    def plan(self, sizes: Sequence[Turn]) -> list[InputPlan]:
        """Counts the tokens of each transcript, special ones and those of the history included."""
        return [self._plan_turn(turn) for turn in sizes]

    def encode(self, inputs: Sequence[Turn], *, precise: bool = False) -> list[tuple[Rows, ...]]:
        """Encodes transcripts: vectors ``(tokens, ...)`` per choice, then int32 ``(tokens, 3)`` id, start, end.

        The span ``[start, end)`` counts characters of the stored transcript, event tags included; special tokens and
        those of the history have an empty span. The history must be the planned one: no turn is dropped here.
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
        """Returns the text to tokenize: the spoken words of the history and of the turn itself."""
        return " ".join(turn.words(self.event_tags))

    def _plan_turn(self, turn: Turn) -> InputPlan:
        turns = len(turn.before)
        ids = self._ids(turn)
        while turns and len(ids) > self.max_tokens:
            turns -= 1
            ids = self._ids(turn.latest(turns))
        unknown = ids.count(self.tokenizer.unk_token_id)
        notes = [f"{unknown} tokens unknown to the vocabulary"] if unknown else []
        if len(ids) > self.max_tokens:
            if not self._truncate:
                reason = f"{len(ids)} tokens, {self._limit_text} allows {self.max_tokens}; pass --truncate to cut"
                return InputPlan(failure=reason)
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
        history = len(text) - len(positions)  # characters of the preceding turns, which get no span
        rows = [
            (token, *_span(positions, start - history, end - history))
            for token, (start, end) in zip(encoded["input_ids"], visible_spans(text, encoded), strict=True)
        ]
        return np.array(rows, dtype=np.int32)

    def _vectors(self, ids: Tensor, mask: Tensor, precision: torch.dtype) -> list[Rows]:
        model: Any = self._models[precision]
        with torch.inference_mode(), captured_states(text_layers(model), self._wanted) as hidden:
            last = model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device)).last_hidden_state
            return [choice.select(hidden, last).float().cpu().numpy() for choice in self.choices]

    def _specs(self, spec: StreamSpec, dim: int) -> list[StreamSpec]:
        variant = VARIANT if AsrReading.of(spec) else ""
        variant += f"+history{self._history}" if self._history else ""
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


def max_model_tokens(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> int:
    """Returns the maximum number of tokens of a model's text, special ones included."""
    config: Any = model.config
    positions = getattr(config, "max_position_embeddings", None)
    if not positions or positions < 0:  # relative positions have no limit
        return int(tokenizer.model_max_length)
    table = next((module for name, module in model.named_modules() if name.endswith("position_embeddings")), None)
    padding = getattr(table, "padding_idx", None)
    first = 0 if padding is None else int(padding) + 1  # as in RoBERTa and MPNet, whose positions start after it
    return int(min(tokenizer.model_max_length, positions - first))


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Computes a digest of everything that determines the tokens of a text."""
    return blake2b(tokenizer.backend_tokenizer.to_str().encode(), digest_size=16).hexdigest()


def text_layers(model: nn.Module) -> nn.ModuleList:
    """Returns the Transformer layers of a text model."""
    stack: Any = getattr(model, "encoder", None) or model.transformer
    layers: nn.ModuleList = stack.layer
    return layers


def visible_spans(text: str, encoded: BatchEncoding) -> Iterator[tuple[int, int]]:
    """Yields the span of each token in a text, without the preceding space, which SentencePiece includes."""
    for piece, (start, end) in zip(encoded.tokens(), encoded["offset_mapping"], strict=True):
        seen = "" if piece == SENTENCEPIECE_SPACE else text[start:end].lstrip()
        yield end - len(seen), end


def _span(positions: npt.NDArray[np.int32], start: int, end: int) -> tuple[int, int]:
    """Maps a span of the spoken words to the stored transcript; ``(0, 0)`` if it lies outside of them."""
    start = max(start, 0)  # a token may begin with the space that separates it from the history
    return (int(positions[start]), int(positions[end - 1]) + 1) if end > start else (0, 0)
