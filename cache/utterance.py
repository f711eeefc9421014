"""Utterance: one turn of speech with all that the corpus states about it; stored as one HDF5 dataset per column."""

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from cache.hdf5 import Dataset, names_in

TEXT, NUMBER, COUNT = "text", "number", "count"
STORED: Mapping[str, str | None] = {TEXT: None, NUMBER: "<f8", COUNT: "<i8"}  # type in the file; None for text

# Column of the cache file -> how it is stored: UTF-8, float64 with NaN for absent, int64 with -1 for absent.
COLUMNS: Mapping[str, str] = {
    "id": TEXT,
    "audio": TEXT,
    "start_s": NUMBER,
    "end_s": NUMBER,
    "duration_s": NUMBER,
    "text": TEXT,
    "label": TEXT,
    "speaker": TEXT,
    "session": TEXT,
    "dialogue": TEXT,
    "turn": COUNT,
    "split": TEXT,
    "style": TEXT,
    "channel": TEXT,
    "valence": NUMBER,
    "activation": NUMBER,
    "dominance": NUMBER,
    "sentiment": TEXT,
    "votes": TEXT,
}
LATER_COLUMNS = frozenset({"sentiment", "votes"})  # columns that files of earlier releases lack
OPTIONAL_COLUMNS = frozenset({"votes"})  # columns that a file has only if an utterance has a value

SHARE_ERROR = 0.01  # greatest error of a sum of shares, which tables round to two decimals

# Name in a published split, in lower case -> subset.
SUBSET_NAMES: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "development": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """One utterance as its corpus describes it; labels stay as published.

    Attributes:
        id: unique in the corpus.
        audio: path of the recording, relative to the corpus root, with forward slashes.
        start_s: start of the utterance in the recording; None for the start of the recording.
        end_s: end of the utterance in the recording; None for the end of the recording.
        duration_s: seconds of speech; None until the recording was probed.
        text: transcript, empty where the corpus has none.
        label: raw label of the corpus.
        speaker: speaker id, unique in the corpus.
        session: recording session.
        dialogue: conversation that the utterance is a turn of.
        turn: position in the dialogue, from 0.
        split: subset of the published split.
        style: ``scripted`` or ``improvised``.
        channel: ``speech`` or ``song``.
        valence: rated valence on the corpus' own scale.
        activation: rated activation (arousal) on the corpus' own scale.
        dominance: rated dominance on the corpus' own scale.
        sentiment: raw sentiment of the corpus, such as ``positive``.
        votes: labels that annotators chose, with their numbers or shares, such as ``happy:3,sad:1``.
    """

    id: str
    audio: str = ""
    start_s: float | None = None
    end_s: float | None = None
    duration_s: float | None = None
    text: str = ""
    label: str = ""
    speaker: str = ""
    session: str = ""
    dialogue: str = ""
    turn: int | None = None
    split: str = ""
    style: str = ""
    channel: str = ""
    valence: float | None = None
    activation: float | None = None
    dominance: float | None = None
    sentiment: str = ""
    votes: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("an utterance needs an id, got an empty one")
        start_s = 0.0 if self.start_s is None else self.start_s
        if start_s < 0:
            raise ValueError(f"start_s of {self.id} must not be negative, got {self.start_s}")
        if self.end_s is not None and not self.end_s > start_s:
            raise ValueError(f"end_s of {self.id} must lie after start_s {start_s}, got {self.end_s}")
        if self.duration_s is not None and self.duration_s < 0:
            raise ValueError(f"duration_s of {self.id} must not be negative, got {self.duration_s}")
        if self.turn is not None and self.turn < 0:
            raise ValueError(f"turn of {self.id} must not be negative, got {self.turn}")
        if self.votes:
            parse_votes(self.votes, self.id)


