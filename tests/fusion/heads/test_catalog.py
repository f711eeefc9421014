import pytest
import torch

from cache.errors import MmerError
from fusion.heads.build import build_head, count_parameters
from fusion.heads.catalog import HEADS, config_for, head_spec
from fusion.heads.configs.baselines import ConcatConfig, UnimodalConfig
from tests.support.heads import head_inputs

NAMES = "rescmfa bimodal tab jfm label-guided concat cross-attention audio text probe score"


def test_all_eleven_heads_are_there_and_told_in_a_line() -> None:
    assert list(HEADS) == NAMES.split()
    assert all(spec.summary and len(spec.summary) < 90 and spec.paper for spec in HEADS.values())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rescmf", "unknown head 'rescmf'; did you mean rescmfa?"),
        ("cross_attention", "unknown head 'cross_attention'; did you mean cross-attention?"),
        ("zzz", "unknown head 'zzz'; known: rescmfa, bimodal, tab"),
    ],
)
def test_an_unknown_head_is_told_which_may_be_meant(name: str, message: str) -> None:
    with pytest.raises(MmerError) as error:
        head_spec(name)
    assert str(error.value).startswith(message)


def test_the_row_decides_the_modality_of_a_model_of_one() -> None:
    config = config_for("text", {})
    assert isinstance(config, UnimodalConfig)
    assert (config.modalities, config.adapter) == ("text", False)
    assert config_for("text", {"modalities": "text"}) == config
    with pytest.raises(MmerError, match="modalities of head text is always text, got 'audio'"):
        config_for("text", {"modalities": "audio"})


def test_a_value_that_is_not_allowed_names_the_head() -> None:
    with pytest.raises(MmerError, match=r"^head tab: axis must be time or channel, got 'up'$"):
        config_for("tab", {"axis": "up"})
    with pytest.raises(MmerError, match=r"^head tab has no field 'kernel'; did you mean .*tab_kernel"):
        config_for("tab", {"kernel": "3"})


def test_building_leaves_the_generators_of_the_caller_alone() -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    heads = [build_head("tab", config_for("tab", {}), head_inputs(), seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), state)
    first, same, other = (head.state_dict()["classifier.weight"] for head in heads)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert count_parameters(heads[0]) == sum(part.numel() for part in heads[0].parameters())


def test_the_configuration_of_another_head_is_refused() -> None:
    with pytest.raises(ValueError, match="head tab is configured by MulTABConfig, got ConcatConfig"):
        build_head("tab", ConcatConfig(), head_inputs(), seed=0)


def test_a_width_that_does_not_suit_the_heads_is_told_in_a_line() -> None:
    with pytest.raises(MmerError, match=r"^head tab: heads must divide the width 39: one of 1, 3, 13, 39, got 8$"):
        build_head("tab", config_for("tab", {"heads": "8"}), head_inputs(audio=(39,)), seed=0)
    build_head("tab", config_for("tab", {}), head_inputs(audio=(39,)), seed=0)
