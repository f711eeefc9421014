"""Configurations are apart from what they configure, so that torch is not imported for them: both know the same."""

import pytest

from fusion.heads.catalog import HEADS
from fusion.heads.configs import baselines, jfm, rescmfa, tab
from fusion.heads.rescmfa import ACTIVATIONS
from fusion.losses.ctc import REDUCTIONS
from fusion.nn.layers import POOLING, STATISTICS
from fusion.nn.pretrained import MOST_LAYERS
from fusion.training import config, steps


@pytest.mark.parametrize("name", HEADS)
def test_the_catalog_names_the_configuration_of_the_class(name: str) -> None:
    assert HEADS[name].head_class().config_class is HEADS[name].config


def test_the_choices_of_a_configuration_are_what_can_be_built() -> None:
    assert tuple(POOLING) == baselines.POOLING
    assert tuple(kind for kind in POOLING if kind not in STATISTICS) == tab.POOLING
    assert tuple(ACTIVATIONS) == rescmfa.CHOICES["gate"]
    assert rescmfa.CHOICES["ctc_reduction"] == REDUCTIONS
    assert MOST_LAYERS == jfm.MOST_LAYERS
    assert tuple(steps.PRECISIONS) == config.PRECISIONS
