import pytest

from fusion.recipes.published import PRINTED, Figure, Recalls


def test_a_figure_has_the_scores_that_are_known() -> None:
    assert Figure(what="a", status=PRINTED, wa=0.6, wf1=0.5).scores == {"wa": 0.6, "wf1": 0.5}


def test_a_score_in_points_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ua must be a fraction between 0 and 1, got 63\.4"):
        Figure(what="a", status=PRINTED, ua=63.4)


def test_a_status_must_be_known() -> None:
    with pytest.raises(ValueError, match="status must be one of printed, derived, second-hand, got 'guessed'"):
        Figure(what="a", status="guessed", wa=0.6)


def test_a_recall_in_points_is_refused() -> None:
    with pytest.raises(ValueError, match=r"recall of sad must be a fraction between 0 and 1, got 91\.27"):
        Recalls(what="a", by_class={"sad": 91.27})
