"""Development subsets: drawn from the utterances outside test, as whole dialogues or as whole speakers.

Of speakers, the share of the utterances counts and not the number of speakers, who may have recorded very different
amounts: dev aims at `SPEAKER_SHARE` of the utterances, with several speakers where there are several and with the
classes in view (docs/decisions.md#development-subsets). Of dialogues, dev is a tenth, stratified by class.

scikit-learn takes over a second to import: the functions that draw with it import it.
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.utterance import Utterance
from fusion.arrays import ClassIds, Indices

if TYPE_CHECKING:
    from fusion.protocols.folds import Fold, UtteranceTable

Division: TypeAlias = tuple[Indices, Indices]  # positions in an `UtteranceTable`: what remains, what is held out

DIALOGUES, SPEAKERS, UTTERANCES = "dialogues", "speakers", "utterances"  # units that a development subset consists of
DEV_SHARE = 10  # a tenth of the dialogues or utterances outside test (docs/decisions.md#c-2)
SPEAKER_SHARE = 0.1  # of the utterances outside test, for whole speakers (docs/decisions.md#development-subsets)
MOST_SHARE = 0.25  # of the utterances outside test; more only if a single speaker has more
SEVERAL = 2  # speakers of dev at least, where that many are at most `MOST_SHARE` of all
FEWEST_SPEAKERS = 4  # outside test, for dev by speakers where a protocol does not promise it
SPEAKER_DRAWS = 100  # random orders of the speakers, of which the best beginning is dev


def dev_of_rest(table: "UtteranceTable", rest: Indices, test: Indices, seed: int) -> tuple[Division, str]:
    """Splits off dev by dialogue; by speaker if there are no dialogues and test is speaker-independent.

    Without dialogues, dev would be single utterances of training speakers, which says nothing about unknown speakers.

    Args:
        table: utterances that take part.
        rest: positions in the table outside the test subset, int64 ``(n,)``.
        test: positions of the test subset.
        seed: data seed.

    Returns:
        Positions of the training and of the development subset, and the unit that dev consists of.

    Raises:
        MmerError: if there is too little to split.
    """
    speakers = {*table.speakers[rest].tolist()}
    apart = "" not in speakers and not speakers & {*table.speakers[test].tolist()}
    enough = len({*table.speaker_groups[rest].tolist()}) >= FEWEST_SPEAKERS
    if apart and enough and not table.earlier_dev and not (table.dialogues[rest] != "").any():
        return split_off_dev_by_speaker(table, rest, seed), SPEAKERS
    return split_off_dev_by_dialogue(table, rest, seed), DIALOGUES


def split_off_dev_by_dialogue(table: "UtteranceTable", rest: Indices, seed: int) -> Division:
    """Splits off a tenth of the dialogues as dev, at least one, stratified by class.

    An utterance without a dialogue counts as a dialogue of its own. Arguments and result are those of
    `split_off_dev_by_group`.
    """
    return split_off_dev_by_group(table, rest, table.dialogue_groups, seed)


def split_off_dev_by_speaker(table: "UtteranceTable", rest: Indices, seed: int) -> Division:
    """Splits off whole speakers as dev, with about `SPEAKER_SHARE` of the utterances.

    Of random sets of speakers, the one is used whose training subset has most classes, that has at most `MOST_SHARE` of
    the utterances, whose dev has most classes and `SEVERAL` speakers where there are enough, and that is nearest to the
    share and to the distribution of the classes. Speakers who share a dialogue stay together.

    Args:
        table: utterances that take part.
        rest: positions in the table outside the test subset, int64 ``(n,)``.
        seed: data seed.

    Returns:
        Positions of the training and of the development subset.

    Raises:
        MmerError: if there is only one speaker, or one group of speakers.
    """
    names, groups = np.unique(table.speaker_groups[rest], return_inverse=True)
    if len(names) < 2:
        speakers = ", ".join(sorted(set(table.speakers[rest])))
        raise MmerError(
            f"too few speakers outside test ({speakers}); expected at least two without a common dialogue, for train "
            "and dev; choose another --protocol"
        )
    if table.earlier_dev:
        return _tenth_of_speakers(table, rest, seed)
    held = np.isin(groups, _draw_speakers(groups, table.classes[rest], seed))
    return rest[~held], rest[held]


def split_off_dev_by_group(table: "UtteranceTable", rest: Indices, groups: npt.NDArray[np.str_], seed: int) -> Division:
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
    return _best_draw(
        classes, groups, rest, draw_divisions(kind(splits, shuffle=True, random_state=seed), classes, groups)
    )


def draw_divisions(splitter: Any, classes: ClassIds, groups: npt.NDArray[np.str_] | None = None) -> list[Division]:
    """Returns the draws of a splitter of scikit-learn without its warning about rare classes.

    A check and a note of each fold follow later.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return list(splitter.split(classes, classes, groups))


