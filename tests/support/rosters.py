"""Utterances of small corpora, without anything to hear."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.utterance import Utterance
from fusion.protocols.folds import Fold

IEMOCAP_LABELS = ("ang", "hap", "exc", "neu", "sad", "fru")
CLASSES = {"ang": 0, "hap": 1, "exc": 1, "neu": 2, "sad": 3}


def dyads(sessions: int = 5, dialogues: int = 6, turns: int = 12) -> list[Utterance]:
    """Sessions of two speakers each, as in IEMOCAP; every dialogue holds every label."""
    return [
        Utterance(
            id=f"Ses0{session}_d{dialogue}_{turn}",
            label=IEMOCAP_LABELS[turn % len(IEMOCAP_LABELS)],
            speaker=f"Ses0{session}{'FM'[turn // len(IEMOCAP_LABELS) % 2]}",
            session=str(session),
            dialogue=f"Ses0{session}_d{dialogue}",
            turn=turn,
        )
        for session in range(1, sessions + 1)
        for dialogue in range(dialogues)
        for turn in range(turns)
    ]


def actors(count: int = 24, takes: int = 2) -> list[Utterance]:
    """Actors who speak alone, as in RAVDESS."""
    return [
        Utterance(id=f"{label}-{take}-{actor:02}", label=label, speaker=f"{actor:02}", channel="speech")
        for actor in range(1, count + 1)
        for label in ("calm", "happy", "sad")
        for take in range(takes)
    ]


def show(parts: Sequence[str] = ("train", "dev", "test"), dialogues: int = 4) -> list[Utterance]:
    """A published split whose parts share their speakers, as in MELD."""
    return [
        Utterance(
            id=f"{part}_dia{dialogue}_utt{turn}",
            label=("neutral", "joy")[turn % 2],
            speaker=("Ross", "Monica")[turn % 2],
            dialogue=f"{part}_dia{dialogue}",
            split=part,
            sentiment=("neutral", "positive")[turn % 2],
        )
        for part in parts
        for dialogue in range(dialogues)
        for turn in range(4)
    ]


def four_classes(utterances: Sequence[Utterance]) -> npt.NDArray[np.int64]:
    return np.array([CLASSES.get(one.label, -1) for one in utterances], dtype=np.int64)


def by_label(utterances: Sequence[Utterance]) -> npt.NDArray[np.int64]:
    return np.unique([one.label for one in utterances], return_inverse=True)[1].astype(np.int64)


def fold_of(train: Sequence[int], dev: Sequence[int], test: Sequence[int], name: str = "1") -> Fold:
    return Fold(name=name, train=np.array(train), dev=np.array(dev), test=np.array(test))


def without(column: str, utterances: Sequence[Utterance]) -> list[Utterance]:
    """Empties a column."""
    blank: dict[str, Any] = {column: ""}
    return [replace(one, **blank) for one in utterances]
