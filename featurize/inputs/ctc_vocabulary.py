"""Vocabularies of CTC targets: the symbols of wav2vec 2.0, or a table of characters that the user gives.

A table is a text file with one character on each line, or the ``vocab.json`` of a CTC checkpoint. Characters are found
as they are written, else in the other case, else without their accents.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.json_text import parse_json
from featurize.inputs.transcript import CTC_SYMBOLS, PARTING, ctc_ids, ctc_note

BLANK, DELIMITER = "<pad>", "|"
SPECIAL = re.compile(r"<[^>]*>|\[[A-Z]+\]")  # <pad>, <s>, [UNK]: no characters of a transcript
MOST_SYMBOLS = 255  # an index is stored in one byte
MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class CtcVocabulary:
    """The symbols of CTC targets; the first is padding and blank, ``|`` separates words.

    Attributes:
        symbols: all symbols, in the order of their indices.
    """

    symbols: tuple[str, ...]
    _indices: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_indices", {symbol: index for index, symbol in enumerate(self.symbols)})

    @property
    def standard(self) -> bool:
        """True for the vocabulary of wav2vec 2.0."""
        return self.symbols == CTC_SYMBOLS

    def ids(self, words: str) -> npt.NDArray[np.uint8]:
        """Returns words as indices, uint8 ``(characters,)``.

        Example:
            >>> CtcVocabulary(("<pad>", "|", "ä", "n", "u")).ids("Nu--än").tolist()
            [3, 4, 1, 2, 3]
        """
        if self.standard:
            return ctc_ids(words)
        spelt = ["".join(self._found(word)) for word in PARTING.sub(" ", words).split()]
        text = [list(word) for word in spelt if word]
        joined = [symbol for word in text for symbol in (DELIMITER, *word)][1:]
        return np.array([self._indices[symbol] for symbol in joined], dtype=np.uint8)

    def note(self, words: str) -> str:
        """Returns a note on letters and digits outside the vocabulary, or ""."""
        if self.standard:
            return ctc_note(words)
        lost = self.dropped(words)
        plural = "" if len(lost) == 1 else "s"
        return f"{len(lost)} character{plural} such as {lost[0]} not in the CTC vocabulary" if lost else ""

    def dropped(self, words: str) -> list[str]:
        """Returns the letters and digits that have no symbol."""
        return [
            character
            for character in unicodedata.normalize("NFC", words)
            if _spoken(character) and not self._symbols(character)
        ]

    def _found(self, word: str) -> list[str]:
        return [symbol for character in unicodedata.normalize("NFC", word) for symbol in self._symbols(character)]

    def _symbols(self, character: str) -> list[str]:
        """Returns the symbols of a character; empty if there are none."""
        for form in (character, character.lower(), character.upper()):
            if form in self._indices and form != DELIMITER:
                return [form]
        parts = [part for part in unicodedata.normalize("NFKD", character) if not unicodedata.combining(part)]
        forms = [
            next((form for form in (part, part.lower(), part.upper()) if form in self._indices), "") for part in parts
        ]
        return forms if forms and all(form and form != DELIMITER for form in forms) else []


STANDARD = CtcVocabulary(CTC_SYMBOLS)


def read_ctc_vocabulary(path: Path) -> CtcVocabulary:
    """Reads a table of characters.

    Raises:
        MmerError: if it cannot be read, holds no characters, too many, one twice, or more than one on a line.
    """
    try:
        content = path.read_bytes()[: MOST_BYTES + 1]
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise MmerError(f"--ctc-vocab {path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise MmerError(f"--ctc-vocab {path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error
    characters = _of_json(path, text) if text.lstrip().startswith("{") else _of_lines(path, text)
    if not characters:
        raise MmerError(f"--ctc-vocab {path}: no characters; write one on each line")
    twice = next((found for index, found in enumerate(characters) if found in characters[:index]), None)
    if twice is not None:
        raise MmerError(f"--ctc-vocab {path}: {twice!r} is there twice; keep one")
    symbols = (BLANK, DELIMITER, *characters)
    if len(symbols) > MOST_SYMBOLS:
        raise MmerError(f"--ctc-vocab {path}: {len(characters)} characters; at most {MOST_SYMBOLS - 2} are supported")
    return CtcVocabulary(symbols)


def _of_lines(path: Path, text: str) -> list[str]:
    lines = [unicodedata.normalize("NFC", line.strip()) for line in text.splitlines()]
    found = [line for line in lines if line and line not in {BLANK, DELIMITER}]
    long = next((line for line in found if len(line) > 1), None)
    if long is not None:
        raise MmerError(f"--ctc-vocab {path}: {long[:20]!r} is more than one character; write one on each line")
    return found


def _of_json(path: Path, text: str) -> list[str]:
    try:
        table = parse_json(text)
    except (ValueError, json.JSONDecodeError) as error:
        raise MmerError(f"--ctc-vocab {path}: not valid JSON ({error})") from error
    if not isinstance(table, dict) or not all(isinstance(index, int) for index in table.values()):
        raise MmerError(f"--ctc-vocab {path}: must map symbols to indices, as the vocab.json of a CTC checkpoint does")
    ordered: Sequence[str] = sorted(table, key=lambda symbol: table[symbol])
    plain = [symbol for symbol in ordered if not SPECIAL.fullmatch(symbol) and symbol not in {DELIMITER, " "}]
    long = next((symbol for symbol in plain if len(symbol) > 1), None)
    if long is not None:
        raise MmerError(
            f"--ctc-vocab {path}: {long[:20]!r} is more than one character; a table of characters is needed"
        )
    return plain


def _spoken(character: str) -> bool:
    return unicodedata.category(character)[0] in "LN"
