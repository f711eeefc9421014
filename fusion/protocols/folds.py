"""Folds: the utterances that take part, and one function for each protocol that splits them; scikit-learn draws.

A fold depends on the utterances and on the data seed, never on the seed of a model. The development subset is a tenth
of the utterances outside test, taken as whole dialogues or speakers. `fusion.protocols.catalog` states the promises of
each protocol and checks them on every fold.

scikit-learn takes over a second to import: the functions that draw import it, so that protocols can be listed and
looked up without it.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.utterance import SUBSET_NAMES, Utterance
from fusion.arrays import ClassIds, Indices

DEV_SHARE = 10  # the development subset is a tenth of what is not test (docs/decisions.md#c-2)
FIFTHS = 5
DRAWS = 10  # draws of speaker groups, of which the one with most classes in every test subset is used
TRAIN, DEV, TEST = "train", "dev", "test"
SEVERAL_TESTS = re.compile(r"test[-_ ]?\d+")  # names of one of several test subsets, such as Test1 of MSP-Podcast
LAST_SESSION = "5"  # the test session of the six-class convention (docs/decisions.md#c-2)

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

NO_PARTS: Mapping[str, Indices] = {}
Division: TypeAlias = tuple[Indices, Indices]  # positions in an `UtteranceTable`: what remains, what is held out


@dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """One division into training, development and test subset.

    Attributes:
        name: name of the test subset (a session, a speaker), or the number of the fold.
        train: training subset: positions among all utterances of the cache, int64 ``(n,)``, ascending.
        dev: development subset, likewise.
        test: test subset, likewise.
        parts: name -> the utterances of `test` in one of several test subsets, which are scored apart too; empty for
            a single test subset.
    """

    name: str
    train: Indices
    dev: Indices
    test: Indices
    parts: Mapping[str, Indices] = field(default_factory=dict)

    @property
    def subsets(self) -> dict[str, Indices]:
        """The three subsets by name: ``train``, ``dev``, ``test``."""
        return {"train": self.train, "dev": self.dev, "test": self.test}


@dataclass(frozen=True, kw_only=True, eq=False)
class UtteranceTable:
    """The utterances that take part in a protocol, column by column, each ``(n,)``.

    Attributes:
        indices: positions among all utterances of the cache, int64.
        classes: class indices, int64.
        ids: utterance ids.
        speakers: speakers; empty where unknown.
        sessions: sessions; empty where unknown.
        dialogues: dialogues; empty where unknown.
        splits: names in a published split; empty where unknown.
    """

    indices: Indices
    classes: ClassIds
    ids: npt.NDArray[np.str_]
    speakers: npt.NDArray[np.str_]
    sessions: npt.NDArray[np.str_]
    dialogues: npt.NDArray[np.str_]
    splits: npt.NDArray[np.str_]

    @classmethod
    def of(cls, utterances: Sequence[Utterance], classes: ClassIds) -> "UtteranceTable":
        """Selects the utterances whose class is not -1.

        Args:
            utterances: all utterances of the cache.
            classes: class index of each, int64 ``(n,)``.
        """
        indices = np.flatnonzero(classes >= 0)
        selected = [utterances[index] for index in indices.tolist()]
        return cls(
            indices=indices,
            classes=classes[indices],
            ids=np.array([utterance.id for utterance in selected]),
            speakers=np.array([utterance.speaker for utterance in selected]),
            sessions=np.array([utterance.session for utterance in selected]),
            dialogues=np.array([utterance.dialogue for utterance in selected]),
            splits=np.array([utterance.split for utterance in selected]),
        )

    @cached_property
    def dialogue_groups(self) -> npt.NDArray[np.str_]:
        """The dialogue of each utterance; an utterance without a dialogue is a group of its own."""
        alone = np.char.add("utterance ", self.ids)  # an id alone may be the name of a dialogue
        return np.where(self.dialogues == "", alone, self.dialogues)

    @cached_property
    def speaker_groups(self) -> npt.NDArray[np.str_]:
        """The speaker group of each utterance, named by its first speaker.

        A group contains all speakers who share a dialogue, directly or through others.
        """
        speakers, speaker_ids = np.unique(self.speakers, return_inverse=True)
        dialogue_ids = np.unique(self.dialogue_groups, return_inverse=True)[1]
        groups, previous = speaker_ids, np.full_like(speaker_ids, -1)
        while (groups != previous).any():
            previous, groups = groups, _group_minimum(_group_minimum(groups, dialogue_ids), speaker_ids)
        return speakers[groups]

    def complete_column(self, column: str) -> npt.NDArray[np.str_]:
        """Returns a column after a check that it has no gaps and at least two values.

        Args:
            column: ``speaker`` or ``session``.

        Raises:
            MmerError: if a value is missing, or all values are equal.
        """
        values: npt.NDArray[np.str_] = getattr(self, f"{column}s")
        gaps = np.flatnonzero(values == "")
        if len(gaps):
            raise MmerError(
                f"{len(gaps)} of {len(values)} utterances have no {column} (first: {self.ids[gaps[0]]}); "
                "fill the column in, or choose another --protocol"
            )
        if len(set(values)) < 2:
            raise MmerError(f"all utterances have the same {column} ({values[0]}); choose another --protocol")
        return values

    def fold(self, name: str, division: Division, test: Indices, *, parts: Mapping[str, Indices] = NO_PARTS) -> Fold:
        """Builds a fold from positions in this table.

        Args:
            name: name of the fold.
            division: training and development subset.
            test: test subset.
            parts: test subsets that `test` consists of; a single one is not kept apart.
        """
        train, dev = division
        several = {part: self.indices[held] for part, held in parts.items()} if len(parts) > 1 else {}
        return Fold(name=name, train=self.indices[train], dev=self.indices[dev], test=self.indices[test], parts=several)


def subset_of(name: str) -> str:
    """Returns the subset of a name in a published split: ``train``, ``dev``, ``test``; empty if it is unknown.

    Example:
        >>> [subset_of(name) for name in ("Development", "Test1", "held-out")]
        ['dev', 'test', '']
    """
    plain = name.lower()
    return SUBSET_NAMES.get(plain, TEST if SEVERAL_TESTS.fullmatch(plain) else "")


SplitFunction: TypeAlias = Callable[[UtteranceTable, int], Iterator[Fold]]  # from the utterances and the data seed


def by_session(table: UtteranceTable, seed: int) -> Iterator[Fold]:
    """Leaves out one session after the other; dev consists of training dialogues."""
    for name, rest, test in _leave_one_out(table.complete_column("session")):
        yield table.fold(name, split_off_dev_by_dialogue(table, rest, seed), test)


def by_last_session(table: UtteranceTable, seed: int) -> Iterator[Fold]:
    """Tests on session 5 only; dev consists of training dialogues."""
    sessions = table.complete_column("session")
    if LAST_SESSION not in sessions:
        known = ", ".join(sorted(set(sessions)))
        raise MmerError(f"protocol session5 tests on session 5, which is not among {known}; choose another --protocol")
    last = sessions == LAST_SESSION
    division = split_off_dev_by_dialogue(table, np.flatnonzero(~last), seed)
    yield table.fold(LAST_SESSION, division, np.flatnonzero(last))


def by_speaker(table: UtteranceTable, _: int) -> Iterator[Fold]:
    """Leaves out one speaker after the other; dev is the other speaker of the same session."""
    sessions = table.complete_column("session")
    for name, rest, test in _leave_one_out(table.complete_column("speaker")):
        partner = np.isin(sessions[rest], sessions[test])
        yield table.fold(name, (rest[~partner], rest[partner]), test)


def by_random_fifth(table: UtteranceTable, seed: int) -> Iterator[Fold]:
    """Splits the utterances into five stratified fifths; dev is drawn from the others in the same way."""
    from sklearn.model_selection import StratifiedKFold

    if (most := max(np.bincount(table.classes))) < FIFTHS:
        raise MmerError(
            f"protocol random5 needs a class with at least {FIFTHS} utterances, the largest has {most}; "
            "choose another --protocol"
        )
    splitter = StratifiedKFold(FIFTHS, shuffle=True, random_state=seed)
    for number, (rest, test) in enumerate(_draws(splitter, table.classes), start=1):
        yield table.fold(str(number), split_off_dev_by_group(table, rest, table.ids, seed), test)


def by_published_split(table: UtteranceTable, seed: int) -> Iterator[Fold]:
    """Selects the published split; if it has no dev, dev consists of training dialogues.

    Several test subsets (``Test1``, ``Test2``) are the parts of the fold.
    """
    subsets = np.array([subset_of(split) for split in table.splits.tolist()])
    unknown = np.flatnonzero(subsets == "")
    if len(unknown):
        raise MmerError(
            f"{len(unknown)} of {len(subsets)} utterances have no known split (first: {table.ids[unknown[0]]}, split "
            f"{str(table.splits[unknown[0]])!r}); allowed: {', '.join(SUBSET_NAMES)}, test1, test2, ...; or choose "
            "another --protocol"
        )
    train, dev, test = (np.flatnonzero(subsets == subset) for subset in (TRAIN, DEV, TEST))
    names = np.char.lower(table.splits)
    parts = {name: np.flatnonzero(names == name) for name in sorted({*names[test].tolist()})}
    division = (train, dev) if len(dev) else split_off_dev_by_dialogue(table, train, seed)
    yield table.fold("official", division, test, parts=parts)


def by_emobox_actors(table: UtteranceTable, seed: int) -> Iterator[Fold]:
    """Selects EmoBox's six folds of four actors; dev consists of training actors."""
    fold_of = {actor: name for name, actors in EMOBOX_ACTORS.items() for actor in actors}
    unknown = sorted(set(table.speakers) - fold_of.keys())
    if unknown:
        raise MmerError(
            f"protocol actor6 expects actors 01 to 24 of RAVDESS, got {str(unknown[0])!r}; "
            "choose actor5 for other speakers"
        )
    for name, rest, test in _leave_one_out(np.array([fold_of[actor] for actor in table.complete_column("speaker")])):
        yield table.fold(name, split_off_dev_by_speaker(table, rest, seed), test)


