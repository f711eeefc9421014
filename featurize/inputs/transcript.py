"""Transcripts: cleaned when read, stripped of event tags, and spelt in the characters of wav2vec 2.0's CTC vocabulary.

Event tags tell the class: of 117 IEMOCAP transcripts with ``[LAUGHTER]``, 114 are happy or excited.

Dialogues: which turns come before an utterance, for encoders that read it with its history.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cache.utterance import Utterance

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


@dataclass(frozen=True, slots=True)
class Turn:
    """A transcript as stored, and the transcripts of the turns before it that are spliced in, oldest first."""

    text: str
    before: tuple[str, ...] = ()

    def words(self, event_tags: str) -> list[str]:
        """Gives what is spoken in each turn, the current one last; silent turns of the history are left out."""
        history = [spoken(text, event_tags).text for text in self.before]
        return [*(words for words in history if words), spoken(self.text, event_tags).text]

    def latest(self, count: int) -> "Turn":
        """Keeps only so many of the turns before it."""
        return Turn(self.text, self.before[len(self.before) - count :] if count else ())


class Dialogues:
    """The turns of every dialogue of a corpus, in their order.

    Args:
        utterances: all of the corpus; those without a turn number follow in the order of the corpus.

    Example:
        >>> told = [Utterance(id=name, text=name, dialogue="d", turn=turn) for turn, name in enumerate("abc")]
        >>> Dialogues(told).before("c", 5)
        ('a', 'b')
    """

    def __init__(self, utterances: Sequence[Utterance]) -> None:
        groups: dict[str, list[Utterance]] = defaultdict(list)
        for utterance in utterances:
            if utterance.dialogue:
                groups[utterance.dialogue].append(utterance)
        self._texts: dict[str, list[str]] = {}
        self._places: dict[str, tuple[str, int]] = {}
        for name, group in groups.items():
            group.sort(key=_place)  # stable: without numbers the order of the corpus stays
            self._texts[name] = [utterance.text for utterance in group]
            self._places.update({utterance.id: (name, place) for place, utterance in enumerate(group)})

    def __bool__(self) -> bool:
        return bool(self._texts)

    def before(self, name: str, count: int) -> tuple[str, ...]:
        """Gives the transcripts of up to `count` turns before the utterance of that id, oldest first."""
        if name not in self._places:
            return ()
        dialogue, place = self._places[name]
        return tuple(self._texts[dialogue][max(0, place - count) : place])


def _storable(character: str) -> bool:
    return character != "\0" and not 0xD800 <= ord(character) <= 0xDFFF


def _plain(words: str) -> str:
    # NFKD parts accents from their letters; both typographic apostrophes count as one.
    parted = unicodedata.normalize("NFKD", words).replace("\u2019", "'").replace("\u2018", "'").upper()
    return "".join(character for character in parted if not unicodedata.combining(character))


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _place(utterance: Utterance) -> float:
    return float("inf") if utterance.turn is None else utterance.turn
