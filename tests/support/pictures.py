"""Stand-in for the picture of a confusion matrix in tests of other things."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fusion.run.folder import CONFUSION_PNG, RunFolder


def write_counts(folder: RunFolder, counts: npt.NDArray[np.int64], names: Sequence[str], title: str) -> None:
    """Writes all that the picture shows to its file, as text."""
    with folder.replacing(CONFUSION_PNG) as path:
        path.write_text(f"{title} {list(names)} {counts.tolist()}")
