"""Word error rate of transcripts by ASR against those of the corpus.

Both are normalized as Whisper's paper does for English (Radford et al., 2022, arXiv:2212.04356, appendix C): lower
case, no punctuation, numbers as digits, contractions spelt out. Event tags such as ``[LAUGHTER]`` do not count.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jiwer
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from cache.joined import AnyCache
from cache.utterance import Utterance
from featurize.inputs.transcript import STRIP, spoken


@dataclass(frozen=True, kw_only=True)
class WordErrors:
    """Errors of transcripts: words that were replaced, left out or added, of all words of the corpus' texts.

    Attributes:
        stream: stream of transcripts.
        utterances: number of utterances with both texts.
        words: words of the corpus' texts.
        errors: words that differ.
    """

    stream: str
    utterances: int
    words: int
    errors: int

    @property
    def rate(self) -> float:
        """Errors per word of the corpus' texts."""
        return self.errors / self.words


def count_word_errors(stream: str, pairs: Iterable[tuple[str, str]]) -> WordErrors | None:
    """Counts the errors of transcripts; None if no text of the corpus has a word.

    Args:
        stream: name of the stream of transcripts.
        pairs: text of the corpus, and transcript by ASR.

    Example:
        >>> count_word_errors("w.asr", [("Twenty-one dogs, isn't it?", "21 frogs is not it")]).rate
        0.2
    """
    normalizer: Any = EnglishTextNormalizer  # untyped
    normalize = normalizer({})  # without the table of British spellings
    texts = [(_words(normalize(spoken(text, STRIP).text)), _words(normalize(heard))) for text, heard in pairs]
    known = [pair for pair in texts if pair[0]]
    if not known:
        return None
    output = jiwer.process_words([text for text, _ in known], [heard for _, heard in known])
    errors = output.substitutions + output.deletions + output.insertions
    words = output.substitutions + output.deletions + output.hits
    return WordErrors(stream=stream, utterances=len(known), words=words, errors=errors)


def word_errors(cache: AnyCache, stream: str, transcripts: Mapping[str, str]) -> WordErrors | None:
    """Counts the errors of a cache's transcripts where the corpus has texts too; None where it has none."""
    both = [utterance for utterance in cache.utterances if _has_both(utterance, transcripts)]
    return count_word_errors(stream, [(utterance.text, transcripts[utterance.id]) for utterance in both])


def _words(normalized: str) -> str:
    """Returns the words of a normalized text; signs alone, such as an ellipsis, are none."""
    return " ".join(word for word in normalized.split() if any(sign.isalnum() for sign in word))


def _has_both(utterance: Utterance, transcripts: Mapping[str, str]) -> bool:
    return bool(utterance.text.strip()) and utterance.id in transcripts
