from typing import Any

from fusion.pictures.changes import Change, draw_changes
from fusion.pictures.curves import Curve, draw_dev_scores, draw_losses
from fusion.pictures.scores import draw_folds, draw_scores


def test_a_score_is_a_dot_on_its_interval() -> None:
    figure = draw_scores(["UA", "WA"], {"run": {"UA": (60.0, (55.0, 66.0)), "WA": (70.0, None)}})
    axes: Any = figure.axes[0]
    lines = [list(line.get_xdata()) for line in axes.lines if len(line.get_xdata())]
    assert lines == [[55.0, 66.0], [60.0], [70.0]]


def test_runs_are_next_to_each_other_in_inks_of_their_own() -> None:
    scores = {name: {"UA": (60.0, (55.0, 66.0))} for name in ("a", "b")}
    figure = draw_scores(["UA"], scores)
    assert len({line.get_color() for line in figure.axes[0].lines}) == 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_the_bar_of_a_fold_is_its_mean_over_seeds_and_each_seed_a_dot() -> None:
    axes: Any = draw_folds({"run": {"1": [50.0, 70.0], "2": [40.0, 40.0]}}, "UA (%)", 25.0).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [60.0, 40.0]
    assert [50.0, 70.0] in [list(line.get_ydata()) for line in axes.lines]
    assert [25.0, 25.0] in [list(line.get_ydata()) for line in axes.lines]


def test_curves_mark_the_chosen_epoch() -> None:
    curve = Curve(
        name="1, seed 0", train_loss=(2.0, 1.0, 0.5), dev_loss=(2.0, 1.5, 1.8), dev_score=(30.0, 50.0, 40.0), chosen=2
    )
    for figure, value in ((draw_losses([curve]), 1.5), (draw_dev_scores([curve], "dev UA (%)"), 50.0)):
        axes: Any = figure.axes[0]
        marked = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]
        assert [(list(line.get_xdata()), list(line.get_ydata())) for line in marked] == [([2], [value])]


def test_changes_show_the_base_as_a_line_and_their_difference_in_words() -> None:
    figure = draw_changes(50.0, [Change(name="alpha=0", value=47.5, ends=(44.0, 51.0))], label="dev UA (%)")
    axes: Any = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["base", "alpha=0"]
    assert list(axes.lines[0].get_xdata()) == [50.0, 50.0]
    assert [44.0, 51.0] in [list(line.get_xdata()) for line in axes.lines]
    assert [text.get_text() for text in axes.texts] == ["-2.5"]
