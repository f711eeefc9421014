"""Folds: the utterances that take part, and one function for each protocol that splits them; scikit-learn draws.

A fold depends on the utterances and on the data seed, never on the seed of a model. `fusion.protocols.dev` draws the
development subset from the utterances outside test, as whole dialogues or speakers. `fusion.protocols.catalog` states
the promises of each protocol and checks them on every fold.

scikit-learn takes over a second to import: the functions that draw import it, so that protocols can be listed and
looked up without it.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.utterance import SUBSET_NAMES, Utterance
from fusion.arrays import ClassIds, Indices
from fusion.protocols.dev import (
    SPEAKERS,
    UTTERANCES,
    Division,
    dev_of_rest,
    draw_divisions,
    split_off_dev_by_group,
    split_off_dev_by_speaker,
)

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """One division into training, development and test subset.

    Attributes:
        name: name of the test subset (a session, a speaker), or the number of the fold.
        train: training subset: positions among all utterances of the cache, int64 ``(n,)``, ascending.
        dev: development subset, likewise.
        test: test subset, likewise.
        test_parts: name -> the utterances of `test` in one of several test subsets, which are scored apart too; empty
            for a single test subset.
        dev_of: unit that dev was drawn in: ``dialogues``, ``speakers`` or ``utterances``; empty if it was not drawn.
    """

    name: str
    train: Indices
    dev: Indices
    test: Indices
    test_parts: Mapping[str, Indices] = field(default_factory=dict)
    dev_of: str = ""

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
        earlier_dev: draw dev as version 0.1 did, for runs that it began: a tenth of the number of speakers, and
            utterances of training speakers where there are no dialogues.
    """

    indices: Indices
    classes: ClassIds
    ids: npt.NDArray[np.str_]
    speakers: npt.NDArray[np.str_]
    sessions: npt.NDArray[np.str_]
    dialogues: npt.NDArray[np.str_]
    splits: npt.NDArray[np.str_]
    earlier_dev: bool = False

    @classmethod
    def of(cls, utterances: Sequence[Utterance], classes: ClassIds, *, earlier_dev: bool = False) -> "UtteranceTable":
        """Selects the utterances whose class is not -1.

        Args:
            utterances: all utterances of the cache.
            classes: class index of each, int64 ``(n,)``.
            earlier_dev: draw dev as version 0.1 did.
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
            earlier_dev=earlier_dev,
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

    def fold(
        self,
        name: str,
        division: Division,
        test: Indices,
        *,
        dev_of: str = "",
        test_parts: Mapping[str, Indices] = NO_PARTS,
    ) -> Fold:
        """Builds a fold from positions in this table.

        Args:
            name: name of the fold.
            division: training and development subset.
            test: test subset.
            dev_of: unit that dev was drawn in; empty if it was not drawn.
            test_parts: test subsets that `test` consists of; a single one is not kept apart.
        """
        train, dev = division
        several = {part: self.indices[held] for part, held in test_parts.items()} if len(test_parts) > 1 else {}
        return Fold(
            name=name,
            train=self.indices[train],
            dev=self.indices[dev],
            test=self.indices[test],
            test_parts=several,
            dev_of=dev_of,
        )


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
    """Leaves out one session after the other; dev consists of training dialogues, without any of training speakers."""
    for name, rest, test in _leave_one_out(table.complete_column("session")):
        division, unit = dev_of_rest(table, rest, test, seed)
        yield table.fold(name, division, test, dev_of=unit)


def by_last_session(table: UtteranceTable, seed: int) -> Iterator[Fold]:
    """Tests on session 5 only; dev consists of training dialogues, without any of training speakers."""
    sessions = table.complete_column("session")
    if LAST_SESSION not in sessions:
        known = ", ".join(sorted(set(sessions)))
        raise MmerError(f"protocol session5 tests on session 5, which is not among {known}; choose another --protocol")
    test = np.flatnonzero(sessions == LAST_SESSION)
    division, unit = dev_of_rest(table, np.flatnonzero(sessions != LAST_SESSION), test, seed)
    yield table.fold(LAST_SESSION, division, test, dev_of=unit)


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
    for number, (rest, test) in enumerate(draw_divisions(splitter, table.classes), start=1):
        yield table.fold(str(number), split_off_dev_by_group(table, rest, table.ids, seed), test, dev_of=UTTERANCES)


def by_published_split(table: UtteranceTable, seed: int) -> Iterator[Fold]:
    """Selects the published split; if it has no dev, dev is drawn as for sessions.

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
    division, unit = ((train, dev), "") if len(dev) else dev_of_rest(table, train, test, seed)
    yield table.fold("official", division, test, dev_of=unit, test_parts=parts)


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
        yield table.fold(name, split_off_dev_by_speaker(table, rest, seed), test, dev_of=SPEAKERS)


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
        yield table.fold(str(number), split_off_dev_by_speaker(table, rest, seed), test, dev_of=SPEAKERS)


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
        yield table.fold(str(number), split_off_dev_by_speaker(table, rest, seed), test, dev_of=SPEAKERS)


def by_single_speaker(table: UtteranceTable, seed: int) -> Iterator[Fold]:
    """Leaves out one speaker after the other; dev consists of the partners in dialogue, else of training speakers."""
    groups = table.speaker_groups
    for name, rest, test in _leave_one_out(table.complete_column("speaker")):
        partners = groups[rest] == groups[test[0]]
        if partners.any() and not partners.all():
            yield table.fold(name, (rest[~partners], rest[partners]), test)
        else:
            yield table.fold(name, split_off_dev_by_speaker(table, rest, seed), test, dev_of=SPEAKERS)


def _leave_one_out(groups: npt.NDArray[np.str_]) -> Iterator[tuple[str, Indices, Indices]]:
    """Yields the name of each group, the positions of the others and those of the group."""
    if len(set(groups)) < 2:
        raise MmerError(f"all utterances are in test of fold {groups[0]}, none for train; choose another --protocol")
    for name in np.unique(groups).tolist():
        yield str(name), np.flatnonzero(groups != name), np.flatnonzero(groups == name)


def _draw_groups(classes: ClassIds, groups: npt.NDArray[np.str_], count: int) -> list[Division]:
    """Draws groups for the test subsets with similar classes; of several draws, that with most classes in each."""
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    draws = [draw_divisions(StratifiedGroupKFold(count), classes, groups)]
    for seed in range(DRAWS if _lacking(classes, draws[0]) else 0):
        draws.append(draw_divisions(StratifiedGroupKFold(count, shuffle=True, random_state=seed), classes, groups))
    usable = [draw for draw in draws if all(len(test) and len(rest) for rest, test in draw)]
    # a greedy draw may leave a group of few speakers empty; groups of equal size never do
    return min(usable or [draw_divisions(GroupKFold(count), classes, groups)], key=partial(_lacking, classes))


def _lacking(classes: ClassIds, draw: Sequence[Division]) -> int:
    """Counts the classes that test subsets lack, over all folds of a draw."""
    every = len(set(classes.tolist()))
    return sum(every - len(set(classes[test].tolist())) for _, test in draw)


def _group_minimum(values: Indices, groups: Indices) -> Indices:
    """Returns the lowest value in the group of each element, int64 ``(n,)``."""
    lowest = np.full(groups.max() + 1, values.max())
    np.minimum.at(lowest, groups, values)
    return lowest[groups]
