from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold

from cache.errors import MmerError
from cache.utterance import Utterance
from fusion.arrays import Indices
from fusion.protocols.catalog import (
    PROTOCOLS,
    choose_protocol,
    describe_protocol,
    find_protocol,
    make_folds,
    promise_of,
    protocol_notes,
)
from fusion.protocols.folds import EMOBOX_ACTORS, Fold
from tests.support.rosters import actors, by_label, dyads, four_classes, show, without


def values(utterances: Sequence[Utterance], subset: Indices, column: str) -> set[str]:
    return {getattr(utterances[index], column) for index in subset.tolist()}


def listed(folds: Sequence[Fold]) -> list[list[list[int]]]:
    return [[subset.tolist() for subset in fold.subsets.values()] for fold in folds]


def test_session_leaves_each_session_out_and_takes_a_tenth_of_the_dialogues_for_dev() -> None:
    utterances = dyads(dialogues=10)
    folds = make_folds(utterances, four_classes(utterances), "session", 0)
    assert [fold.name for fold in folds] == ["1", "2", "3", "4", "5"]
    for fold in folds:
        assert values(utterances, fold.test, "session") == {fold.name}
        assert not values(utterances, fold.dev, "dialogue") & values(utterances, fold.train, "dialogue")
        assert len(values(utterances, fold.dev, "dialogue")) == 4
        assert values(utterances, fold.dev, "label") == {"ang", "hap", "exc", "neu", "sad"}


@settings(max_examples=15)
@given(st.sampled_from(["session", "speaker", "random5", "actor5"]), st.integers(0, 2**32 - 1))
def test_every_member_is_tested_once_and_is_in_one_part_of_each_fold(protocol: str, seed: int) -> None:
    utterances = dyads(dialogues=3)
    classes = four_classes(utterances)
    folds = make_folds(utterances, classes, protocol, seed)
    members = np.flatnonzero(classes >= 0).tolist()
    assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == members
    for fold in folds:
        assert sorted(np.concatenate(list(fold.subsets.values())).tolist()) == members


@pytest.mark.parametrize("protocol", ["session", "session5", "random5", "actor5"])
def test_the_data_seed_alone_decides(protocol: str) -> None:
    utterances = dyads(dialogues=10)
    classes = four_classes(utterances)
    first = listed(make_folds(utterances, classes, protocol, 1))
    np.random.seed(5)  # noqa: NPY002 - the global generator must not matter
    assert listed(make_folds(utterances, classes, protocol, 1)) == first
    assert any(listed(make_folds(utterances, classes, protocol, seed)) != first for seed in (2, 3, 4))


def test_the_test_parts_of_grouped_protocols_do_not_depend_on_the_seed() -> None:
    utterances = actors()
    tests = [[fold.test.tolist() for fold in make_folds(utterances, by_label(utterances), "actor5", s)] for s in (0, 1)]
    assert tests[0] == tests[1]


def test_speaker_takes_the_partner_for_dev() -> None:
    utterances = dyads()
    folds = make_folds(utterances, four_classes(utterances), "speaker", 0)
    assert len(folds) == 10
    assert folds[0].name == "Ses01F"
    assert values(utterances, folds[0].test, "speaker") == {"Ses01F"}
    assert values(utterances, folds[0].dev, "speaker") == {"Ses01M"}
    assert values(utterances, folds[0].train, "session") == {"2", "3", "4", "5"}


def test_session5_tests_on_the_last_session_alone() -> None:
    utterances = dyads()
    (fold,) = make_folds(utterances, four_classes(utterances), "session5", 0)
    assert values(utterances, fold.test, "session") == {"5"}
    with pytest.raises(MmerError, match="tests on session 5, which is not among 1, 2, 3; choose another"):
        make_folds(dyads(3), four_classes(dyads(3)), "session5", 0)


def test_random5_is_stratified_fifths_of_the_utterances() -> None:
    utterances = dyads(dialogues=10)
    classes = four_classes(utterances)
    for fold in make_folds(utterances, classes, "random5", 0):
        assert np.bincount(classes[fold.test]).tolist() == [20, 40, 20, 20]
        assert (len(fold.dev), len(fold.train)) == (40, 360)


