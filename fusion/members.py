"""The utterances that take part in a protocol, and a fold of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.utterance import Utterance

Places: TypeAlias = npt.NDArray[np.int64]
Division: TypeAlias = tuple[Places, Places]  # what is learnt from, what is held out


@dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """Which utterances a model learns from, is chosen on, and is scored on.

    Attributes:
        name: what is left out for test, or the number of the fold.
        train: positions among all utterances of the cache, int64 ``(n,)``, ascending.
        dev: the same.
        test: the same.
    """

    name: str
    train: Places
    dev: Places
    test: Places

    @property
    def parts(self) -> dict[str, Places]:
        """The three parts by name."""
        return {"train": self.train, "dev": self.dev, "test": self.test}


@dataclass(frozen=True, kw_only=True, eq=False)
class Members:
    """The utterances that take part, column by column, each ``(n,)``.

    Attributes:
        indices: positions among all utterances of the cache, int64.
        classes: class indices, int64.
        ids: their ids.
        speakers: their speakers, empty where unknown; sessions, dialogues and splits likewise.
    """

    indices: Places
    classes: Places
    ids: npt.NDArray[np.str_]
    speakers: npt.NDArray[np.str_]
    sessions: npt.NDArray[np.str_]
    dialogues: npt.NDArray[np.str_]
    splits: npt.NDArray[np.str_]

    @classmethod
    def of(cls, utterances: Sequence[Utterance], classes: Places) -> "Members":
        """Takes the utterances whose class is not -1."""
        indices = np.flatnonzero(classes >= 0)
        chosen = [utterances[index] for index in indices.tolist()]
        return cls(
            indices=indices,
            classes=classes[indices],
            ids=np.array([one.id for one in chosen]),
            speakers=np.array([one.speaker for one in chosen]),
            sessions=np.array([one.session for one in chosen]),
            dialogues=np.array([one.dialogue for one in chosen]),
            splits=np.array([one.split for one in chosen]),
        )

    @cached_property
    def groups(self) -> npt.NDArray[np.str_]:
        """The dialogue of each utterance; one without a dialogue is a group of its own."""
        alone = np.char.add("utterance ", self.ids)  # an id alone may be the name of a dialogue
        return np.where(self.dialogues == "", alone, self.dialogues)

    @cached_property
    def circles(self) -> npt.NDArray[np.str_]:
        """The first speaker of each utterance's circle: all who share a dialogue, directly or through others."""
        speakers, who = np.unique(self.speakers, return_inverse=True)
        where = np.unique(self.groups, return_inverse=True)[1]
        circle, before = who, np.full_like(who, -1)
        while (circle != before).any():
            before, circle = circle, _lowest(_lowest(circle, where), who)
        return speakers[circle]

    def named(self, column: str) -> npt.NDArray[np.str_]:
        """Gives a column that has at least two values and no gap.

        Raises:
            MmerError: if it has not.
        """
        values: npt.NDArray[np.str_] = getattr(self, f"{column}s")
        gaps = np.flatnonzero(values == "")
        if len(gaps):
            raise MmerError(
                f"{len(gaps)} of {len(values)} utterances have no {column} (first: {self.ids[gaps[0]]}); "
                "fill the column in, or choose another --protocol"
            )
        if len(set(values)) < 2:
            raise MmerError(f"all utterances are of {column} {values[0]}; choose another --protocol")
        return values

    def fold(self, name: str, division: Division, test: Places) -> Fold:
        """Makes a fold of places among the members: what is learnt from and chosen on, what is scored."""
        train, dev = division
        return Fold(name=name, train=self.indices[train], dev=self.indices[dev], test=self.indices[test])


def _lowest(values: Places, groups: Places) -> Places:
    """Gives the lowest value of each place's group, ``(n,)``."""
    lowest = np.full(groups.max() + 1, values.max())
    np.minimum.at(lowest, groups, values)
    return lowest[groups]
