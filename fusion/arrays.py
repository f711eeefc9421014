"""Types of arrays that every room shares."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Indices: TypeAlias = npt.NDArray[np.int64]  # ``(n,)``, positions of utterances among all of a cache
ClassIds: TypeAlias = npt.NDArray[np.int64]  # ``(n,)``, positions of classes in a label set