def test_actor6_is_the_split_of_emobox() -> None:
    utterances = actors()
    folds = make_folds(utterances, by_label(utterances), "actor6", 0)
    assert {fold.name: tuple(sorted(values(utterances, fold.test, "speaker"))) for fold in folds} == EMOBOX_ACTORS
    assert sorted(actor for four in EMOBOX_ACTORS.values() for actor in four) == [f"{n:02}" for n in range(1, 25)]
    for fold in folds:
        assert len(values(utterances, fold.dev, "speaker")) == 2
        assert not values(utterances, fold.dev, "speaker") & values(utterances, fold.train, "speaker")
    with pytest.raises(MmerError, match="got '25'; choose actor5 for other speakers"):
        make_folds(actors(25), by_label(actors(25)), "actor6", 0)


def test_actor5_makes_five_groups_and_keeps_who_talk_to_each_other_together() -> None:
    utterances = actors()
    folds = make_folds(utterances, by_label(utterances), "actor5", 0)
    assert sorted(len(values(utterances, fold.test, "speaker")) for fold in folds) == [4, 5, 5, 5, 5]
    talking = dyads(sessions=3)
    for fold in make_folds(talking, four_classes(talking), "actor5", 0):
        assert len(values(talking, fold.test, "session")) == 1
        assert len(values(talking, fold.dev, "session")) == 1
    with pytest.raises(MmerError, match="without a common dialogue, for train, dev and test, got 2; choose"):
        make_folds(dyads(2), four_classes(dyads(2)), "actor5", 0)


def test_official_takes_the_published_parts_whoever_speaks_in_them() -> None:
    utterances = show()
    (fold,) = make_folds(utterances, by_label(utterances), "official", 0)
    for name, subset in fold.subsets.items():
        assert values(utterances, subset, "split") == {name}
    notes = protocol_notes([fold], utterances, by_label(utterances), ("joy", "neutral"), "official")
    assert notes == ["fold official: 2 of 2 test speakers are in train or dev"]


def test_a_published_split_without_dev_takes_training_dialogues() -> None:
    utterances = [
        replace(utterance, split={"train": "Training"}.get(utterance.split, "test"))
        for utterance in show(("train", "test"))
    ]
    (fold,) = make_folds(utterances, by_label(utterances), "official", 0)
    assert values(utterances, fold.dev, "split") == {"Training"}
    assert len(values(utterances, fold.dev, "dialogue")) == 1
    assert not values(utterances, fold.dev, "dialogue") & values(utterances, fold.train, "dialogue")


def test_an_utterance_outside_the_published_split_is_told() -> None:
    utterances = show()
    utterances[3] = replace(utterances[3], split="held-out")
    with pytest.raises(MmerError, match=r"1 of 48 .* no known split \(first: train_dia0_utt3, split 'held-out'\)"):
        make_folds(utterances, by_label(utterances), "official", 0)


@pytest.mark.parametrize(
    ("corpus", "name"),
    [("iemocap", "session"), ("meld", "official"), ("ravdess", "actor6"), ("demo", "session")],
)
def test_every_corpus_has_a_default_protocol(corpus: str, name: str) -> None:
    utterances = dyads()
    assert choose_protocol(None, corpus, utterances, four_classes(utterances)) == (name, [])
    assert choose_protocol("random5", corpus, utterances, four_classes(utterances)) == ("random5", [])


def test_auto_takes_split_then_sessions_then_speakers_then_chance() -> None:
    def chosen(utterances: Sequence[Utterance]) -> str:
        classes = by_label(utterances)
        name, notes = choose_protocol("auto", "mine", utterances, classes)
        assert len(notes) == 1
        assert name in notes[0]
        assert listed(make_folds(utterances, classes, "auto", 0)) == listed(make_folds(utterances, classes, name, 0))
        return name

    crossing = [replace(utterance, session=str(index % 2)) for index, utterance in enumerate(actors())]
    assert chosen(show()) == "official"
    assert chosen(without("split", dyads())) == "session"
    assert chosen(without("session", dyads())) == "actor5"
    assert chosen(crossing) == "actor5"
    assert chosen(actors()) == "actor5"
    assert chosen(without("speaker", actors())) == "random5"
    assert chosen(actors(2, takes=6)) == "random5"


def test_auto_says_in_words_what_it_took() -> None:
    def note(utterances: Sequence[Utterance]) -> str:
        return choose_protocol(None, "mine", utterances, by_label(utterances))[1][0]

    assert note(show()) == "protocol auto uses official: the column split names the subsets"
    assert note(dyads()) == "protocol auto uses session: the column session has 5 values and shares no speaker"
    assert note(actors(4)) == "protocol auto uses actor5: four groups of the 4 speakers, no usable session"


