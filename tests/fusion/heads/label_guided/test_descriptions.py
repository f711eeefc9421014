import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.heads.label_guided.descriptions import ItemSelection, cosine_note, overlap_note, select_items, tf_idf

CLASSES = ("angry", "happy")
SAID = [["rage", "rage", "door"], ["rage", "door"], ["joy", "door"], ["joy", "smile", "door"]]
LABELS = np.array([0, 0, 1, 1])
documents = st.lists(st.lists(st.sampled_from("abcdef"), max_size=6), min_size=2, max_size=10)


def test_the_score_is_the_share_of_the_class_times_the_rarity_among_utterances() -> None:
    counts = np.array([[2, 1, 0], [1, 1, 0], [0, 1, 1]])
    scores = tf_idf(counts, np.array([0, 0, 1]), 2)
    rarity = np.log([4 / 3, 4 / 4, 4 / 2])
    np.testing.assert_allclose(scores, np.array([[3 / 5, 2 / 5, 0], [0, 1 / 2, 1 / 2]]) * rarity)


def test_an_utterance_of_one_class_moves_the_others_by_the_rarity_of_its_words_alone() -> None:  # T004-1
    counts = np.array([[2, 1, 0], [1, 1, 0], [0, 1, 1], [0, 2, 3]])
    changed = np.array([[0, 0, 4], *counts[1:]])
    labels, rarity = np.array([0, 0, 1, 1]), []
    for matrix in (counts, changed):
        rarity.append(np.log(5 / (1 + (matrix > 0).sum(axis=0))))
    before, after = (tf_idf(matrix, labels, 2) for matrix in (counts, changed))
    np.testing.assert_allclose(before[1] * rarity[1], after[1] * rarity[0])
    assert not np.allclose(before[0] * rarity[1], after[0] * rarity[0])


def test_with_classes_as_documents_what_all_of_them_say_scores_nothing() -> None:
    counts = np.array([[2, 1, 0], [1, 1, 0], [0, 1, 1]])
    scores = tf_idf(counts, np.array([0, 0, 1]), 2, idf="class")
    np.testing.assert_allclose(scores, [[0.6 * np.log(3 / 2), 0, 0], [0, 0, 0.5 * np.log(3 / 2)]])


def test_the_best_items_of_each_class_come_first() -> None:
    chosen, notes = select_items(SAID, LABELS, CLASSES, ItemSelection(most=2, min_count=1))
    assert chosen == [["rage", "door"], ["joy", "smile"]]
    assert notes == []


def test_ties_go_by_the_order_of_the_items() -> None:
    chosen, _ = select_items([[30, 4, 200], [7]], np.array([0, 1]), CLASSES, ItemSelection(most=2, min_count=1))
    assert chosen == [[4, 30], [7]]


def test_too_few_items_let_rarer_ones_count_and_that_is_told() -> None:
    chosen, notes = select_items(SAID, LABELS, CLASSES, ItemSelection(most=2, min_count=2))
    assert chosen == [["rage", "door"], ["joy", "door"]]
    assert notes == []
    chosen, notes = select_items(SAID, LABELS, CLASSES, ItemSelection(most=3, min_count=2))
    assert chosen == [["rage", "door"], ["joy", "smile", "door"]]
    assert notes == [
        "angry: 2 of 3 found, each in at least 2 utterances (min_count 2)",
        "happy: 3 of 3 found, each in at least 1 utterances (min_count 2)",
    ]


def test_rare_items_do_not_count_where_there_are_enough_others() -> None:
    said = [*[["often"]] * 5, ["once", "once", "once"], ["other"]]
    chosen, _ = select_items(said, np.array([0] * 6 + [1]), CLASSES, ItemSelection(most=1))
    assert chosen[0] == ["often"]


def test_contrast_takes_off_what_the_other_classes_say_too() -> None:
    said, labels = (
        [["both", "both", "both", "own"], ["own"], ["both", "both", "both"], ["else"]],
        np.array([0, 0, 1, 1]),
    )
    plain, _ = select_items(said, labels, CLASSES, ItemSelection(most=1, min_count=1))
    contrasted, _ = select_items(said, labels, CLASSES, ItemSelection(most=1, min_count=1, contrast=True))
    assert (plain[0], contrasted[0]) == (["both"], ["own"])


def test_where_nothing_was_said_nothing_is_chosen() -> None:
    assert select_items([[], []], np.array([0, 1]), CLASSES, ItemSelection(most=3)) == ([[], []], [])


@given(documents, st.integers(1, 4), st.integers(1, 4), st.booleans(), st.sampled_from(["utterance", "class"]))
def test_a_class_is_described_by_what_it_says(
    said: list[list[str]], most: int, min_count: int, contrast: bool, idf: str
) -> None:
    labels = np.arange(len(said)) % 2
    choice = ItemSelection(most=most, min_count=min_count, contrast=contrast, idf=idf)
    chosen, _ = select_items(said, labels, CLASSES, choice)
    for index, items in enumerate(chosen):
        possible = {item for document, label in zip(said, labels, strict=True) if label == index for item in document}
        assert set(items) <= possible
        assert len(items) == len(set(items)) == min(most, len(possible))


@given(documents, st.randoms(use_true_random=False))
def test_the_order_of_the_utterances_changes_nothing(said: list[list[str]], random: object) -> None:
    order = list(range(len(said)))
    random.shuffle(order)  # type: ignore[attr-defined]
    labels = np.arange(len(said)) % 2
    shuffled = select_items([said[index] for index in order], labels[order], CLASSES, ItemSelection(most=3))
    assert shuffled == select_items(said, labels, CLASSES, ItemSelection(most=3))


def test_descriptions_that_overlap_too_much_are_told() -> None:
    alike = [["a", "b", "c"], ["x"], ["a", "b"]]
    note = overlap_note(alike, ["angry", "happy", "sad"], "words")
    assert note == "words: angry and sad overlap most, Jaccard index 0.67 (above 0.5: hardly distinguishable)"
    assert overlap_note([["a"]], ["angry"], "words") == ""


def test_labels_that_point_the_same_way_are_told() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 3.0]])
    assert cosine_note(rows, ["a", "b", "c"], "labels") == "labels: a and c are closest, cosine 0.707"


@pytest.mark.parametrize(
    ("values", "message"),
    [({"most": 0}, "most must be at least 1, got 0"), ({"most": 1, "idf": "word"}, "idf must be one of utterance, cl")],
)
def test_a_choice_that_cannot_be_made_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ItemSelection(**values)  # type: ignore[arg-type]
