"""How each protocol divides the utterances of a label set into folds; scikit-learn does the drawing.

A fold depends on the utterances and on the data seed, never on the seed of a model. What the folds of a protocol
promise stands in `fusion.protocols`, and is checked there on every one of them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, StratifiedKFold

from cache.errors import MmerError
from fusion.development import dev_dialogues, dev_groups, dev_speakers, drawn
from fusion.members import Fold, Members, Places

Splitting: TypeAlias = Callable[[Members, int], Iterator[Fold]]

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


def by_session(members: Members, seed: int) -> Iterator[Fold]:
    """Leaves one session out after the other; dev are training dialogues."""
    for name, rest, test in _leave_out(members.named("session")):
        yield members.fold(name, dev_dialogues(members, rest, seed), test)


def by_last_session(members: Members, seed: int) -> Iterator[Fold]:
    """Tests on session 5 alone; dev are training dialogues."""
    sessions = members.named("session")
    if LAST_SESSION not in sessions:
        there = ", ".join(sorted(set(sessions)))
        raise MmerError(f"protocol session5 tests on session 5, there are {there}; choose another --protocol")
    last = sessions == LAST_SESSION
    yield members.fold(LAST_SESSION, dev_dialogues(members, np.flatnonzero(~last), seed), np.flatnonzero(last))


def by_speaker(members: Members, _: int) -> Iterator[Fold]:
    """Leaves one speaker out after the other; dev is who spoke in the same session."""
    sessions = members.named("session")
    for name, rest, test in _leave_out(members.named("speaker")):
        partner = np.isin(sessions[rest], sessions[test])
        yield members.fold(name, (rest[~partner], rest[partner]), test)


def by_random_fifth(members: Members, seed: int) -> Iterator[Fold]:
    """Draws five fifths of the utterances by class; dev is drawn from the rest in the same way."""
    if max(np.bincount(members.classes)) < FIFTHS:
        raise MmerError("protocol random5 needs five utterances of a class; choose another --protocol")
    splitter = StratifiedKFold(FIFTHS, shuffle=True, random_state=seed)
    for number, (rest, test) in enumerate(drawn(splitter, members.classes), start=1):
        yield members.fold(str(number), dev_groups(members, rest, members.ids, seed), test)


def by_published_split(members: Members, seed: int) -> Iterator[Fold]:
    """Takes the published split; where it has no dev, dev are training dialogues."""
    parts = np.array([PART_NAMES.get(split.lower(), "") for split in members.splits])
    odd = np.flatnonzero(parts == "")
    if len(odd):
        raise MmerError(
            f"{len(odd)} of {len(parts)} utterances are in no published split (first: {members.ids[odd[0]]}, split "
            f"{str(members.splits[odd[0]])!r}); allowed: {', '.join(PART_NAMES)}; or choose another --protocol"
        )
    train, dev, test = (np.flatnonzero(parts == part) for part in ("train", "dev", "test"))
    yield members.fold("official", (train, dev) if len(dev) else dev_dialogues(members, train, seed), test)


def by_emobox_actors(members: Members, seed: int) -> Iterator[Fold]:
    """Takes EmoBox's six folds of four actors; dev are training actors."""
    fold_of = {actor: name for name, actors in EMOBOX_ACTORS.items() for actor in actors}
    unknown = sorted(set(members.speakers) - fold_of.keys())
    if unknown:
        raise MmerError(
            f"protocol actor6 is for actors 01 to 24 of RAVDESS, there is {str(unknown[0])!r}; "
            "take actor5 for other speakers"
        )
    for name, rest, test in _leave_out(np.array([fold_of[actor] for actor in members.named("speaker")])):
        yield members.fold(name, dev_speakers(members, rest, seed), test)


def by_actor_group(members: Members, seed: int) -> Iterator[Fold]:
    """Tests on five groups of speakers, as equal in size as can be; dev are training speakers.

    Speakers who share a dialogue stay together.
    """
    members.named("speaker")
    circles = members.circles
    count = len(set(circles))
    if count < 3:
        raise MmerError(
            f"protocol actor5 needs a group of speakers for each of train, dev and test; of those who share no "
            f"dialogue there are {count}; choose another --protocol"
        )
    splitter = GroupKFold(min(FIFTHS, count))
    for number, (rest, test) in enumerate(splitter.split(circles, groups=circles), start=1):
        yield members.fold(str(number), dev_speakers(members, rest, seed), test)


def _leave_out(groups: npt.NDArray[np.str_]) -> Iterator[tuple[str, Places, Places]]:
    if len(set(groups)) < 2:
        raise MmerError(f"there is nothing but fold {groups[0]}, so nothing to train on; choose another --protocol")
    for rest, test in LeaveOneGroupOut().split(groups, groups=groups):
        yield str(groups[test[0]]), rest, test
