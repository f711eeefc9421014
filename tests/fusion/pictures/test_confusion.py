import numpy as np

from fusion.pictures.canvas import COLUMN, INK, PAPER
from fusion.pictures.confusion import draw_confusion

COUNTS = np.array([[3, 1], [0, 0]])


def test_cells_hold_counts_and_shares_of_the_truth() -> None:
    figure = draw_confusion(COUNTS, ["angry", "sad"], "of a run")
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["3", "75%", "1", "25%", "0", "0"]
    assert [text.get_color() for text in axes.texts][:3] == [PAPER, PAPER, INK]
    assert (axes.get_xlabel(), axes.get_ylabel(), figure.get_suptitle()) == ("guess", "truth", "of a run")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["angry", "sad"]


def test_few_classes_fit_a_column_and_many_get_room() -> None:
    assert draw_confusion(COUNTS, ["angry", "sad"]).get_figwidth() == COLUMN
    many = draw_confusion(np.eye(15, dtype=np.int64), [f"class {index}" for index in range(15)])
    assert many.get_figwidth() > 15 * 0.34
