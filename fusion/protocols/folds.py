"""How each protocol divides the utterances of a label set into folds; scikit-learn does the drawing.

A fold depends on the utterances and on the data seed, never on the seed of a model. What the folds of a protocol
promise stands in `fusion.protocols.catalog`, and is checked there on every one of them.

scikit-learn takes over a second to import: it is imported by the functions that draw, so that protocols can be listed
and looked up without it.

The utterances that take part in a protocol, and a fold of them.

The dev part of a fold: a tenth of what is not test, taken whole dialogue by dialogue or speaker by speaker.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.utterance import Utterance
from fusion.arrays import Indices

Division: TypeAlias = tuple[Indices, Indices]  # what is learnt from, what is held out
DEV_SHARE = 10  # dev is a tenth of what is not test (systems.md C-2)
FIFTHS = 5
LAST_SESSION = "5"  # the test session of the six-class convention (systems.md C-2)

# Test actors of https://github.com/emo-box/EmoBox, data/ravdess/fold_{1..6}, at bb22000 and fdc57b0
# (Ma et al., 2024, arXiv:2406.07162).
EMOBOX_ACTORS: Mapping[str, tuple[str, ...]] = {
    "1": ("01", "11", "20", "21"),
    "2": ("04", "10", "12", "14"),
    "3": ("08", "09", "19", "23"),
    "4": ("03", "05", "07", "24"),
    "5": ("02", "15", "16", "18"),
    "6": ("06", "13", "17", "22"),
}

# How published splits call their parts.
PART_NAMES: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "development": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
}


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
    train: Indices
    dev: Indices
    test: Indices

    @property
    def subsets(self) -> dict[str, Indices]:
        """The three parts by name."""
        return {"train": self.train, "dev": self.dev, "test": self.test}


@dataclass(frozen=True, kw_only=True, eq=False)
class UtteranceTable:
    """The utterances that take part, column by column, each ``(n,)``.

    Attributes:
        indices: positions among all utterances of the cache, int64.
        classes: class indices, int64.
        ids: their ids.
        speakers: their speakers, empty where unknown; sessions, dialogues and splits likewise.
    """

    indices: Indices
    classes: Indices
    ids: npt.NDArray[np.str_]
    speakers: npt.NDArray[np.str_]
    sessions: npt.NDArray[np.str_]
    dialogues: npt.NDArray[np.str_]
    splits: npt.NDArray[np.str_]

    @classmethod
    def of(cls, utterances: Sequence[Utterance], classes: Indices) -> "UtteranceTable":
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
    def dialogue_groups(self) -> npt.NDArray[np.str_]:
        """The dialogue of each utterance; one without a dialogue is a group of its own."""
        alone = np.char.add("utterance ", self.ids)  # an id alone may be the name of a dialogue
        return np.where(self.dialogues == "", alone, self.dialogues)

    @cached_property
    def speaker_groups(self) -> npt.NDArray[np.str_]:
        """The first speaker of each utterance's circle: all who share a dialogue, directly or through others."""
        speakers, who = np.unique(self.speakers, return_inverse=True)
        where = np.unique(self.dialogue_groups, return_inverse=True)[1]
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

    def fold(self, name: str, division: Division, test: Indices) -> Fold:
        """Makes a fold of places among the members: what is learnt from and chosen on, what is scored."""
        train, dev = division
        return Fold(name=name, train=self.indices[train], dev=self.indices[dev], test=self.indices[test])


def split_off_dev_by_dialogue(members: UtteranceTable, rest: Indices, seed: int) -> Division:
    """Takes a tenth of the dialogues for dev, at least one, stratified by class; returns train and dev.

    An utterance without a dialogue counts as one of its own.
    """
    return split_off_dev_by_group(members, rest, members.dialogue_groups, seed)


def split_off_dev_by_speaker(members: UtteranceTable, rest: Indices, seed: int) -> Division:
    """Takes a tenth of the speakers for dev, at least one; returns train and dev.

    Speakers who share a dialogue stay together.

    Raises:
        MmerError: if there is but one, or one circle of them.
    """
    from sklearn.model_selection import GroupShuffleSplit

    groups = members.speaker_groups[rest]
    count = len(set(groups))
    if count < 2:
        there = ", ".join(sorted(set(members.speakers[rest])))
        raise MmerError(f"too few speakers are left to train on for a dev part: {there}; choose another --protocol")
    splitter = GroupShuffleSplit(DEV_SHARE, test_size=max(1, round(count / DEV_SHARE)), random_state=seed)
    return _best(members.classes[rest], groups, rest, _draws(splitter, members.classes[rest], groups))


def split_off_dev_by_group(members: UtteranceTable, rest: Indices, groups: npt.NDArray[np.str_], seed: int) -> Division:
    """Takes a tenth of any groups for dev, at least one, stratified by class; returns train and dev.

    Args:
        members: the utterances that take part.
        rest: places among them that are not test.
        groups: what stays together, one name for each member; ids where nothing does.
        seed: the data seed.

    Raises:
        MmerError: if there is too little to take a part of.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    groups, classes = groups[rest], members.classes[rest]
    count = len(set(groups))
    parts = min(DEV_SHARE, count, int(np.bincount(classes).max(initial=0)))
    if parts < 2:
        raise MmerError(f"too little to train on: {len(rest)} utterances in {count} dialogues, dev needs some of them")
    # the same where every group is one utterance, and in no time for many of them
    kind = StratifiedKFold if count == len(rest) else StratifiedGroupKFold
    return _best(classes, groups, rest, _draws(kind(parts, shuffle=True, random_state=seed), classes, groups))


def _draws(splitter: Any, classes: Indices, groups: npt.NDArray[np.str_] | None = None) -> list[Division]:
    """Draws without the warning about rare classes: that a part lacks one is checked afterwards, and told."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return list(splitter.split(classes, classes, groups))


