"""Filters: the utterances that take part by the value of a column, such as improvised speech only."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from cache.errors import MmerError
from cache.near_names import nearest
from cache.utterance import COLUMNS, Utterance, own_columns
from fusion.arrays import ClassIds
from fusion.protocols.labels import LEFT_OUT

Filters = Mapping[str, tuple[str, ...]]  # column -> values that take part

# Columns of every corpus that describe utterances, next to its own; the raw labels belong to label sets.
FILTER_COLUMNS = ("speaker", "session", "dialogue", "split", "style", "channel", "sentiment")
SHOWN = 6  # values that a message shows
NO_FILTERS: Filters = {}


def parse_filters(pairs: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Reads filters from text.

    Args:
        pairs: column -> values as ``value+value``.

    Returns:
        Column -> its values, sorted and without duplicates.

    Raises:
        MmerError: if a column selects no utterances in any corpus, such as label, or a value is empty.

    Example:
        >>> parse_filters({"style": "improvised", "session": "1+2"})
        {'style': ('improvised',), 'session': ('1', '2')}
    """
    filters: dict[str, tuple[str, ...]] = {}
    for column, text in pairs.items():
        if column in COLUMNS and column not in FILTER_COLUMNS:
            way_out = "--labels chooses classes" if column == "label" else nearest(column, FILTER_COLUMNS)
            raise MmerError(f"--only: unknown column {column!r}; {way_out}")
        filters[column] = tuple(sorted({value.strip() for value in text.split("+")}))
        if not all(filters[column]):
            raise MmerError(f"--only {column}={text} has an empty value; expected {column}=a+b")
    return filters


def filter_utterances(classes: ClassIds, utterances: Sequence[Utterance], only: Filters) -> tuple[ClassIds, list[str]]:
    """Leaves out utterances with other values than the filters allow.

    Args:
        classes: class index of each utterance, int64 ``(n,)``; -1 for utterances that are already left out.
        utterances: all utterances of the cache.
        only: column -> values that take part.

    Returns:
        The class indices, with -1 for the newly left-out utterances too, and a note on each filter.

    Raises:
        MmerError: if a column is unknown, a value does not occur, or no utterance is left; names the values that occur.
    """
    notes = []
    known = [*FILTER_COLUMNS, *own_columns(utterances)]
    for column, values in only.items():
        if column not in known:
            raise MmerError(f"--only: unknown column {column!r}; {nearest(column, known)}")
        before = classes
        column_values = np.array([utterance.text_of(column) for utterance in utterances])
        classes = np.where(np.isin(column_values, values), before, LEFT_OUT)
        kept, total = int((classes >= 0).sum()), int((before >= 0).sum())
        filter_text = f"{column}={'+'.join(values)}"
        unknown = next((value for value in values if not (column_values == value).any()), None)
        if unknown is not None or not kept:
            counts = Counter(column_values[before >= 0].tolist()).most_common(SHOWN)
            found = ", ".join(f"{value!r} ({count})" if value else f"none ({count})" for value, count in counts)
            problem = "leaves no utterance" if unknown is None else f"has an unknown value {unknown!r}"
            pattern = " (values are not patterns; join several by +)" if unknown and "*" in unknown else ""
            raise MmerError(f"--only {filter_text} {problem}{pattern}; found: {found}")
        notes.append(f"only {filter_text}: {kept} of {total} utterances")
    return classes, notes
