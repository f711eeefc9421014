"""Takes only some utterances of a corpus, by a column: improvised speech alone, or one speaker."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from cache.errors import MmerError
from cache.utterance import Utterance
from fusion.labels import LEFT_OUT
from fusion.members import Places
from fusion.settings import nearest

Only = Mapping[str, tuple[str, ...]]  # column -> the values that take part

# Columns that tell utterances apart; what they mean is the matter of labels.
NARROWING = ("speaker", "session", "dialogue", "split", "style", "channel", "sentiment")
SHOWN = 6  # values that a message spells out


def parse_only(pairs: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Reads columns and their values, each ``value+value``.

    Args:
        pairs: values by column, as written.

    Raises:
        MmerError: if there is no such column, or a value is empty.

    Example:
        >>> parse_only({"style": "improvised", "session": "1+2"})
        {'style': ('improvised',), 'session': ('1', '2')}
    """
    read: dict[str, tuple[str, ...]] = {}
    for column, text in pairs.items():
        if column not in NARROWING:
            raise MmerError(f"--only takes no column {column!r}; {nearest(column, NARROWING)}")
        read[column] = tuple(sorted({value.strip() for value in text.split("+")}))
        if not all(read[column]):
            raise MmerError(f"--only {column}={text} names no value between two signs; write {column}=a+b")
    return read


def narrowed(classes: Places, utterances: Sequence[Utterance], only: Only) -> tuple[Places, list[str]]:
    """Leaves out all utterances but some.

    Args:
        classes: class index of each utterance, int64 ``(n,)``; -1 for those that are left out anyway.
        utterances: all of the cache.
        only: column -> the values that take part.

    Returns:
        The class indices with -1 for those that are left out now too, and what to print.

    Raises:
        MmerError: if no utterance has one of the values, or none is left, with the values that there are.
    """
    notes = []
    for column, values in only.items():
        before = classes
        told = np.array([str(getattr(one, column)) for one in utterances])
        classes = np.where(np.isin(told, values), before, LEFT_OUT)
        left, all_of_them = int((classes >= 0).sum()), int((before >= 0).sum())
        asked = f"{column}={'+'.join(values)}"
        unknown = next((value for value in values if not (told == value).any()), None)
        if unknown is not None or not left:
            counts = Counter(told[before >= 0].tolist()).most_common(SHOWN)
            there = ", ".join(f"{value or 'none'} ({count})" for value, count in counts)
            why = "leaves no utterance" if unknown is None else f"asks for {unknown!r}, which no utterance has"
            raise MmerError(f"--only {asked} {why}; there are: {there}")
        notes.append(f"only {asked}: {left} of {all_of_them} utterances")
    return classes, notes