def test_loso_leaves_each_speaker_out_and_needs_no_session() -> None:
    utterances = actors(5)
    folds = make_folds(utterances, by_label(utterances), "loso", 0)
    assert [fold.name for fold in folds] == [f"{number:02}" for number in range(1, 6)]
    for fold in folds:
        assert values(utterances, fold.test, "speaker") == {fold.name}
        assert len(values(utterances, fold.dev, "speaker")) == 1
    talking = without("session", dyads(sessions=3))
    for fold in make_folds(talking, four_classes(talking), "loso", 0):
        assert values(talking, fold.dev, "speaker") == {f"{fold.name[:-1]}{'FM'[fold.name[-1] != 'M']}"}


def test_many_folds_are_a_note_on_time() -> None:
    utterances = actors(60, takes=1)
    classes = by_label(utterances)
    folds = make_folds(utterances, classes, "loso", 0)
    notes = protocol_notes(folds, utterances, classes, ("calm", "happy", "sad"), "loso")
    assert notes == ["60 folds are 60 trainings for each seed; --protocol speakers:5 has five"]
    assert not protocol_notes(folds[:24], utterances, classes, ("calm", "happy", "sad"), "loso")


@pytest.mark.parametrize("count", [3, 4, 6])
def test_groups_of_speakers_are_tested_once_each(count: int) -> None:
    utterances = actors(12)
    folds = make_folds(utterances, by_label(utterances), f"speakers:{count}", 0)
    assert len(folds) == count
    tested = [values(utterances, fold.test, "speaker") for fold in folds]
    assert sorted(speaker for held in tested for speaker in held) == [f"{number:02}" for number in range(1, 13)]
    assert {len(held) for held in tested} == {12 // count}
    assert [fold.test.tolist() for fold in make_folds(utterances, by_label(utterances), f"speakers:{count}", 7)] == [
        fold.test.tolist() for fold in folds
    ]


def uneven_speakers() -> list[Utterance]:
    """Nine speakers, of whom three alone are ever sad: groups without the classes in view put two of them together."""
    counts = {"s1": 9, "s2": 8, "s3": 7, "s4": 6, "s5": 6, "s6": 6, "s7": 5, "s8": 5, "s9": 5}
    sad = {"s1", "s2", "s9"}
    return [
        Utterance(
            id=f"{name}-{take}",
            label=("sad" if name in sad and not take else ("calm", "happy")[take % 2]),
            speaker=name,
        )
        for name, takes in counts.items()
        for take in range(takes)
    ]


def test_groups_of_speakers_are_drawn_with_the_classes_in_view() -> None:
    utterances = uneven_speakers()
    classes = by_label(utterances)
    for fold in make_folds(utterances, classes, "speakers:3", 0):
        assert set(classes[fold.test].tolist()) == {0, 1, 2}


def test_actor5_is_drawn_with_the_classes_in_view_only_where_a_fold_would_lack_one() -> None:
    rare = [
        Utterance(id=f"{speaker}-{take}", label="sad" if take == 0 and speaker % 2 else "calm", speaker=f"{speaker:02}")
        for speaker in range(10)
        for take in range(3 + speaker % 3)
    ]
    classes = by_label(rare)
    folds = make_folds(rare, classes, "actor5", 0)
    assert all(set(classes[fold.test].tolist()) == {0, 1} for fold in folds)
    even = actors()
    groups = np.array([held.speaker for held in even])
    expected = [test.tolist() for _, test in GroupKFold(5).split(groups, groups=groups)]
    assert [fold.test.tolist() for fold in make_folds(even, by_label(even), "actor5", 0)] == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("5fold", r"unknown protocol '5fold'; choose speakers:5 \(speakers held out\) or random5"),
        ("10-fold-cv", r"choose speakers:10 \(speakers held out\)"),
        ("Leave One Speaker Out", "choose loso"),
        ("sesion", r"did you mean session or session5\?"),
        ("folds", "choose --folds FILE, which needs no --protocol"),
        ("cross", "--protocol cross of mmer-train with --test-cache"),
        ("speakers", "needs a number of groups of speakers from 2, such as speakers:5"),
        ("speakers:1", "needs a number of groups"),
        ("speakers:x", "needs a number of groups"),
    ],
)
def test_names_that_other_programs_use_are_answered_with_ours(name: str, message: str) -> None:
    with pytest.raises(MmerError, match=message):
        find_protocol(name)


def test_too_few_speakers_for_the_groups_are_one_line() -> None:
    with pytest.raises(MmerError, match=r"speakers:9 needs 9 groups .* got 4; choose speakers:4 or loso"):
        make_folds(actors(4), by_label(actors(4)), "speakers:9", 0)
    with pytest.raises(MmerError, match=r"speakers:2 needs 3 groups .* got 2; choose another --protocol"):
        make_folds(actors(2), by_label(actors(2)), "speakers:2", 0)


