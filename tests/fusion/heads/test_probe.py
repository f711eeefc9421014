"""Head probe: the numbers of scikit-learn, C chosen on dev, runs, and settings that have no effect."""

from pathlib import Path

import numpy as np
import pytest

from fusion.data.features import CachedFeatures
from tests.support.runs import plan

STREAMS = {"audio": "mini", "text": "words"}


def pooled_by_hand(source: CachedFeatures, indices: np.ndarray, roles: tuple[str, ...]) -> np.ndarray:
    rows = []
    for index in indices:
        parts = [source.rows(role, int(index)).astype(np.float64) for role in roles]
        rows.append(np.concatenate([value for part in parts for value in (part.mean(axis=0), part.std(axis=0))]))
    return np.stack(rows)


@pytest.fixture(scope="module")
def source(trainable: Path) -> CachedFeatures:
    made = plan(trainable, "probe", {})
    return CachedFeatures(made.cache, made.streams, made.split.classes)