def dev_words(folds: "Sequence[Fold]", utterances: Sequence[Utterance]) -> str:
    """Returns how dev was drawn, in words, with the numbers of speakers and the share; empty if it is given.

    Args:
        folds: folds of a protocol.
        utterances: all utterances of the cache.
    """
    drawn = [fold for fold in folds if fold.dev_of]
    of_speakers = [fold for fold in drawn if fold.dev_of == SPEAKERS]
    others = dict.fromkeys(f"a tenth of the training {fold.dev_of}" for fold in drawn if fold.dev_of != SPEAKERS)
    if not of_speakers:
        return f"dev is {', or '.join(others)}" if drawn else ""
    names = [
        [{utterances[index].speaker for index in subset.tolist()} for subset in (fold.dev, fold.train)]
        for fold in of_speakers
    ]
    counts = _span([len(dev) for dev, _ in names]), _span([len(dev | train) for dev, train in names])
    shares = [round(100 * len(fold.dev) / (len(fold.dev) + len(fold.train))) for fold in of_speakers]
    words = f"whole training speakers: {counts[0]} of {counts[1]}, {_span(shares)}% of the utterances outside test"
    return f"dev is {', or '.join([words, *others])}"


def _draw_speakers(groups: Indices, classes: ClassIds, seed: int) -> Indices:
    """Selects the groups of speakers of dev from the group and the class of each utterance, int64 ``(speakers,)``."""
    count = int(groups.max()) + 1
    by_group = np.zeros((count, int(classes.max()) + 1))
    np.add.at(by_group, (groups, classes), 1)
    total = by_group.sum(axis=0)  # (classes,)
    several = max(1, min(SEVERAL, int(MOST_SHARE * count)))
    generator = np.random.default_rng(seed)
    orders = np.stack([generator.permutation(count) for _ in range(SPEAKER_DRAWS)])  # (draws, speakers)
    held = by_group[orders].cumsum(axis=1)[:, :-1]  # (draws, sets, classes): the first speaker, the first two, ...
    members = held.sum(axis=2)
    share = members / total.sum()
    skew = np.abs(held / members[..., None] - total / total.sum()).sum(axis=2) / 2
    ranks = [  # the first matters most; less is better
        -(total > held).sum(axis=2),
        share > MOST_SHARE,
        -(held > 0).sum(axis=2),
        np.broadcast_to(np.arange(1, count) < several, share.shape),
        np.round(np.abs(share - SPEAKER_SHARE) + skew, 9),  # rounded: an equal set in another order is equal
    ]
    draw, last = divmod(int(np.lexsort([rank.ravel() for rank in reversed(ranks)])[0]), count - 1)
    return orders[draw, : last + 1]


def _tenth_of_speakers(table: "UtteranceTable", rest: Indices, seed: int) -> Division:
    """Splits off a tenth of the number of speakers, at least one, as version 0.1 did."""
    from sklearn.model_selection import GroupShuffleSplit

    groups = table.speaker_groups[rest]
    size = max(1, round(len(set(groups)) / DEV_SHARE))
    splitter = GroupShuffleSplit(DEV_SHARE, test_size=size, random_state=seed)
    return _best_draw(table.classes[rest], groups, rest, draw_divisions(splitter, table.classes[rest], groups))


def _best_draw(classes: ClassIds, groups: npt.NDArray[np.str_], rest: Indices, draws: Sequence[Division]) -> Division:
    """Selects the draw with most classes in train, then in dev, then the size nearest to a tenth of the groups."""
    tenth = len(set(groups)) / DEV_SHARE

    def rank(division: Division) -> tuple[int, int, float]:
        train, dev = division
        return len(set(classes[train])), len(set(classes[dev])), -abs(len(set(groups[dev])) - tenth)

    train, dev = max((division for division in draws if len(division[1])), key=rank)
    return rest[train], rest[dev]


def _span(values: Sequence[int]) -> str:
    """Formats the least and the greatest of some numbers.

    Example:
        >>> _span([3, 2, 3]), _span([4, 4])
        ('2 to 3', '4')
    """
    least, most = min(values), max(values)
    return str(least) if least == most else f"{least} to {most}"