def test_names_of_protocols_say_what_they_are_on_this_corpus() -> None:
    utterances = actors(4)
    folds = make_folds(utterances, by_label(utterances), "actor5", 0)
    assert promise_of("actor5", folds, utterances, "mine").startswith("four groups of speakers: train")
    known = actors()
    folds = make_folds(known, by_label(known), "actor6", 0)
    assert promise_of("actor6", folds, known, "mine").startswith("six groups of speakers (those of EmoBox's folds of")
    assert promise_of("actor6", folds, known, "ravdess").startswith("EmoBox's six folds of four actors")


def test_several_published_test_subsets_are_parts_of_the_fold() -> None:
    names = {"train": "Train", "dev": "Development", "test": "Test1"}
    utterances = [replace(held, split=names[held.split]) for held in show()]
    utterances = [replace(held, split="Test2") if held.id.startswith("test_dia3") else held for held in utterances]
    (fold,) = make_folds(utterances, by_label(utterances), "official", 0)
    assert {part: len(held) for part, held in fold.test_parts.items()} == {"test1": 12, "test2": 4}
    (single,) = make_folds(show(), by_label(show()), "official", 0)
    assert not single.test_parts


def test_a_promise_that_does_not_hold_names_fold_speaker_and_utterances() -> None:
    utterances = dyads()
    utterances[0] = replace(utterances[0], speaker="Ses05M")
    message = r"fold 1: test shares speaker Ses05M with train \(Ses01_d0_0, Ses05_d\d_\d+\); choose another --protocol"
    with pytest.raises(MmerError, match=message):
        make_folds(utterances, four_classes(utterances), "session", 0)


def test_a_fold_without_a_class_is_told_by_the_name_of_the_class() -> None:
    utterances, names = [item for item in dyads() if (item.session, item.label) != ("3", "sad")], ("a", "h", "n", "sad")
    folds = make_folds(utterances, four_classes(utterances), "session", 0, names)
    assert "fold 3: test has no utterance of class sad; its UA and M-F1 are means over the other classes" in (
        protocol_notes(folds, utterances, four_classes(utterances), names, "session")
    )
    alone = [item for item in dyads() if item.label != "sad" or item.session == "2"]
    with pytest.raises(MmerError, match="fold 2 has no train utterance of class 3"):
        make_folds(alone, four_classes(alone), "session", 0)


@pytest.mark.parametrize(
    ("protocol", "column", "message"),
    [
        ("session", "session", "360 of 360 utterances have no session"),
        ("speaker", "speaker", "have no speaker"),
        ("nope", "split", "unknown protocol 'nope'; known: session, speaker, session5, random5, official, actor6"),
    ],
)
def test_a_corpus_that_does_not_fit_is_told(protocol: str, column: str, message: str) -> None:
    utterances = without(column, dyads())
    with pytest.raises(MmerError, match=message):
        make_folds(utterances, by_label(utterances), protocol, 0)


def test_one_dialogue_cannot_be_both_train_and_dev() -> None:
    utterances = dyads(sessions=2, dialogues=1)
    with pytest.raises(
        MmerError, match=r"too few utterances outside test \(10 in 1 dialogues\); expected at least two"
    ):
        make_folds(utterances, four_classes(utterances), "session", 0)


def test_promises_are_told_in_words() -> None:
    assert describe_protocol("random5").endswith("speaker-dependent, no promise")
    assert all(describe_protocol(name).startswith(f"{name}: ") for name in PROTOCOLS)


@pytest.mark.parametrize(
    ("protocol", "utterances", "message"),
    [
        (
            "session",
            [replace(utterance, session="7") for utterance in dyads()],
            r"all utterances have the same session \(7\)",
        ),
        (
            "actor6",
            [item for item in actors() if item.speaker in {"01", "11"}],
            "are in test of fold 1, none for train",
        ),
        (
            "actor6",
            [item for item in actors() if item.speaker in {"01", "04"}],
            r"too few speakers outside test \(04\)",
        ),
        ("random5", actors(2, takes=1), "needs a class with at least 5 utterances, the largest has 2"),
    ],
)
def test_a_corpus_that_is_too_small_is_told(protocol: str, utterances: list[Utterance], message: str) -> None:
    with pytest.raises(MmerError, match=message):
        make_folds(utterances, by_label(utterances), protocol, 0)
