"""Dialogues: which turns come before an utterance, for encoders that read it with its history."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from cache.utterance import Utterance
from featurize.transcript import spoken


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


def _place(utterance: Utterance) -> float:
    return float("inf") if utterance.turn is None else utterance.turn
