"""Development subsets: whole speakers with a share of the utterances, and the dev of version 0.1."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import MmerError
from cache.utterance import Utterance
from fusion.arrays import Indices
from fusion.protocols.catalog import make_folds, promise_of
from fusion.protocols.dev import FEWEST_SPEAKERS, MOST_SHARE, split_off_dev_by_speaker
from fusion.protocols.folds import Fold, UtteranceTable
from tests.support.rosters import actors, by_label, dyads, show, without

TAKES = st.lists(st.integers(2, 40), min_size=2, max_size=14)  # recordings of each speaker


def roster(takes: Sequence[int], sessions: bool = False) -> list[Utterance]:
    """Speakers with different numbers of recordings, each with two classes; each alone in a session if requested."""
    return [
        Utterance(
            id=f"{speaker}-{take}",
            label=("calm", "sad")[take % 2],
            speaker=f"s{speaker:02}",
            session=str(speaker) if sessions else "",
        )
        for speaker, count in enumerate(takes)
        for take in range(count)
    ]


def speakers(utterances: Sequence[Utterance], subset: Indices) -> set[str]:
    return {utterances[index].speaker for index in subset.tolist()}


def shares(folds: Sequence[Fold]) -> list[float]:
    return [len(fold.dev) / (len(fold.dev) + len(fold.train)) for fold in folds]


@settings(max_examples=40, deadline=None)
@given(TAKES, st.integers(0, 2**32 - 1))
def test_dev_is_whole_speakers_with_a_share_of_the_utterances(takes: list[int], seed: int) -> None:
    utterances = roster(takes)
    table = UtteranceTable.of(utterances, by_label(utterances))
    train, dev = split_off_dev_by_speaker(table, np.arange(len(utterances)), seed)
    assert sorted([*train, *dev]) == list(range(len(utterances)))
    assert len(train)
    assert len(dev)
    assert not speakers(utterances, train) & speakers(utterances, dev)
    if min(takes) / sum(takes) <= MOST_SHARE:  # else every speaker has more than that
        assert len(dev) / len(utterances) <= MOST_SHARE
    else:
        assert len(speakers(utterances, dev)) == 1


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(2, 12), min_size=3, max_size=7),
    st.sampled_from(["session", "speakers:3", "actor5", "loso"]),
    st.booleans(),
    st.integers(0, 99),
)
def test_the_printed_promises_hold_on_every_fold(takes: list[int], protocol: str, pairs: bool, seed: int) -> None:
    """No speaker on two sides; with dialogues between neighbors, none on two sides either."""
    utterances = [
        replace(held, dialogue=f"d{int(held.speaker[1:]) // 2}" if pairs else "")
        for held in roster(takes, sessions=True)
    ]
    try:
        folds = make_folds(utterances, by_label(utterances), protocol, seed)
    except MmerError as error:
        assert any(word in str(error) for word in ("too few", "needs", "choose another --protocol"))  # noqa: PT017
        return
    for fold in folds:
        subsets = [speakers(utterances, subset) for subset in fold.subsets.values()]
        train, dev, test = subsets
        assert not test & (train | dev)
        if fold.dev_of == "speakers":
            assert not train & dev
        dialogues = [{utterances[index].dialogue for index in part.tolist()} - {""} for part in (fold.train, fold.dev)]
        assert not dialogues[0] & dialogues[1]
    if any(fold.dev_of == "speakers" for fold in folds):
        assert "dev is whole training speakers: " in promise_of(protocol, folds, utterances, "mine")


def test_several_speakers_are_in_dev_where_there_are_several() -> None:
    counts = {}
    for count in (24, 13, 9, 5, 3):
        utterances = actors(count)
        folds = make_folds(utterances, by_label(utterances), "loso", 0)
        counts[count] = {len(speakers(utterances, fold.dev)) for fold in folds}
    assert counts == {24: {2}, 13: {2}, 9: {2}, 5: {1}, 3: {1}}


def test_a_speaker_with_most_recordings_is_no_dev_of_half_the_corpus() -> None:
    utterances = roster([200, 20, 22, 24, 26, 28, 30, 32, 34])
    folds = make_folds(utterances, by_label(utterances), "speakers:3", 0)
    assert all(
        0.08 <= share <= MOST_SHARE
        for share in shares([fold for fold in folds if "s00" in speakers(utterances, fold.train)])
    )
    assert all("s00" not in speakers(utterances, fold.dev) for fold in folds)
    earlier = make_folds(utterances, by_label(utterances), "speakers:3", 0, earlier_dev=True)
    assert max(shares(earlier)) > 0.5 or min(shares(earlier)) < 0.1  # one speaker of eight, whoever it is


def test_dev_has_every_class_where_whole_speakers_allow_it() -> None:
    rare = [
        Utterance(
            id=f"{speaker}-{take}", label="sad" if not take and speaker % 3 == 0 else "calm", speaker=f"{speaker:02}"
        )
        for speaker in range(12)
        for take in range(6)
    ]
    classes = by_label(rare)
    for fold in make_folds(rare, classes, "speakers:3", 0):
        assert set(classes[fold.dev].tolist()) == {0, 1}
        assert set(classes[fold.train].tolist()) == {0, 1}


def test_session_without_dialogues_takes_whole_speakers_for_dev() -> None:
    utterances = without("dialogue", dyads(sessions=3))
    folds = make_folds(utterances, by_label(utterances), "session", 0)
    for fold in folds:
        assert fold.dev_of == "speakers"
        assert not speakers(utterances, fold.dev) & speakers(utterances, fold.train)
    assert promise_of("session", folds, utterances, "mine") == (
        "leave one session out: test shares no speaker with train or dev; dev is whole training speakers: 1 of 4, "
        "25% of the utterances outside test"
    )
    with_dialogues = make_folds(dyads(sessions=3), by_label(utterances), "session", 0)
    assert [fold.dev_of for fold in with_dialogues] == ["dialogues"] * 3


def test_session_with_few_speakers_or_unknown_ones_keeps_utterances_for_dev() -> None:
    for utterances in (without("dialogue", dyads(sessions=2)), without("speaker", without("dialogue", dyads()))):
        folds = make_folds(utterances, by_label(utterances), "session", 0)
        assert [fold.dev_of for fold in folds] == ["dialogues"] * len(folds)
    assert FEWEST_SPEAKERS > 2  # two sessions of two speakers each leave two outside test


def test_a_published_split_without_dev_and_dialogues_takes_speakers_only_if_test_shares_none() -> None:
    shared = without("dialogue", show(("train", "test")))
    (fold,) = make_folds(shared, by_label(shared), "official", 0)
    assert fold.dev_of == "dialogues"
    apart = [
        Utterance(id=held.id, label=held.label, speaker=held.speaker, split="test" if held.speaker > "06" else "train")
        for held in actors(8)
    ]
    (fold,) = make_folds(apart, by_label(apart), "official", 0)
    assert fold.dev_of == "speakers"


def test_the_dev_of_version_0_1_is_a_tenth_of_the_number_of_speakers() -> None:
    """The draw of scikit-learn, as that version called it."""
    from sklearn.model_selection import GroupShuffleSplit

    utterances = actors()
    groups = np.array([held.speaker for held in utterances])
    for fold in make_folds(utterances, by_label(utterances), "actor6", 3, earlier_dev=True):
        rest = np.setdiff1d(np.arange(len(utterances)), fold.test)
        draws = GroupShuffleSplit(10, test_size=2, random_state=3).split(rest, groups=groups[rest])
        assert rest[next(draws)[1]].tolist() == fold.dev.tolist()


def test_too_few_speakers_for_dev_are_one_line() -> None:
    table = UtteranceTable.of(roster([4]), by_label(roster([4])))
    with pytest.raises(MmerError, match=r"too few speakers outside test \(s00\); expected at least two"):
        split_off_dev_by_speaker(table, np.arange(4), 0)
