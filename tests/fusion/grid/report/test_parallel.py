import itertools
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from fusion.grid.report.parallel import draw_parallel
from fusion.grid.report.scale import plot_data
from fusion.grid.selection import rank
from fusion.pictures.canvas import SMALL
from tests.support.scored import grid

FIELDS = [{"lr": lr, "words": words} for lr in (1e-4, 1e-3, 1e-2) for words in ("few", "many")]
DEV = {0: (0.5, 0.5), 1: (0.6, 0.6), 2: (0.4, 0.4), 3: (0.7, 0.7), 4: (None, 0.9), 5: (0.55, 0.55)}


def picture(monitor: str = "wf1") -> Any:
    return draw_parallel(plot_data(rank(FIELDS, grid(DEV), monitor), monitor), ["lr", "words"])


def lines_of(figure: Any) -> list[Any]:
    return [one for one in figure.axes[0].collections if isinstance(one, LineCollection)]


def test_there_is_a_line_for_each_complete_combination_and_the_best_is_on_top() -> None:
    others, best = lines_of(picture())
    assert (len(others.get_segments()), len(best.get_segments())) == (4, 1)
    ends = [segment[-1, 1] for segment in (*others.get_segments(), *best.get_segments())]
    assert ends == sorted(ends)
    assert best.get_zorder() > others.get_zorder()
    assert best.get_linewidths()[0] > others.get_linewidths()[0]


def test_lines_run_through_the_values_of_their_combination() -> None:
    line = lines_of(picture())[1].get_segments()[0]
    at = {place: float(line[np.flatnonzero(np.isclose(line[:, 0], place))[0], 1]) for place in (0, 1, 2)}
    assert at[0] == pytest.approx(0.5, abs=0.1)  # lr=1e-3 of 1e-4 to 1e-2
    assert at[1] == pytest.approx(1, abs=0.1)  # the second of two words
    assert at[2] == pytest.approx(1)  # 70, the highest tick


def test_lines_of_one_value_lie_side_by_side() -> None:
    segments = [segment for lines in lines_of(picture()) for segment in lines.get_segments()]
    starts = [segment[0, 1] for segment in segments]
    assert len(set(np.round(starts, 6))) == len(segments)


def test_values_and_scores_are_told_and_the_colour_bar_has_a_name() -> None:
    figure = picture()
    axes, bar = figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["lr", "words", "dev W-F1"]
    told = [text.get_text() for text in axes.texts]
    assert told[:5] == ["0.0001", "0.001", "0.01", "few", "many"]
    assert {"40", "70"} <= set(told[5:])
    assert bar.get_ylabel() == "mean dev W-F1 (%)"
    assert " ".join(figure.get_suptitle().split()) == "dev W-F1 over all axes, 5 combinations, 1 failed left out"


def test_labels_do_not_reach_the_axis_before_them() -> None:
    fields = [{"lr": lr, "stream": f"wav2vec2-large-{place:02}"} for place, lr in enumerate((1e-4, 1e-3, 1e-2) * 8)]
    drawn = plot_data(rank(fields, grid(dict.fromkeys(range(24), (0.5, 0.6))), "wf1"), "wf1")
    figure: Any = draw_parallel(drawn, ["lr", "stream"])
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text().startswith("wav2vec2")]
    assert len(boxes) == 24
    assert min(box.x0 for box in boxes) > axes.transData.transform((0, 0))[0]
    ordered = sorted(boxes, key=lambda box: float(box.y0))
    heights = [upper.y0 - lower.y0 for lower, upper in itertools.pairwise(ordered)]
    assert min(heights) >= 0.8 * SMALL / 72 * figure.dpi


@pytest.mark.parametrize("monitor", ["wf1", "loss"])
def test_the_best_is_darkest_whether_more_is_better_or_less(monitor: str) -> None:
    others, best = lines_of(picture(monitor))
    brightness = [colour[:3].sum() for lines in (others, best) for colour in lines.get_colors()]
    assert brightness == sorted(brightness, reverse=True)
    assert brightness[0] > brightness[-1] + 0.5


def test_equal_scores_are_drawn(tmp_path: Any) -> None:
    same = rank(FIELDS, grid(dict.fromkeys(range(6), (0.5, 0.5))), "wf1")
    draw_parallel(plot_data(same, "wf1"), ["lr", "words"]).savefig(tmp_path / "a.png")
