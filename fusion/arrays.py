"""Array types shared by all rooms of `fusion`."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Indices: TypeAlias = npt.NDArray[np.int64]  # ``(n,)``, indices of utterances among all utterances of a cache
ClassIds: TypeAlias = npt.NDArray[np.int64]  # ``(n,)``, indices of classes in a label set
