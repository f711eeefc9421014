from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fusion.data.features import CachedFeatures
from fusion.training.config import TrainConfig
from fusion.training.loss_monitor import LossNotFinite, explain_divergence, find_nonfinite_feature
from tests.support.trainings import STREAMS, toy_source, write_cache

ERROR = LossNotFinite("the loss a is nan in batch 1 of epoch 2")
CONFIG = TrainConfig(lr=0.25)
USED = np.arange(12)


@pytest.fixture
def source(tmp_path: Path) -> CachedFeatures:
    write_cache(tmp_path / "a.h5")
    return toy_source(tmp_path / "a.h5")


def test_with_sound_features_it_is_the_rate(source: CachedFeatures) -> None:
    assert find_nonfinite_feature(source, USED, STREAMS) == ""
    assert explain_divergence(ERROR, CONFIG, "") == f"{ERROR}; lower lr (0.25)"
    half = explain_divergence(ERROR, replace(CONFIG, precision="bfloat16"), "")
    assert half == f"{ERROR}; lower lr (0.25) or train in float32"


@pytest.mark.parametrize("role", ["audio", "text"])
def test_features_that_are_no_numbers_are_named(source: CachedFeatures, role: str) -> None:
    rows, starts = source._held[role]
    rows.values[starts[7]] = float("nan")
    message = find_nonfinite_feature(source, USED, STREAMS)
    assert message.startswith(f"features of utterance u7 in {STREAMS[role]} are not finite; see mmer-cache verify ")
    assert explain_divergence(ERROR, CONFIG, message) == f"{ERROR}; {message}"
    assert find_nonfinite_feature(source, np.arange(7), STREAMS) == ""
