import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from cache.errors import MmerError
from fusion.grid.combinations import FieldValues, ModelScores
from fusion.grid.report.plots import draw_axis, grid_figures, plot_grid
from fusion.grid.report.scale import plot_data
from fusion.grid.selection import Ranked, rank
from fusion.pictures.canvas import COLUMN, PAGE
from fusion.run.folder import Folder
from tests.support.scored import diverged, result

AXES: dict[str, list[object]] = {"lr": [1e-4, 1e-3, 1e-2], "modalities": ["both", "$x_{漢字}"], "layers": [2]}


def combinations(axes: dict[str, list[object]] = AXES) -> list[FieldValues]:
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def ranking(fields: list[FieldValues], failed: tuple[int, ...] = (), monitor: str = "wf1") -> list[Ranked]:
    results: list[ModelScores] = []
    for place in range(len(fields)):
        devs = {"1": 0.4 + 0.3 * math.sin(place) ** 2, "2": 0.5}
        results += [diverged(place, fold) if place in failed else result(place, fold, devs[fold]) for fold in devs]
    return rank(fields, results, monitor)


def axes_of(figure: Any) -> Any:
    return figure.axes[0]


def test_every_axis_with_two_values_and_all_together_are_files_that_open(tmp_path: Path) -> None:
    names = plot_grid(Folder(tmp_path), ranking(combinations()), list(AXES), "wf1")
    assert names == ["axis-lr.png", "axis-modalities.png", "parallel.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    for name in names:
        picture = imread(tmp_path / name)
        assert picture.shape[0] > 400
        assert picture.std() > 0.05


@pytest.mark.parametrize(
    ("monitor", "axes"),
    [("wf1", ["lr", "clip", "stream", "patience", "odd/name"]), ("loss", ["lr", "odd/name"])],
)
def test_two_hundred_combinations_of_any_kind_are_drawn_without_a_warning(monitor: str, axes: list[str]) -> None:
    random = np.random.default_rng(0)
    some: list[FieldValues] = [
        {
            "lr": float(10 ** random.uniform(-5, -2)),
            "clip": float(random.uniform(0.5, 1)),
            "stream": f"a stream with a long name, number {place % 40}",
            "patience": (None, 3, 5)[place % 3],
            "odd/name": bool(place % 2),
        }
        for place in range(200)
    ]
    figures = grid_figures(ranking(some, (0, 7), monitor), axes, monitor)
    assert len(figures) == len(axes) + 1
    assert "axis-odd%2Fname" in figures
    for figure in figures.values():
        figure.draw_without_rendering()


def test_nothing_is_drawn_where_nothing_can_be_compared(tmp_path: Path) -> None:
    one = combinations({"lr": [1e-4], "layers": [2]})
    folder = Folder(tmp_path / "pictures")
    assert plot_grid(folder, ranking(one), ["lr", "layers"], "wf1") == []
    assert plot_grid(folder, ranking(combinations(), tuple(range(6))), list(AXES), "wf1") == []
    assert plot_grid(folder, [], [], "wf1") == []
    assert not folder.path.exists()


def test_a_point_for_each_combination_with_mean_and_deviation_of_each_value() -> None:
    ranked = ranking(combinations())
    axes = axes_of(draw_axis(plot_data(ranked, "wf1"), "lr"))
    points = axes.collections[0].get_offsets()
    assert sorted(points[:, 1]) == pytest.approx(sorted(100 * one.dev.mean["wf1"] for one in ranked if one.dev))
    nearest = [round(float(place)) for place in points[:, 0]]
    assert nearest == [round(math.log10(float(str(one.fields["lr"])))) for one in ranked]
    (bars,) = axes.containers
    own = [[100 * one.dev.mean["wf1"] for one in ranked if one.dev and one.fields["lr"] == lr] for lr in AXES["lr"]]
    assert bars.lines[0].get_xdata() == pytest.approx([-4, -3, -2])
    assert bars.lines[0].get_ydata() == pytest.approx([np.mean(scores) for scores in own])
    heights = [segment[1, 1] - segment[0, 1] for segment in bars.lines[2][0].get_segments()]
    assert heights == pytest.approx([2 * np.std(scores, ddof=1) for scores in own])
    np.testing.assert_allclose(axes.collections[-1].get_offsets(), points[:1])  # the best is marked
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("lr", "mean dev W-F1 (%)")


def test_all_points_are_within_the_picture_and_none_hides_another() -> None:
    many = combinations({"lr": [1, 2, 4], "alpha": [0, 0.1], "seed": list(range(40))})
    shown = plot_data(ranking(many), "wf1")
    for axis in ("lr", "alpha", "seed"):
        axes = axes_of(draw_axis(shown, axis))
        points = axes.collections[0].get_offsets()
        low, high = axes.get_xlim()
        assert low < points[:, 0].min()
        assert points[:, 0].max() < high
        assert len(np.unique(points.round(6), axis=0)) == len(many)


def test_words_are_not_joined_by_a_line_and_numbers_are() -> None:
    shown = plot_data(ranking(combinations()), "wf1")
    assert [line.get_linestyle() for line in axes_of(draw_axis(shown, "lr")).lines][:1] == ["-"]
    assert "-" not in [line.get_linestyle() for line in axes_of(draw_axis(shown, "modalities")).lines]


def test_where_each_value_has_one_combination_the_bars_are_over_folds() -> None:
    ranked = ranking(combinations({"layers": [1, 2, 3]}))
    figure = draw_axis(plot_data(ranked, "wf1"), "layers")
    (bars,) = axes_of(figure).containers
    heights = [segment[1, 1] - segment[0, 1] for segment in bars.lines[2][0].get_segments()]
    spreads = [one.dev.std["wf1"] or 0 for one in sorted(ranked, key=lambda one: one.combination) if one.dev]
    assert heights == pytest.approx([200 * spread for spread in spreads])
    assert "mean ± std over folds" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_failed_combinations_are_left_out_and_counted() -> None:
    shown = plot_data(ranking(combinations(), (1, 4)), "wf1")
    figure = draw_axis(shown, "lr")
    assert len(axes_of(figure).collections[0].get_offsets()) == 4
    assert " ".join(figure.get_suptitle().split()) == "dev W-F1 by lr, 4 combinations, 2 failed left out"


def test_pictures_are_a_column_wide_and_with_many_values_a_page() -> None:
    few = plot_data(ranking(combinations()), "wf1")
    many = plot_data(ranking(combinations({"stream": [f"a stream of a model, {index}" for index in range(30)]})), "wf1")
    assert draw_axis(few, "lr").get_figwidth() == draw_axis(few, "modalities").get_figwidth() == COLUMN
    assert COLUMN < draw_axis(many, "stream").get_figwidth() <= PAGE
    for shown, axis in ((few, "lr"), (few, "modalities"), (many, "stream")):
        figure = draw_axis(shown, axis)
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in axes_of(figure).get_xticklabels()]
        turned = axes_of(figure).get_xticklabels()[0].get_rotation() > 0
        assert turned or not any(left.x1 > right.x0 for left, right in itertools.pairwise(boxes))
    label = axes_of(draw_axis(few, "modalities")).get_xticklabels()[1]
    assert "?" not in label.get_text()


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MmerError, match="cannot write to"):
        plot_grid(Folder(tmp_path / "file"), ranking(combinations()), ["lr"], "wf1")
