import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.grid.selection import spread


@given(st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=2), min_size=2, max_size=6))
def test_mean_and_deviation_agree_with_numpy(scores: list[list[float]]) -> None:
    told = spread({str(fold): [{"wa": one} for one in seeds] for fold, seeds in enumerate(scores)}, ["wa"])
    by_fold = np.array(scores).mean(axis=1)
    assert told.mean["wa"] == pytest.approx(by_fold.mean())
    assert told.std["wa"] == pytest.approx(by_fold.std(ddof=1), abs=1e-9)
    by_seed = np.array(scores).mean(axis=0)
    assert told.std_seeds["wa"] == pytest.approx(by_seed.std(ddof=1), abs=1e-9)


def test_a_single_fold_has_the_deviation_over_seeds() -> None:
    told = spread({"test": [{"wa": 0.5}, {"wa": 0.7}]}, ["wa"])
    assert told.std["wa"] is None
    assert told.deviation("wa") == pytest.approx(0.1414213562)
    assert spread({"1": [{"wa": 0.5}], "2": [{"wa": 0.7}]}, ["wa"]).std_seeds == {"wa": None}


def test_each_fold_weighs_alike_however_many_seeds_it_has() -> None:
    assert spread({"1": [{"wa": 0.0}] * 3, "2": [{"wa": 1.0}]}, ["wa"]).mean["wa"] == 0.5


def test_an_infinite_loss_is_no_warning() -> None:
    told = spread({"1": [{"loss": math.inf}], "2": [{"loss": 1.0}]}, ["loss"])
    assert told.mean["loss"] == math.inf
    assert told.std["loss"] is not None
    assert math.isnan(told.std["loss"])