Splitting: TypeAlias = Callable[[UtteranceTable, int], Iterator[Fold]]


def by_session(members: UtteranceTable, seed: int) -> Iterator[Fold]:
    """Leaves one session out after the other; dev are training dialogues."""
    for name, rest, test in _leave_out(members.named("session")):
        yield members.fold(name, split_off_dev_by_dialogue(members, rest, seed), test)


def by_last_session(members: UtteranceTable, seed: int) -> Iterator[Fold]:
    """Tests on session 5 alone; dev are training dialogues."""
    sessions = members.named("session")
    if LAST_SESSION not in sessions:
        there = ", ".join(sorted(set(sessions)))
        raise MmerError(f"protocol session5 tests on session 5, there are {there}; choose another --protocol")
    last = sessions == LAST_SESSION
    yield members.fold(
        LAST_SESSION, split_off_dev_by_dialogue(members, np.flatnonzero(~last), seed), np.flatnonzero(last)
    )


def by_speaker(members: UtteranceTable, _: int) -> Iterator[Fold]:
    """Leaves one speaker out after the other; dev is who spoke in the same session."""
    sessions = members.named("session")
    for name, rest, test in _leave_out(members.named("speaker")):
        partner = np.isin(sessions[rest], sessions[test])
        yield members.fold(name, (rest[~partner], rest[partner]), test)


def by_random_fifth(members: UtteranceTable, seed: int) -> Iterator[Fold]:
    """Draws five fifths of the utterances by class; dev is drawn from the rest in the same way."""
    from sklearn.model_selection import StratifiedKFold

    if max(np.bincount(members.classes)) < FIFTHS:
        raise MmerError("protocol random5 needs five utterances of a class; choose another --protocol")
    splitter = StratifiedKFold(FIFTHS, shuffle=True, random_state=seed)
    for number, (rest, test) in enumerate(_draws(splitter, members.classes), start=1):
        yield members.fold(str(number), split_off_dev_by_group(members, rest, members.ids, seed), test)


def by_published_split(members: UtteranceTable, seed: int) -> Iterator[Fold]:
    """Takes the published split; where it has no dev, dev are training dialogues."""
    parts = np.array([PART_NAMES.get(split.lower(), "") for split in members.splits])
    odd = np.flatnonzero(parts == "")
    if len(odd):
        raise MmerError(
            f"{len(odd)} of {len(parts)} utterances are in no published split (first: {members.ids[odd[0]]}, split "
            f"{str(members.splits[odd[0]])!r}); allowed: {', '.join(PART_NAMES)}; or choose another --protocol"
        )
    train, dev, test = (np.flatnonzero(parts == part) for part in ("train", "dev", "test"))
    yield members.fold("official", (train, dev) if len(dev) else split_off_dev_by_dialogue(members, train, seed), test)


def by_emobox_actors(members: UtteranceTable, seed: int) -> Iterator[Fold]:
    """Takes EmoBox's six folds of four actors; dev are training actors."""
    fold_of = {actor: name for name, actors in EMOBOX_ACTORS.items() for actor in actors}
    unknown = sorted(set(members.speakers) - fold_of.keys())
    if unknown:
        raise MmerError(
            f"protocol actor6 is for actors 01 to 24 of RAVDESS, there is {str(unknown[0])!r}; "
            "take actor5 for other speakers"
        )
    for name, rest, test in _leave_out(np.array([fold_of[actor] for actor in members.named("speaker")])):
        yield members.fold(name, split_off_dev_by_speaker(members, rest, seed), test)


def by_actor_group(members: UtteranceTable, seed: int) -> Iterator[Fold]:
    """Tests on five groups of speakers, as equal in size as can be; dev are training speakers.

    Speakers who share a dialogue stay together.
    """
    from sklearn.model_selection import GroupKFold

    members.named("speaker")
    circles = members.speaker_groups
    count = len(set(circles))
    if count < 3:
        raise MmerError(
            f"protocol actor5 needs a group of speakers for each of train, dev and test; of those who share no "
            f"dialogue there are {count}; choose another --protocol"
        )
    splitter = GroupKFold(min(FIFTHS, count))
    for number, (rest, test) in enumerate(splitter.split(circles, groups=circles), start=1):
        yield members.fold(str(number), split_off_dev_by_speaker(members, rest, seed), test)


def _lowest(values: Indices, groups: Indices) -> Indices:
    """Gives the lowest value of each place's group, ``(n,)``."""
    lowest = np.full(groups.max() + 1, values.max())
    np.minimum.at(lowest, groups, values)
    return lowest[groups]


def _best(classes: Indices, groups: npt.NDArray[np.str_], rest: Indices, draws: Sequence[Division]) -> Division:
    """Takes the draw with most classes in train, then in dev, then the one nearest to a tenth of the groups."""
    tenth = len(set(groups)) / DEV_SHARE

    def worth(division: Division) -> tuple[int, int, float]:
        train, dev = division
        return len(set(classes[train])), len(set(classes[dev])), -abs(len(set(groups[dev])) - tenth)

    train, dev = max((division for division in draws if len(division[1])), key=worth)
    return rest[train], rest[dev]


def _leave_out(groups: npt.NDArray[np.str_]) -> Iterator[tuple[str, Indices, Indices]]:
    from sklearn.model_selection import LeaveOneGroupOut

    if len(set(groups)) < 2:
        raise MmerError(f"there is nothing but fold {groups[0]}, so nothing to train on; choose another --protocol")
    for rest, test in LeaveOneGroupOut().split(groups, groups=groups):
        yield str(groups[test[0]]), rest, test