def parse_votes(text: str, name: str) -> dict[str, float]:
    """Reads the votes of annotators; returns label -> number of votes, or their share.

    Args:
        text: votes separated by commas, each ``label:number``.
        name: id of the utterance, for messages.

    Raises:
        ValueError: if a vote cannot be read, a label is named twice, there is no vote, or shares do not sum to 1.

    Example:
        >>> parse_votes("happy:3,sad:1", "u1")
        {'happy': 3.0, 'sad': 1.0}
    """
    votes: dict[str, float] = {}
    for item in text.split(","):
        label, _, number = (part.strip() for part in item.rpartition(":"))
        try:
            count = float(number)
        except ValueError:
            count = math.nan
        if not label or not 0 <= count < math.inf:
            raise ValueError(f"votes of {name} have an invalid item {item.strip()!r}; expected happy:3,sad:1")
        if label in votes:
            raise ValueError(f"votes of {name} name {label!r} twice; name each label once")
        votes[label] = count
    total = sum(votes.values())
    if not total:
        raise ValueError(f"votes of {name} are all 0 ({text}); leave the cell empty if there are no votes")
    if not all(count.is_integer() for count in votes.values()) and abs(total - 1) > SHARE_ERROR:
        raise ValueError(f"votes of {name} sum to {total:g} ({text}); expected whole numbers, or shares that sum to 1")
    return votes


def alike_labels(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups labels that differ only in letter case or white space, most frequent first.

    Args:
        labels: labels of utterances, repeated as often as they occur.

    Example:
        >>> alike_labels(["happy", "sad", "Happy", "happy", "happy "])
        [('happy', 'Happy', 'happy ')]
    """
    groups: dict[str, list[str]] = {}
    for label, _ in Counter(labels).most_common():
        groups.setdefault("".join(unicodedata.normalize("NFC", label).casefold().split()), []).append(label)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def alike_note(group: Sequence[str]) -> str:
    """Returns a note on labels that differ only in letter case or white space."""
    names = ", ".join(map(repr, group))
    return f"labels {names} differ only in case or white space and are different labels; write them alike in the corpus"


def write_utterances(group: h5py.Group, utterances: Sequence[Utterance]) -> None:
    """Writes one dataset per column."""
    for column, kind in COLUMNS.items():
        values = [getattr(utterance, column) for utterance in utterances]
        if column in OPTIONAL_COLUMNS and not any(values):
            continue
        if kind == TEXT:
            group.create_dataset(column, data=values, dtype=h5py.string_dtype(), shape=(len(values),))
        elif kind == NUMBER:
            group.create_dataset(column, data=np.array([np.nan if v is None else v for v in values], dtype="<f8"))
        else:
            group.create_dataset(column, data=np.array([-1 if v is None else v for v in values], dtype="<i8"))


def read_utterances(group: h5py.h5g.GroupID, descriptor: int, size_bytes: int) -> list[Utterance]:
    """Reads the utterances.

    Columns that were added to the format later keep their defaults where a file lacks them.

    Args:
        group: group of the columns.
        descriptor: open descriptor of the file.
        size_bytes: size of the file.

    Raises:
        ValueError: if another column is missing, or a column or a value is not what the format says.
    """
    present = {*names_in(group)}
    kinds = {column: kind for column, kind in COLUMNS.items() if column not in LATER_COLUMNS or column in present}
    datasets = [Dataset(group, column, STORED[kind], (-1,), descriptor) for column, kind in kinds.items()]
    counts = {dataset.shape for dataset in datasets}
    if len(counts) > 1:
        raise ValueError(f"columns of utterances have {' and '.join(str(shape[0]) for shape in sorted(counts))} rows")
    for dataset in datasets:
        dataset.check_inside(size_bytes)
    columns = [_values(dataset, kind, size_bytes) for dataset, kind in zip(datasets, kinds.values(), strict=True)]
    utterances = [Utterance(**dict(zip(kinds, row, strict=True))) for row in zip(*columns, strict=True)]
    if len({utterance.id for utterance in utterances}) != len(utterances):
        raise ValueError("two utterances have the same id")
    return utterances


def _values(dataset: Dataset, kind: str, size_bytes: int) -> list[Any]:
    if kind == TEXT:
        return dataset.texts(size_bytes)
    numbers = dataset.numbers()
    if kind == COUNT:
        return [None if value < 0 else value for value in numbers.tolist()]
    if np.isinf(numbers).any():
        raise ValueError(f"{dataset.name} holds infinity")
    return [None if value != value else value for value in numbers.tolist()]  # noqa: PLR0124 - NaN alone differs from itself
