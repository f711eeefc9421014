import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score, recall_score

from cache.errors import MmerError
from fusion.evaluation.metrics import METRICS, compute_scores, confusion, score_confusions

Integers = npt.NDArray[np.int64]
# asymmetric, so that an exchange of any two scores shows (docs/decisions.md#scores)
GOLDEN = np.array([[9, 1], [3, 1]])


def predictions_of(matrix: Integers) -> tuple[Integers, Integers]:
    truth, guess = (places.ravel() for places in np.indices(matrix.shape))
    return np.repeat(truth, matrix.ravel()), np.repeat(guess, matrix.ravel())


def test_the_golden_confusion_matrix_gives_the_golden_scores() -> None:
    scores = compute_scores(*predictions_of(GOLDEN), 2)
    assert scores.wa == pytest.approx(0.714286, abs=1e-6)
    assert scores.ua == pytest.approx(0.575, abs=1e-6)
    assert scores.wf1 == pytest.approx(0.679654, abs=1e-6)
    assert scores.mf1 == pytest.approx((18 / 22 + 2 / 6) / 2)


def test_wa_is_the_accuracy_and_ua_the_mean_recall_by_name_t002_8() -> None:
    named = compute_scores(*predictions_of(GOLDEN), 2).as_dict()
    assert tuple(named) == METRICS == ("wa", "ua", "wf1", "mf1")
    assert (round(named["wa"], 4), round(named["ua"], 4)) == (0.7143, 0.575)


def test_rows_of_the_confusion_matrix_are_the_truth() -> None:
    np.testing.assert_array_equal(confusion(*predictions_of(GOLDEN), 2), GOLDEN)


def test_a_class_that_is_never_guessed_has_precision_0_and_no_warning() -> None:
    scores = compute_scores(np.array([0, 0, 1]), np.array([0, 0, 0]), 2)
    assert scores.as_dict() == pytest.approx({"wa": 2 / 3, "ua": 0.5, "wf1": 2 / 3 * 0.8, "mf1": 0.4})


def test_a_class_that_the_truth_lacks_is_an_error_and_not_skipped() -> None:
    truth, guess = np.array([0, 0, 2]), np.array([0, 1, 2])
    with pytest.raises(MmerError, match="the mean over 4 classes, but no utterance is of class 1, 3"):
        compute_scores(truth, guess, 4)
    assert compute_scores(truth, guess, 4, every_class=False).ua == pytest.approx(0.75)


def test_macro_f1_is_over_the_classes_of_the_truth_as_ua_is() -> None:
    truth = np.array([0, 0, 2])
    never_stop, guessed = np.array([0, 0, 2]), np.array([0, 1, 2])
    assert compute_scores(truth, never_stop, 4, every_class=False).mf1 == 1  # classes 1 and 3 are in neither
    assert compute_scores(truth, guessed, 4, every_class=False).mf1 == pytest.approx(
        (2 / 3 + 1) / 2
    )  # 1 is guessed alone


@settings(max_examples=25)
@given(arrays(np.int64, (4, 4), elements=st.integers(0, 6)).filter(lambda counts: counts.sum(axis=1).all()))
def test_macro_f1_agrees_with_scikit_learn(matrix: Integers) -> None:
    truth, guess = predictions_of(matrix)
    expected = f1_score(truth, guess, average="macro", labels=np.arange(4), zero_division=0)
    assert compute_scores(truth, guess, 4).mf1 == pytest.approx(expected)
    assert score_confusions(matrix)[METRICS.index("mf1")] == pytest.approx(expected)


def test_nothing_is_no_score() -> None:
    nothing = np.array([], dtype=np.int64)
    with pytest.raises(MmerError, match="nothing to score"):
        compute_scores(nothing, nothing, 2, every_class=False)


def test_the_scores_agree_with_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    truth, guess = generator.integers(0, 5, 200), generator.integers(0, 5, 200)
    scores = compute_scores(truth, guess, 5)
    assert scores.wa == pytest.approx(accuracy_score(truth, guess))
    assert scores.ua == pytest.approx(balanced_accuracy_score(truth, guess))


def pairs_of(classes: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    # a few classes only, so that others are missing from truth, from guesses or from both
    kept = st.lists(st.integers(0, classes - 1), min_size=1, max_size=classes)
    return st.tuples(kept, kept).flatmap(
        lambda some: st.lists(st.tuples(*map(st.sampled_from, some)), min_size=1, max_size=60)
    )


@settings(max_examples=40)
@given(st.integers(2, 11).flatmap(lambda classes: st.tuples(st.just(classes), pairs_of(classes))))
def test_scores_are_bit_equal_to_scikit_learn_where_classes_are_missing(
    drawn: tuple[int, list[tuple[int, int]]],
) -> None:
    classes, pairs = drawn
    truth, guess = np.array(pairs).T
    present = sorted({*truth.tolist()})

    def f1(average: str) -> float:
        return float(f1_score(truth, guess, labels=present, average=average, zero_division=0))

    scores = compute_scores(truth, guess, classes, every_class=False)
    assert scores.wa == accuracy_score(truth, guess)
    assert scores.ua == recall_score(truth, guess, labels=present, average="macro", zero_division=0)
    assert (scores.wf1, scores.mf1) == (f1("weighted"), f1("macro"))
    np.testing.assert_array_equal(
        confusion(truth, guess, classes), confusion_matrix(truth, guess, labels=np.arange(classes))
    )


def test_a_class_that_is_not_in_the_label_set_is_an_error() -> None:
    for truth, guess in ((0, 2), (2, 0), (0, -1)):
        with pytest.raises(ValueError, match="invalid entry"):
            compute_scores(np.array([0, truth]), np.array([1, guess]), 2)


@settings(max_examples=25)
@given(arrays(np.int64, (3, 4, 4), elements=st.integers(0, 6)).filter(lambda counts: counts.sum(axis=(1, 2)).all()))
def test_many_matrices_at_once_score_as_each_alone(matrices: Integers) -> None:
    alone = [compute_scores(*predictions_of(matrix), 4, every_class=False).as_dict() for matrix in matrices]
    np.testing.assert_allclose(score_confusions(matrices), [[*one.values()] for one in alone], atol=1e-12)
