import numpy as np
import pytest

from fusion.head import Batch, Head, HeadOutput
from fusion.head_config import HeadConfig
from tests.support.heads import ToyRows, head_inputs, samples


def test_the_width_is_that_of_the_first_stream_that_is_read() -> None:
    shapes = {"audio": (13, 768), "text": (1024,)}
    assert HeadConfig().width(shapes) == 768
    assert HeadConfig(modalities="text").width(shapes) == 1024
    assert HeadConfig(dim=64).width(shapes) == 64


def test_a_modality_that_is_switched_off_is_not_read() -> None:
    assert HeadConfig().roles == ("audio", "text")
    assert HeadConfig(modalities="text").roles == ("text",)
    assert not HeadConfig(modalities="text").reads("audio")


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("modalities", "sound", "modalities must be one of both, audio, text, got 'sound'"),
        ("dropout", 1.0, r"dropout must lie in \[0, 1\), got 1.0"),
        ("modality_dropout", -0.1, r"modality_dropout must lie in \[0, 1\), got -0.1"),
        ("dim", -1, "dim must be a width, or 0 for the width of the stream, got -1"),
    ],
)
def test_impossible_fields_are_refused(field: str, value: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        HeadConfig(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("modality", ["audio", "text"])
def test_the_only_modality_cannot_be_dropped(modality: str) -> None:
    with pytest.raises(ValueError, match=f"needs two modalities, got {modality} only; set it to 0"):
        HeadConfig(modalities=modality, modality_dropout=0.1)


class Least(Head):
    """A head with only the required members."""

    config_class = HeadConfig

    def forward(self, batch: Batch) -> HeadOutput:
        return HeadOutput(batch.features["audio"].sum(dim=1))


def test_a_head_learns_nothing_beforehand_and_reads_any_length_by_default() -> None:
    inputs = head_inputs()
    head = Least(HeadConfig(), inputs)
    assert (head.config, head.inputs) == (HeadConfig(), inputs)
    assert head.prepare(ToyRows(samples(3))) == []
    beyond = head.over_limits({"audio": np.array([1, 99_999]), "text": np.array([3, 5])})
    assert (beyond.tolist(), beyond.dtype) == ([False, False], np.dtype(bool))
    assert not head.state_dict()
    assert not head.stackable


def test_training_reads_every_role_but_those_of_prepare() -> None:
    class Config(HeadConfig):
        training_roles, optional_roles, prepare_roles = ("chars",), ("audio.view",), ("codes",)

    head = Least(Config(), head_inputs())
    assert head.training_reads == {"audio", "text", "chars", "audio.view"}


def test_a_head_without_forward_cannot_be_built() -> None:
    with pytest.raises(TypeError, match="forward"):
        Head(HeadConfig(), head_inputs())  # type: ignore[abstract]
