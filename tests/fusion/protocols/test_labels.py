import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import MmerError
from cache.utterance import Utterance
from fusion.protocols.labels import LABEL_SETS, LabelSet, choose_labels, classes_of, parse_labels
from tests.support.rosters import dyads, show


def labelled(*labels: str) -> list[Utterance]:
    return [Utterance(id=f"u{index}", label=label) for index, label in enumerate(labels)]


def test_iemocap4_merges_happy_and_excited_and_leaves_the_rest_out() -> None:
    utterances = labelled("exc", "hap", "ang", "fru", "neu", "sad", "xxx", "")
    chosen = choose_labels(None, "iemocap", utterances)
    assert chosen.names == ("ang", "hap", "neu", "sad")
    assert classes_of(utterances, chosen).tolist() == [1, 1, 0, -1, 2, 3, -1, -1]


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("iemocap5", ("ang", "hap", "exc", "neu", "sad")),
        ("iemocap6", ("hap", "exc", "ang", "neu", "sad", "fru")),
    ],
)
def test_the_larger_sets_of_iemocap_keep_happy_and_excited_apart(name: str, names: tuple[str, ...]) -> None:
    utterances = dyads()
    chosen = choose_labels(name, "iemocap", utterances)
    assert chosen.names == names
    classes = classes_of(utterances, chosen)
    assert {
        utterance.label: index for utterance, index in zip(utterances, classes.tolist(), strict=True) if index >= 0
    } == {label: index for index, label in enumerate(names)}


def test_meld3_reads_the_sentiment_and_not_the_emotion() -> None:
    utterances = [*show(), Utterance(id="x", label="joy", sentiment="negative")]
    classes = classes_of(utterances, choose_labels("meld3", "meld", utterances))
    assert classes[:2].tolist() == [0, 1]
    assert classes[-1] == 2


def test_ravdess8_takes_speech_alone() -> None:
    names = LABEL_SETS["ravdess8"].names
    spoken = [Utterance(id=name, label=name, channel="speech") for name in names]
    sung = [Utterance(id=f"sung {name}", label=name, channel="song") for name in names]
    imported = [Utterance(id="of another toolkit", label="sad")]
    classes = classes_of([*spoken, *sung, *imported], choose_labels(None, "ravdess", []))
    assert classes.tolist() == [*range(8), *[-1] * 8, 3]


def test_other_corpora_take_every_raw_label_in_sorted_order() -> None:
    utterances = labelled("sad", "", "calm", "sad", "angry")
    chosen = choose_labels("", "demo", utterances)
    assert chosen.names == ("angry", "calm", "sad")
    assert classes_of(utterances, chosen).tolist() == [2, -1, 1, 2, 0]


@pytest.mark.parametrize("labels", [[], ["", ""], ["sad", "sad", ""]])
def test_other_corpora_need_two_labels(labels: list[str]) -> None:
    with pytest.raises(MmerError, match=r"the utterances of mine need at least two different labels, got (none|only)"):
        choose_labels(None, "mine", labelled(*labels))


def test_a_custom_set_merges_what_it_says() -> None:
    utterances = labelled("hap", "exc", "sad", "neu")
    chosen = choose_labels(" happy = hap + exc , low=sad", "iemocap", utterances)
    assert chosen.names == ("happy", "low")
    assert classes_of(utterances, chosen).tolist() == [0, 0, 1, -1]


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 3), min_size=2))
def test_every_raw_label_of_a_definition_gets_the_class_it_stands_in(sizes: dict[str, int]) -> None:
    members = {name: [f"{name}{number}" for number in range(size)] for name, size in sizes.items()}
    parsed = parse_labels(",".join(f"{name}={'+'.join(raws)}" for name, raws in members.items()))
    utterances = labelled(*(raw for raws in members.values() for raw in raws))
    expected = [index for index, raws in enumerate(members.values()) for _ in raws]
    assert classes_of(utterances, parsed).tolist() == expected


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ("happy=hap,sad", "invalid class 'sad'; expected class=raw"),
        ("happy=hap,=sad", "invalid class '=sad'"),
        ("happy=hap+,low=sad", r"invalid class 'happy=hap\+'"),
        ("happy=hap,", "invalid class ''"),
        ("a=hap,a=sad", "class 'a' is defined twice"),
        ("a=hap+exc,b=exc", "raw label 'exc' is listed twice"),
        ("a=hap+exc", "defines one class; expected at least two"),
    ],
)
def test_a_definition_that_cannot_be_meant_is_told(definition: str, message: str) -> None:
    with pytest.raises(MmerError, match=message):
        parse_labels(definition)


def test_an_unknown_set_is_told_with_those_there_are() -> None:
    with pytest.raises(MmerError, match="unknown label set 'iemocap9'; did you mean iemocap4, iemocap5 or iemocap6"):
        choose_labels("iemocap9", "iemocap", [])


def test_a_set_that_leaves_no_utterance_names_the_labels_there_are() -> None:
    message = r"label set meld7 leaves no utterance; found: 'hap' \(2\), 'exc' \(1\), 1 utterances without a label"
    with pytest.raises(MmerError, match=message):
        classes_of(labelled("hap", "exc", "hap", ""), LABEL_SETS["meld7"])


def test_sentiments_of_an_older_cache_are_missed_by_name() -> None:
    with pytest.raises(MmerError, match="leaves no utterance; found: 2 utterances without a sentiment"):
        classes_of(labelled("joy", "anger"), LABEL_SETS["meld3"])


def test_a_class_without_an_utterance_is_an_error_and_not_an_empty_class() -> None:
    with pytest.raises(
        MmerError, match=r"iemocap4: no utterance of class 'neu', 'sad'; found: 'ang' \(1\), 'exc' \(1\)"
    ):
        classes_of(labelled("ang", "exc"), LABEL_SETS["iemocap4"])


def test_a_misspelt_raw_label_of_a_custom_set_is_told() -> None:
    with pytest.raises(MmerError, match=r"raw label 'excited' not found; found: 'hap' \(1\), 'sad' \(1\)"):
        classes_of(labelled("hap", "sad"), parse_labels("happy=hap+excited,sad=sad"))


@pytest.mark.parametrize("labels", LABEL_SETS.values(), ids=LABEL_SETS)
def test_no_published_set_has_a_raw_label_twice(labels: LabelSet) -> None:
    raws = [raw for members in labels.classes.values() for raw in members]
    assert len(raws) == len(set(raws))
    assert LABEL_SETS[labels.name] is labels
