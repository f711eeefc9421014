"""CBCA: views of texts in which a masked language model replaces one random word.

The model is the one that the text encoder was pre-trained as. It reads the words of the utterance with one whole word
masked, and its best words for the gap give as many new texts; the word itself, pieces of words and punctuation do not
count. Paper: bi-modal bi-task (2024, doi:10.1080/08839514.2024.2356992), which prints neither the number of texts nor
the model (docs/decisions.md#b-6). The variant that is conditioned on labels (Wu et al., 2019, arXiv:1812.06705) would
need a model for each fold.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from cache.errors import MmerError
from cache.rows import Rows
from cache.stream import NO_VIEW, VIEW, Scalar, StreamSpec
from featurize.encoders.base import InputPlan
from featurize.encoders.text import TextEncoder, visible_spans
from featurize.inputs.transcript import EVENT_TAG, Turn, spoken
from featurize.views.catalog import CBCA

SEED = 0
WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
NEIGHBOR = "a"  # a word before a token that must be a word of its own


@dataclass(frozen=True, kw_only=True)
class MaskableWord:
    """A word of a text that a single token can replace.

    Attributes:
        start: first character in the text.
        end: character after the last one.
        first: first token of the text that belongs to the word.
        last: token after the last one of the word.
    """

    start: int
    end: int
    first: int
    last: int


class WordFiller:
    """A masked language model that fills the gap of one word.

    Args:
        model: Hugging Face's masked language model, in eval mode and float32.
        tokenizer: its fast tokenizer.
        max_tokens: maximum number of tokens that the model reads.
        device: device on which the model runs.
    """

    def __init__(
        self, model: nn.Module, tokenizer: PreTrainedTokenizerBase, *, max_tokens: int, device: torch.device
    ) -> None:
        self.model = model.to(device).eval()
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.device = device

    def words(self, text: str) -> list[MaskableWord]:
        """Returns the words of a text that can be masked: whole, after a space, and not in an event tag."""
        encoded = self.tokenizer(
            text, truncation=True, max_length=self.max_tokens, return_offsets_mapping=True, verbose=False
        )
        ids, spans, special = encoded["input_ids"], list(visible_spans(text, encoded)), self.tokenizer.all_special_ids
        tags = [match.span() for match in EVENT_TAG.finditer(text)]
        found = []
        for match in WORD.finditer(text):
            start, end = match.span()
            spaced = not start or text[start - 1].isspace()
            if not spaced or not _has_letter(match[0]) or any(start < b and end > a for a, b in tags):
                continue
            tokens = [index for index, (a, b) in enumerate(spans) if max(a, start) < min(b, end)]
            if tokens and spans[tokens[0]][0] == start and spans[tokens[-1]][1] == end:
                first = tokens[0]
                while spans[first - 1][0] == spans[first - 1][1] and ids[first - 1] not in special:
                    first -= 1  # a token of the space alone, before a word in pieces
                found.append(MaskableWord(start=start, end=end, first=first, last=tokens[-1] + 1))
        return found

    def fill(self, text: str, word: MaskableWord, count: int) -> list[str]:
        """Returns the text with the word replaced by the best other words, best first.

        Args:
            text: words of an utterance.
            word: one of `words`.
            count: number of texts to return; fewer if the vocabulary has no more words that fit.
        """
        scores = self._scores(self._ids(text), word)
        return self._filled(text, word, count, scores.argsort(descending=True, stable=True).tolist())

    def stand_in(self, text: str, word: MaskableWord, count: int) -> str:
        """Returns the text with any other word in the gap, as long in tokens as each text of `fill`.

        The result is empty if fewer than `count` words fit. The model is not needed.
        """
        texts = self._filled(text, word, count, self.vocabulary)
        return texts[0] if len(texts) == count else ""

    @cached_property
    def vocabulary(self) -> Mapping[int, str]:
        """Tokens that are whole words, with the words."""
        special = set(self.tokenizer.all_special_ids)
        tokens = [token for token in range(len(self.tokenizer)) if token not in special]
        texts = [str(self.tokenizer.decode([token])).strip() for token in tokens]
        spelled = {token: text for token, text in zip(tokens, texts, strict=True) if WORD.fullmatch(text)}
        neighbor = self._plain_ids([NEIGHBOR])[0]
        alone = self._plain_ids([f"{NEIGHBOR} {text}" for text in spelled.values()])
        whole = [len(ids) == len(neighbor) + 1 and ids[:-1] == neighbor for ids in alone]
        return {
            token: text
            for (token, text), kept in zip(spelled.items(), whole, strict=True)
            if kept and _has_letter(text)
        }

    def _scores(self, ids: Sequence[int], word: MaskableWord) -> Tensor:
        """Computes the score of each token for the gap, ``(tokens,)``; alone, since a batch would change low bits."""
        masked = [*ids[: word.first], int(self.tokenizer.mask_token_id), *ids[word.last :]]
        special = self.tokenizer.num_special_tokens_to_add()
        if len(masked) > self.max_tokens:  # the end of the text is cut, the special tokens after it stay
            masked = [*masked[: self.max_tokens - special + 1], *ids[len(ids) - special + 1 :]]
        batch = torch.tensor([masked], device=self.device)
        with torch.inference_mode():
            model: Any = self.model
            logits: Tensor = model(input_ids=batch, attention_mask=torch.ones_like(batch)).logits
        return logits[0, word.first].float().cpu()

    def _filled(self, text: str, word: MaskableWord, count: int, tokens: Iterable[int]) -> list[str]:
        """Returns up to `count` texts with different words of these tokens, the original word left out."""
        ids, texts = self._ids(text), list[str]()
        taken = {text[word.start : word.end].casefold()}
        for token in tokens:
            candidate = self.vocabulary.get(token, "")
            if not candidate or candidate.casefold() in taken:
                continue
            if filled := self._replaced(text, word, ids, token):
                taken.add(candidate.casefold())
                texts.append(filled)
            if len(texts) == count:
                break
        return texts

    def _replaced(self, text: str, word: MaskableWord, ids: Sequence[int], token: int) -> str:
        """Returns the text with a token instead of a word; empty if the tokenizer does not read that token there."""
        filled = f"{text[: word.start]}{self.vocabulary[token]}{text[word.end :]}"
        return filled if self._ids(filled) == [*ids[: word.first], token, *ids[word.last :]] else ""

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, verbose=False)["input_ids"]
        return ids

    def _plain_ids(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return ids


class CbcaView:
    """An encoder of transcripts with one word replaced; it computes vectors only, no token ids.

    The word depends on the id of the utterance and on the seed, the texts on the language model as well.

    Args:
        encoder: encoder of the new texts.
        filler: language model that fills the gap.
        weights: digest of the language model.
        count: number of texts of an utterance.
        seed: random seed of the words.
    """

    def __init__(self, encoder: TextEncoder, filler: WordFiller, *, weights: str, count: int, seed: int = SEED) -> None:
        self.start_weights: Mapping[str, npt.NDArray[Any]] = {}
        self._encoder, self._filler, self._count, self._seed = encoder, filler, count, seed
        vectors = [spec for spec in encoder.specs if spec.role == "text"]
        self._vectors = len(vectors)
        parameters: dict[str, Scalar] = {"view": CBCA, "view.model": weights, "view.seed": seed}
        self.specs = [_view_spec(spec, rank, parameters) for spec in vectors for rank in range(1, count + 1)]

    def plan(self, sizes: Sequence[Turn]) -> list[InputPlan]:
        """Counts the tokens of each view: one for the replaced word, however many pieces that word has."""
        return [self._plan_turn(turn) for turn in sizes]

    def encode(self, inputs: Sequence[Turn], *, precise: bool = False) -> list[tuple[Rows, ...]]:
        """Encodes the views of transcripts, vectors ``(tokens, ...)`` per stream."""
        texts = [self.texts(turn) for turn in inputs]
        by_rank = [
            self._encoder.encode(
                [Turn(views[rank], turn.before) for turn, views in zip(inputs, texts, strict=True)], precise=precise
            )
            for rank in range(self._count)
        ]
        return [
            tuple(outputs[index][vector] for vector in range(self._vectors) for outputs in by_rank)
            for index in range(len(inputs))
        ]

    def texts(self, turn: Turn) -> list[str]:
        """Returns the spoken words of the views of a transcript, the best first.

        Raises:
            MmerError: if the transcript has no word to replace, or fewer words fit than requested.
        """
        text, word = self._chosen(turn)
        texts = self._filler.fill(text, word, self._count) if word else []
        if len(texts) < self._count:
            raise MmerError(
                f"utterance {turn.id}: the language model has {len(texts)} words for the gap, {self._count} requested; "
                f"lower the number of --view {CBCA}:{self._count}"
            )
        return texts

    def _plan_turn(self, turn: Turn) -> InputPlan:
        text, word = self._chosen(turn)
        stand_in = self._filler.stand_in(text, word, self._count) if word else ""
        if not stand_in:
            return InputPlan(failure=f"{NO_VIEW}the transcript has no word to replace")
        (planned,) = self._encoder.plan([Turn(stand_in, turn.before)])
        return replace(planned, rows=planned.rows[:1] * len(self.specs))

    def _chosen(self, turn: Turn) -> tuple[str, MaskableWord | None]:
        """Returns the spoken words of a transcript and the random word to replace; None if there is none."""
        text = spoken(turn.text, self._encoder.event_tags).text
        words = self._filler.words(text)
        if not words:
            return text, None
        digest = blake2b(f"{self._seed} {turn.id}".encode(), digest_size=8).digest()
        return text, words[int(np.random.default_rng(int.from_bytes(digest)).integers(len(words)))]


def _view_spec(spec: StreamSpec, rank: int, parameters: Mapping[str, Scalar]) -> StreamSpec:
    recorded = {**spec.preprocessing, **parameters, "view.rank": rank}
    return replace(spec, name=f"{spec.name}{VIEW}{CBCA}{rank}", preprocessing=recorded)


def _has_letter(text: str) -> bool:
    return any(character.isalpha() for character in text)
