import pytest

from fusion.head import HeadConfig


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
        ("dim", -1, "dim must be a width, or 0 for that of the stream, got -1"),
    ],
)
def test_impossible_fields_are_refused(field: str, value: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        HeadConfig(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("modality", ["audio", "text"])
def test_the_only_modality_cannot_be_dropped(modality: str) -> None:
    with pytest.raises(ValueError, match=f"one of two modalities, there is {modality} alone; set it to 0"):
        HeadConfig(modalities=modality, modality_dropout=0.1)
