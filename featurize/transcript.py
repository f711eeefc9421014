"""Transcripts: cleaned when read, stripped of event tags, and spelt in the characters of wav2vec 2.0's CTC vocabulary.

Event tags tell the class: of 117 IEMOCAP transcripts with ``[LAUGHTER]``, 114 are happy or excited.
"""

import re
import unicodedata
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

STRIP, KEEP = "strip", "keep"
EVENT_TAG_POLICIES = (STRIP, KEEP)
EVENT_TAG = re.compile(r"\[[A-Za-z][A-Za-z _/'-]{0,39}\]")  # [LAUGHTER], [BREATHING], [door slams]

# Vocabulary of facebook/wav2vec2-base-960h; the first is padding and blank, "|" stands between words.
CTC_SYMBOLS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")
_CTC_IDS = {symbol: index for index, symbol in enumerate(CTC_SYMBOLS)}
_LETTERS = frozenset(CTC_SYMBOLS[5:])


class Cleaned(NamedTuple):
    """A transcript that every library can take, and what was noticed about it."""

    text: str
    note: str


class Spoken(NamedTuple):
    """The words of a transcript, and for each of their characters its position in the transcript as stored."""

    text: str
    positions: npt.NDArray[np.int32]


def clean_text(text: str) -> Cleaned:
    """Removes NUL and lone surrogates, which neither HDF5 nor a tokenizer takes.

    Example:
        >>> clean_text("so\\0 what")
        Cleaned(text='so what', note='1 NUL character removed')
    """
    plain = text.isascii()  # then it holds neither surrogates nor symbols, and need not be walked through
    nuls = text.count("\0")
    surrogates = 0 if plain else sum(not _storable(character) for character in text) - nuls
    cleaned = text if not nuls and not surrogates else "".join(filter(_storable, text))
    symbols = [] if plain else [character for character in cleaned if unicodedata.category(character) == "So"]
    notes = [
        *([f"{_counted(nuls, 'NUL character')} removed"] if nuls else []),
        *([f"{_counted(surrogates, 'undecodable character')} removed"] if surrogates else []),
        *([f"holds {_counted(len(symbols), 'symbol')} such as {symbols[0]}"] if symbols else []),
        *(["empty transcript"] if not cleaned.strip() else []),
    ]
    return Cleaned(cleaned, "; ".join(notes))


def spoken(text: str, event_tags: str) -> Spoken:
    """Gives the words that are spoken: event tags dropped or kept, white space collapsed.

    Example:
        >>> spoken(" [LAUGHTER]  I  know. ", "strip").text
        'I know.'
    """
    if event_tags == STRIP:
        text = EVENT_TAG.sub(lambda tag: " " * len(tag[0]), text)
    characters: list[str] = []
    positions: list[int] = []
    for position, character in enumerate(text):
        gap = character.isspace()
        if gap and (not characters or characters[-1] == " "):
            continue
        characters.append(" " if gap else character)
        positions.append(position)
    if characters and characters[-1] == " ":
        characters, positions = characters[:-1], positions[:-1]
    return Spoken("".join(characters), np.array(positions, dtype=np.int32))


def ctc_ids(words: str) -> npt.NDArray[np.uint8]:
    """Spells words for CTC: upper case, letters and apostrophes kept, one delimiter between words.

    Args:
        words: what is spoken, as `spoken` gives it.

    Returns:
        Indices into `CTC_SYMBOLS`, uint8 ``(characters,)``.

    Example:
        >>> "".join(CTC_SYMBOLS[index] for index in ctc_ids("I don't know, José!"))
        "I|DON'T|KNOW|JOSE"
    """
    kept = "".join(character for character in _plain(words) if character.isspace() or character in _LETTERS)
    return np.array([_CTC_IDS[character] for character in "|".join(kept.split())], dtype=np.uint8)


def ctc_note(words: str) -> str:
    """Says which letters, digits or symbols the CTC vocabulary cannot spell."""
    lost = [one for one in _plain(words) if one not in _LETTERS and unicodedata.category(one)[0] in "LNS"]
    return f"{_counted(len(lost), 'character')} such as {lost[0]} not in the CTC vocabulary" if lost else ""


def text_digest(text: str) -> bytes:
    """Gives the 16-byte digest of a text."""
    return blake2b(text.encode(), digest_size=16).digest()


def _storable(character: str) -> bool:
    return character != "\0" and not 0xD800 <= ord(character) <= 0xDFFF


def _plain(words: str) -> str:
    # NFKD parts accents from their letters; both typographic apostrophes count as one.
    parted = unicodedata.normalize("NFKD", words).replace("\u2019", "'").replace("\u2018", "'").upper()
    return "".join(character for character in parted if not unicodedata.combining(character))


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
