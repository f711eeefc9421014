"""Standardized features: scales from the training subset only, in every head that has them."""

from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from fusion.experiment.fields import configure
from fusion.head_config import HeadInputs
from fusion.heads.build import build_head
from fusion.heads.catalog import HEADS
from fusion.nn.layers import InputProjection, Standardize, learn_scales

REFUSED = {"jfm", "label-guided", "probe"}


class Rows:
    """Training rows made of arrays."""

    labels: npt.NDArray[np.int64]

    def __init__(self, *arrays: npt.NDArray[Any]) -> None:
        self._arrays, self.labels = arrays, np.zeros(len(arrays), dtype=np.int64)

    def __len__(self) -> int:
        return len(self._arrays)

    def text(self, place: int) -> str:
        return ""

    def length(self, role: str, place: int) -> int:
        return len(self.rows(role, place))

    def rows(self, role: str, place: int) -> npt.NDArray[Any]:
        return self._arrays[place]


@given(
    st.lists(st.integers(0, 7), min_size=1, max_size=5).flatmap(
        lambda counts: st.tuples(
            *[arrays.arrays(np.float32, (count, 3), elements=st.floats(-100, 100, width=32)) for count in counts]
        )
    )
)
def test_scales_are_those_of_scikit_learn(utterances: tuple[npt.NDArray[np.float32], ...]) -> None:
    every = np.concatenate(utterances).astype(np.float64)
    if not len(every) or (every.std(axis=0) < 1e-3).any():
        return
    scaling = Standardize("audio", (3,))
    scaling.learn(Rows(*utterances))
    expected = StandardScaler().fit(every).transform(every)
    found = scaling(torch.from_numpy(every).float())
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_far_from_zero_a_small_deviation_is_still_found() -> None:
    far = np.float32(1000) + np.random.default_rng(0).standard_normal((4000, 2)).astype(np.float32)
    scaling = Standardize("audio", (2,))
    scaling.learn(Rows(far[:100], far[100:]))
    np.testing.assert_allclose(scaling(torch.from_numpy(far)).std(dim=0, correction=0), 1, atol=1e-3)


def test_a_dimension_that_never_changes_is_centred_only() -> None:
    scaling = Standardize("audio", (2,))
    scaling.learn(Rows(np.array([[1.0, 5.0], [3.0, 5.0]])))
    assert scaling(torch.tensor([[[3.0, 6.0]]])).tolist() == [[[1.0, 1.0]]]


def test_layers_of_a_stacked_stream_have_scales_of_their_own() -> None:
    stacked = np.random.default_rng(0).standard_normal((50, 2, 3)) * np.array([[1], [100]]) + np.array([[0], [7]])
    front = InputProjection((2, 3), dim=3, adapter=False, dropout=0.0, standardize="audio")
    learn_scales(front, Rows(stacked))
    mixed = front(torch.from_numpy(stacked).float()[None])
    np.testing.assert_allclose(mixed.detach().numpy()[0].mean(axis=0), 0, atol=1e-5)
    assert set(front.state_dict()) == {"scaling.mean", "scaling.scale", "mix.scores"}  # predicting needs them


@pytest.mark.parametrize("fusion", sorted(set(HEADS) - REFUSED))
def test_every_head_over_features_standardizes_each_modality(fusion: str) -> None:
    config, _ = configure(fusion, {"standardize": True})
    inputs = HeadInputs(classes=("a", "b"), shapes={"audio": (8,), "text": (8,), "chars": (1,)})
    head = build_head(fusion, config, inputs, seed=0)
    found = {module.role for module in head.modules() if isinstance(module, Standardize)}
    assert found == {"audio", "text"} & set(config.roles)


@pytest.mark.parametrize("fusion", sorted(REFUSED))
def test_heads_that_go_on_from_an_encoder_refuse(fusion: str) -> None:
    with pytest.raises(Exception, match="standardize must be false"):
        configure(fusion, {"standardize": True})
