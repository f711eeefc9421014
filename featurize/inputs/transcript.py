"""Transcripts: cleaned text, its event tags, its spelling for CTC, and the dialogue history of an utterance.

Event tags reveal the class: of 117 IEMOCAP transcripts with ``[LAUGHTER]``, 114 are happy or excited. CTC targets are
spelt in the characters of wav2vec 2.0's vocabulary. Encoders that read an utterance with its history get the preceding
turns of the dialogue.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cache.utterance import Utterance

STRIP, KEEP = "strip", "keep"
EVENT_TAG_POLICIES = (STRIP, KEEP)
EVENT_TAG = re.compile(r"\[[A-Za-z][A-Za-z _/'-]{0,39}\]")  # [LAUGHTER], [BREATHING], [door slams]

# Vocabulary of facebook/wav2vec2-base-960h; the first is padding and blank, "|" separates words.
CTC_SYMBOLS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")
_CTC_IDS = {symbol: index for index, symbol in enumerate(CTC_SYMBOLS)}
_LETTERS = frozenset(CTC_SYMBOLS[5:])
# Signs that part words also without a space: dashes, slashes, two dots or more, and signs after which writers forget
# the space. A hyphen does not (well-known), nor a single dot (U.S.), quotation marks and brackets (word(s)).
PARTING = re.compile(r"-{2,}|[\u2012-\u2015\u2212\ufe58/\\|_,;:!?\u00b7\u2022]|\.{2,}")
_SPOKEN_SIGNS = frozenset("&@#%*\u00a7")  # punctuation of Unicode that readers speak


class CleanedText(NamedTuple):
    """A transcript that HDF5 and tokenizers accept, and a note on what was removed or is unusual."""

    text: str
    note: str


class SpokenText(NamedTuple):
    """Spoken words, and the position of each character in the stored transcript, int32 ``(characters,)``."""

    text: str
    positions: npt.NDArray[np.int32]


def clean_text(text: str) -> CleanedText:
    """Removes NUL and lone surrogates, which neither HDF5 nor tokenizers accept.

    Example:
        >>> clean_text("so\\0 what")
        CleanedText(text='so what', note='1 NUL character removed')
    """
    plain = text.isascii()  # ASCII holds neither surrogates nor symbols: skips the two loops
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
    return CleanedText(cleaned, "; ".join(notes))


def spoken(text: str, event_tags: str) -> SpokenText:
    """Returns the spoken words, with white space collapsed.

    Args:
        text: transcript as stored.
        event_tags: ``strip`` to remove event tags, ``keep`` to keep them.

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
    return SpokenText("".join(characters), np.array(positions, dtype=np.int32))


def ctc_ids(words: str) -> npt.NDArray[np.uint8]:
    """Returns words as CTC indices: upper-case letters, apostrophes, word delimiters.

    Args:
        words: spoken words, as `spoken` returns them.

    Returns:
        Indices into `CTC_SYMBOLS`, uint8 ``(characters,)``.

    Example:
        >>> "".join(CTC_SYMBOLS[index] for index in ctc_ids("I don't know--wait, José!"))
        "I|DON'T|KNOW|WAIT|JOSE"
    """
    return np.array([_CTC_IDS[character] for character in _spelt(PARTING.sub(" ", _plain(words)))], dtype=np.uint8)


def is_parted(words: str) -> bool:
    """Returns True if a sign without a space parts two words; earlier versions wrote them as one."""
    plain = _plain(words)
    return _spelt(PARTING.sub(" ", plain)) != _spelt(plain)


def ctc_note(words: str) -> str:
    """Returns a note on letters, digits or spoken signs outside the CTC vocabulary, or ""."""
    candidates = (character for character in _plain(words) if character not in _LETTERS)
    lost = [sign for sign in candidates if unicodedata.category(sign)[0] in "LMNS" or sign in _SPOKEN_SIGNS]
    return f"{_counted(len(lost), 'character')} such as {lost[0]} not in the CTC vocabulary" if lost else ""


def text_digest(text: str) -> bytes:
    """Returns the 16-byte digest of a text."""
    return blake2b(text.encode(), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class Turn:
    """An utterance's transcript as stored, and those of the turns before it that its encoder reads, oldest first.

    The id of the utterance decides random draws only; turns of equal texts are equal.
    """

    text: str
    before: tuple[str, ...] = ()
    id: str = field(default="", compare=False)

    def words(self, event_tags: str) -> list[str]:
        """Returns the spoken words of each turn, the current last, without silent history."""
        history = [spoken(text, event_tags).text for text in self.before]
        return [*(words for words in history if words), spoken(self.text, event_tags).text]

    def latest(self, count: int) -> "Turn":
        """Returns this turn with at most `count` of the turns before it."""
        return replace(self, before=self.before[max(0, len(self.before) - count) :] if count else ())


class Dialogues:
    """The transcripts of every dialogue of a corpus, in the order of the turns.

    Args:
        utterances: all utterances of the corpus; those without a turn number come last, in the order of the corpus.

    Example:
        >>> utterances = [Utterance(id=name, text=name, dialogue="d", turn=turn) for turn, name in enumerate("abc")]
        >>> Dialogues(utterances).before("c", 5)
        ('a', 'b')
    """

    def __init__(self, utterances: Sequence[Utterance]) -> None:
        groups: dict[str, list[Utterance]] = defaultdict(list)
        for utterance in utterances:
            if utterance.dialogue:
                groups[utterance.dialogue].append(utterance)
        self._texts: dict[str, list[str]] = {}
        self._positions: dict[str, tuple[str, int]] = {}  # utterance id -> its dialogue and its index there
        for name, group in groups.items():
            group.sort(key=_turn_number)  # stable: without numbers, the order of the corpus is kept
            self._texts[name] = [utterance.text for utterance in group]
            self._positions.update({utterance.id: (name, index) for index, utterance in enumerate(group)})

    def __bool__(self) -> bool:
        return bool(self._texts)

    def before(self, name: str, count: int) -> tuple[str, ...]:
        """Returns up to `count` transcripts before the utterance of that id, oldest first.

        The result is empty if the utterance is unknown or belongs to no dialogue.
        """
        if name not in self._positions:
            return ()
        dialogue, index = self._positions[name]
        return tuple(self._texts[dialogue][max(0, index - count) : index])


def _storable(character: str) -> bool:
    return character != "\0" and not 0xD800 <= ord(character) <= 0xDFFF


def _plain(words: str) -> str:
    # NFKD separates accents from their letters; both typographic apostrophes become the ASCII apostrophe.
    decomposed = unicodedata.normalize("NFKD", words).replace("\u2019", "'").replace("\u2018", "'").upper()
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def _spelt(plain: str) -> str:
    """Returns the letters of words, with a delimiter between words."""
    kept = "".join(character for character in plain if character.isspace() or character in _LETTERS)
    return "|".join(kept.split())


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _turn_number(utterance: Utterance) -> float:
    return float("inf") if utterance.turn is None else utterance.turn
