"""The dev part of a fold: a tenth of what is not test, taken whole dialogue by dialogue or speaker by speaker."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold, StratifiedKFold

from cache.errors import MmerError
from fusion.members import Division, Members, Places

DEV_SHARE = 10  # dev is a tenth of what is not test (systems.md C-2)


def dev_dialogues(members: Members, rest: Places, seed: int) -> Division:
    """Takes a tenth of the dialogues for dev, at least one, stratified by class; returns train and dev.

    An utterance without a dialogue counts as one of its own.
    """
    return dev_groups(members, rest, members.groups, seed)


def dev_speakers(members: Members, rest: Places, seed: int) -> Division:
    """Takes a tenth of the speakers for dev, at least one; returns train and dev.

    Speakers who share a dialogue stay together.

    Raises:
        MmerError: if there is but one, or one circle of them.
    """
    groups = members.circles[rest]
    count = len(set(groups))
    if count < 2:
        there = ", ".join(sorted(set(members.speakers[rest])))
        raise MmerError(f"too few speakers are left to train on for a dev part: {there}; choose another --protocol")
    splitter = GroupShuffleSplit(DEV_SHARE, test_size=max(1, round(count / DEV_SHARE)), random_state=seed)
    return _best(members.classes[rest], groups, rest, drawn(splitter, members.classes[rest], groups))


def dev_groups(members: Members, rest: Places, groups: npt.NDArray[np.str_], seed: int) -> Division:
    """Takes a tenth of any groups for dev, at least one, stratified by class; returns train and dev.

    Args:
        members: the utterances that take part.
        rest: places among them that are not test.
        groups: what stays together, one name for each member; ids where nothing does.
        seed: the data seed.

    Raises:
        MmerError: if there is too little to take a part of.
    """
    groups, classes = groups[rest], members.classes[rest]
    count = len(set(groups))
    parts = min(DEV_SHARE, count, int(np.bincount(classes).max(initial=0)))
    if parts < 2:
        raise MmerError(f"too little to train on: {len(rest)} utterances in {count} dialogues, dev needs some of them")
    # the same where every group is one utterance, and in no time for many of them
    kind = StratifiedKFold if count == len(rest) else StratifiedGroupKFold
    return _best(classes, groups, rest, drawn(kind(parts, shuffle=True, random_state=seed), classes, groups))


def _best(classes: Places, groups: npt.NDArray[np.str_], rest: Places, draws: Sequence[Division]) -> Division:
    """Takes the draw with most classes in train, then in dev, then the one nearest to a tenth of the groups."""
    tenth = len(set(groups)) / DEV_SHARE

    def worth(division: Division) -> tuple[int, int, float]:
        train, dev = division
        return len(set(classes[train])), len(set(classes[dev])), -abs(len(set(groups[dev])) - tenth)

    train, dev = max((division for division in draws if len(division[1])), key=worth)
    return rest[train], rest[dev]


def drawn(splitter: Any, classes: Places, groups: npt.NDArray[np.str_] | None = None) -> list[Division]:
    """Draws without the warning about rare classes: that a part lacks one is checked afterwards, and told."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return list(splitter.split(classes, classes, groups))
