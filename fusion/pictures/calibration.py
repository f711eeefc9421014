"""Reliability diagram (Guo et al., 2017, arXiv:1706.04599): accuracy of the guesses by their probability."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fusion.arrays import ClassIds
from fusion.evaluation.calibration import BINS
from fusion.pictures.canvas import ACCENT, INK, MUTED, SMALL, new_figure, plain_axes, set_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_reliability(probabilities: npt.NDArray[Any], truth: ClassIds, title: str = "") -> "Figure":
    """Returns a bar for each bin of probability, and the number of utterances in it as a small bar below.

    Args:
        probabilities: ``(n, classes)``.
        truth: class of each utterance, int64 ``(n,)``.
        title: title of the figure.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    index = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    counts = np.bincount(index, minlength=BINS)
    accuracy = np.bincount(index, weights=right, minlength=BINS) / np.maximum(counts, 1)
    middles = (np.arange(BINS) + 0.5) / BINS
    figure = new_figure()
    axes = plain_axes(figure)
    axes.bar(100 * middles, 100 * accuracy, width=100 / BINS * 0.92, color=ACCENT, alpha=0.8, linewidth=0)
    share = counts / max(1, counts.max())
    axes.bar(100 * middles, 6 * share, width=100 / BINS * 0.92, bottom=-8, color=MUTED, alpha=0.6, linewidth=0)
    axes.plot([0, 100], [0, 100], color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
    axes.text(1, -4.5, "utterances", va="center", fontsize=SMALL - 1, color=MUTED)
    axes.set(xlim=(0, 100), ylim=(-8.5, 100), xlabel="probability of the guess (%)", ylabel="right (%)")
    axes.set_yticks(range(0, 101, 20))
    set_title(figure, title)
    return figure