def by_actor_group(table: UtteranceTable, seed: int) -> Iterator[Fold]:
    """Tests on five groups of speakers of similar size; dev consists of training speakers.

    Speakers who share a dialogue stay together. The groups are drawn without the classes; only if a group lacks a class
    then, they are those of `by_speaker_groups`.
    """
    from sklearn.model_selection import GroupKFold

    table.complete_column("speaker")
    groups = table.speaker_groups
    count = len(set(groups))
    if count < 3:
        raise MmerError(
            "protocol actor5 needs at least 3 groups of speakers without a common dialogue, for train, dev and test, "
            f"got {count}; choose another --protocol"
        )
    draw = list(GroupKFold(min(FIFTHS, count)).split(groups, groups=groups))
    if _lacking(table.classes, draw):
        draw = min(
            [draw, _draw_groups(table.classes, groups, min(FIFTHS, count))], key=partial(_lacking, table.classes)
        )
    for number, (rest, test) in enumerate(draw, start=1):
        yield table.fold(str(number), split_off_dev_by_speaker(table, rest, seed), test)


def by_speaker_groups(table: UtteranceTable, seed: int, *, count: int) -> Iterator[Fold]:
    """Tests on a number of groups of speakers with similar classes; dev consists of training speakers.

    Speakers who share a dialogue stay together. The groups do not depend on the data seed.
    """
    table.complete_column("speaker")
    groups = table.speaker_groups
    held = len(set(groups))
    if held < max(count, 3):
        way_out = f"choose speakers:{held} or loso" if held > 2 else "choose another --protocol"
        raise MmerError(
            f"protocol speakers:{count} needs {max(count, 3)} groups of speakers without a common dialogue, for train, "
            f"dev and test, got {held}; {way_out}"
        )
    for number, (rest, test) in enumerate(_draw_groups(table.classes, groups, count), start=1):
        yield table.fold(str(number), split_off_dev_by_speaker(table, rest, seed), test)


