import pytest
from scipy.stats import ttest_rel

from fusion.evaluation.classes import CLASSIFICATION
from fusion.grid.combinations import FieldValues
from fusion.grid.report.ablation import changes_to_base, is_ablation
from fusion.grid.selection import rank
from tests.support.scored import result

BASE = {"1": 0.5, "2": 0.6, "3": 0.4}
OTHER = {"1": 0.55, "2": 0.62, "3": 0.5}


def test_a_change_has_the_paired_t_interval_of_its_difference() -> None:
    scores = [result(0, fold, dev) for fold, dev in BASE.items()]
    scores += [result(1, fold, dev) for fold, dev in OTHER.items()]
    found = changes_to_base(rank([{}, {"alpha": 0}], scores, "wf1"), scores, "wf1", CLASSIFICATION)
    assert found.base == pytest.approx(50)
    (change,) = found.changes
    assert change.name == "alpha=0"
    assert change.value == pytest.approx(55.6667, abs=1e-3)
    expected = ttest_rel(list(OTHER.values()), list(BASE.values())).confidence_interval(0.95)
    assert change.ends is not None
    assert change.ends == pytest.approx((50 + 100 * expected.low, 50 + 100 * expected.high))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([{}, {"alpha": 0}, {"beta": 0}, {"layers": 2}], True),
        ([{}, {"alpha": 0}, {"beta": 0}, {"alpha": 0, "beta": 0}, {"ccb1": False}], True),
        ([{"lr": lr, "layers": layers} for lr in (1, 2) for layers in (1, 2)], False),  # crossed
        ([{"lr": 1}, {"lr": 2}, {"lr": 3}], False),  # one axis
        ([{"lr": 1, "dim": 1}, {"lr": 2, "dim": 3}, {"lr": 3, "dim": 2}], False),  # drawn at random
    ],
)
def test_changes_one_at_a_time_are_an_ablation(settings: list[FieldValues], expected: bool) -> None:
    ranked = rank(settings, [result(index, "1", 0.5) for index in range(len(settings))], "wf1")
    axes = list(dict.fromkeys(name for fields in settings for name in fields))
    assert is_ablation(ranked, axes) == expected
