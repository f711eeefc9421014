from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from cache.errors import MmerError
from fusion.run.folder import RunFolder
from fusion.run.pictures import draw_confusion, plot_confusion

COUNTS = np.array([[3, 1], [0, 0]])


def test_the_picture_is_a_file_that_opens(tmp_path: Path) -> None:
    plot_confusion(RunFolder(tmp_path), COUNTS, ["angry", "sad"], "audio, session")
    picture = imread(tmp_path / "confusion.png")
    assert picture.shape[0] > 200
    assert picture.std() > 0.05


def test_cells_hold_counts_and_shares_of_the_truth() -> None:
    figure = draw_confusion(COUNTS, ["angry", "sad"], "of a run")
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["3\n75%", "1\n25%", "0\n0%", "0\n0%"]
    assert [text.get_color() for text in axes.texts][:2] == ["white", "black"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("guess", "truth", "of a run")
    assert [label.get_text() for label in axes.get_yticklabels()] == ["angry", "sad"]


def test_names_are_no_mathematics(tmp_path: Path) -> None:
    plot_confusion(RunFolder(tmp_path), COUNTS, ["$x", "a_{b}$"], "$")


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MmerError, match="cannot write to"):
        plot_confusion(RunFolder(tmp_path / "file"), COUNTS, ["a", "b"], "")