def by_single_speaker(table: UtteranceTable, seed: int) -> Iterator[Fold]:
    """Leaves out one speaker after the other; dev consists of the partners in dialogue, else of training speakers."""
    groups = table.speaker_groups
    for name, rest, test in _leave_one_out(table.complete_column("speaker")):
        partners = groups[rest] == groups[test[0]]
        if partners.any() and not partners.all():
            yield table.fold(name, (rest[~partners], rest[partners]), test)
        else:
            yield table.fold(name, split_off_dev_by_speaker(table, rest, seed), test)


def split_off_dev_by_dialogue(table: UtteranceTable, rest: Indices, seed: int) -> Division:
    """Splits off a tenth of the dialogues as dev, at least one, stratified by class.

    An utterance without a dialogue counts as a dialogue of its own. Arguments and result are those of
    `split_off_dev_by_group`.
    """
    return split_off_dev_by_group(table, rest, table.dialogue_groups, seed)


def split_off_dev_by_speaker(table: UtteranceTable, rest: Indices, seed: int) -> Division:
    """Splits off a tenth of the speakers as dev, at least one.

    Speakers who share a dialogue stay together.

    Args:
        table: utterances that take part.
        rest: positions in the table outside the test subset, int64 ``(n,)``.
        seed: data seed.

    Returns:
        Positions of the training and of the development subset.

    Raises:
        MmerError: if there is only one speaker, or one group of speakers.
    """
    from sklearn.model_selection import GroupShuffleSplit

    groups = table.speaker_groups[rest]
    count = len(set(groups))
    if count < 2:
        speakers = ", ".join(sorted(set(table.speakers[rest])))
        raise MmerError(
            f"too few speakers outside test ({speakers}); expected at least two without a common dialogue, for train "
            "and dev; choose another --protocol"
        )
    splitter = GroupShuffleSplit(DEV_SHARE, test_size=max(1, round(count / DEV_SHARE)), random_state=seed)
    return _best_draw(table.classes[rest], groups, rest, _draws(splitter, table.classes[rest], groups))


