import pytest

from fusion.recipes.published import PRINTED, Figure, Published


def test_a_figure_has_the_scores_that_are_known() -> None:
    assert Figure(what="a", status=PRINTED, wa=0.6, wf1=0.5).scores == {"wa": 0.6, "wf1": 0.5}


def test_a_score_in_points_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ua must be a fraction between 0 and 1, got 63\.4"):
        Figure(what="a", status=PRINTED, ua=63.4)


def test_a_status_must_be_known() -> None:
    with pytest.raises(ValueError, match="status must be one of printed, derived, second-hand, got 'guessed'"):
        Figure(what="a", status="guessed", wa=0.6)


def test_a_variant_has_the_head_and_exactly_the_changes_of_a_run() -> None:
    changes: list[dict[str, object]] = [{}, {"layers": 2}, {"layers": 2, "alpha": 0.0}, {"gate": False}]
    figures = [Figure(what=str(change), status=PRINTED, change=change) for change in changes]
    figures.append(Figure(what="elsewhere", status=PRINTED, change={"dim": 8}, head="concat"))
    published = Published(paper="a", protocol="b", figures=tuple(figures))
    runs = [[], ["layers=2"], ["alpha=0.0", "layers=2"], ["layers=3"], ["alpha=0.0"], ["gate=False"], ["dim=8"]]
    found = [published.matching_variant(changed, {}) for changed in runs]
    assert found == [None, figures[1], figures[2], None, None, figures[3], None]