def split_off_dev_by_group(table: UtteranceTable, rest: Indices, groups: npt.NDArray[np.str_], seed: int) -> Division:
    """Splits off a tenth of the groups as dev, at least one, stratified by class.

    Args:
        table: utterances that take part.
        rest: positions in the table outside the test subset, int64 ``(n,)``.
        groups: group of each utterance of the table, whose members stay together; the ids if nothing stays together.
        seed: data seed.

    Returns:
        Positions of the training and of the development subset.

    Raises:
        MmerError: if there are too few groups or utterances to split.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    groups, classes = groups[rest], table.classes[rest]
    count = len(set(groups))
    splits = min(DEV_SHARE, count, int(np.bincount(classes).max(initial=0)))
    if splits < 2:
        raise MmerError(
            f"too few utterances outside test ({len(rest)} in {count} dialogues); expected at least two dialogues and "
            "two utterances of a class, for train and dev; choose another --protocol"
        )
    # equal to StratifiedGroupKFold if every group is one utterance, and much faster for many groups
    kind = StratifiedKFold if count == len(rest) else StratifiedGroupKFold
    return _best_draw(classes, groups, rest, _draws(kind(splits, shuffle=True, random_state=seed), classes, groups))


def _leave_one_out(groups: npt.NDArray[np.str_]) -> Iterator[tuple[str, Indices, Indices]]:
    """Yields the name of each group, the positions of the others and those of the group."""
    from sklearn.model_selection import LeaveOneGroupOut

    if len(set(groups)) < 2:
        raise MmerError(f"all utterances are in test of fold {groups[0]}, none for train; choose another --protocol")
    for rest, test in LeaveOneGroupOut().split(groups, groups=groups):
        yield str(groups[test[0]]), rest, test


def _draws(splitter: Any, classes: ClassIds, groups: npt.NDArray[np.str_] | None = None) -> list[Division]:
    """Draws without scikit-learn's warning about rare classes: a check and a note of each fold follow later."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return list(splitter.split(classes, classes, groups))


def _draw_groups(classes: ClassIds, groups: npt.NDArray[np.str_], count: int) -> list[Division]:
    """Draws groups for the test subsets with similar classes; of several draws, that with most classes in each."""
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    draws = [_draws(StratifiedGroupKFold(count), classes, groups)]
    for seed in range(DRAWS if _lacking(classes, draws[0]) else 0):
        draws.append(_draws(StratifiedGroupKFold(count, shuffle=True, random_state=seed), classes, groups))
    usable = [draw for draw in draws if all(len(test) and len(rest) for rest, test in draw)]
    # a greedy draw may leave a group of few speakers empty; groups of equal size never do
    return min(usable or [_draws(GroupKFold(count), classes, groups)], key=partial(_lacking, classes))


def _lacking(classes: ClassIds, draw: Sequence[Division]) -> int:
    """Counts the classes that test subsets lack, over all folds of a draw."""
    every = len(set(classes.tolist()))
    return sum(every - len(set(classes[test].tolist())) for _, test in draw)


def _best_draw(classes: ClassIds, groups: npt.NDArray[np.str_], rest: Indices, draws: Sequence[Division]) -> Division:
    """Selects the draw with most classes in train, then in dev, then the size nearest to a tenth of the groups."""
    tenth = len(set(groups)) / DEV_SHARE

    def rank(division: Division) -> tuple[int, int, float]:
        train, dev = division
        return len(set(classes[train])), len(set(classes[dev])), -abs(len(set(groups[dev])) - tenth)

    train, dev = max((division for division in draws if len(division[1])), key=rank)
    return rest[train], rest[dev]


def _group_minimum(values: Indices, groups: Indices) -> Indices:
    """Returns the lowest value in the group of each element, int64 ``(n,)``."""
    lowest = np.full(groups.max() + 1, values.max())
    np.minimum.at(lowest, groups, values)
    return lowest[groups]
