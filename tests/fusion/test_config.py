from dataclasses import dataclass

import pytest

from cache.errors import MmerError
from fusion.config import configured


@dataclass(frozen=True, kw_only=True)
class Toy:
    layers: int = 2
    rate: float = 0.5
    wide: bool = True
    name: str = "a"
    limit: int | None = 3
    share: float | None = None

    def __post_init__(self) -> None:
        if self.layers < 0:
            raise ValueError(f"layers must be at least 0, got {self.layers}")


def test_text_is_read_as_what_the_field_is() -> None:
    values = {"layers": " 4", "rate": "1e-3", "wide": "off", "name": "12", "limit": "none", "share": "2"}
    read = configured(Toy, values, owner="toy")
    assert read == Toy(layers=4, rate=1e-3, wide=False, name="12", limit=None, share=2.0)
    assert isinstance(read.share, float)


def test_values_may_be_given_as_they_are() -> None:
    read = configured(Toy, {"layers": 4, "rate": 1, "wide": False, "limit": None}, owner="toy")
    assert read == Toy(layers=4, rate=1.0, wide=False, limit=None)
    assert isinstance(read.rate, float)


@pytest.mark.parametrize("word", ["true", "True", "on", "yes", "1"])
def test_there_are_many_words_for_true(word: str) -> None:
    assert configured(Toy, {"wide": word}, owner="toy").wide


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("layers", "2.5", "toy: layers must be a whole number, got '2.5'"),
        ("layers", "", "toy: layers must be a whole number, got ''"),
        ("layers", True, "toy: layers must be a whole number, got True"),
        ("layers", None, "toy: layers must be a whole number, got None"),
        ("layers", "-1", "toy: layers must be at least 0, got -1"),
        ("rate", "much", "toy: rate must be a number, got 'much'"),
        ("rate", "nan", "toy: rate must be a number, got 'nan'"),
        ("share", "inf", "toy: share must be a number, got 'inf'"),
        ("wide", "maybe", "toy: wide must be true or false, got 'maybe'"),
        ("wide", 1, "toy: wide must be true or false, got 1"),
        ("name", 3, "toy: name must be a word, got 3"),
        ("layer", "3", "toy has no field 'layer'; did you mean layers?"),
        ("zzz", "3", "toy has no field 'zzz'; known: layers, rate, wide, name, limit, share"),
    ],
)
def test_a_value_that_cannot_be_is_one_clear_line(field: str, value: object, message: str) -> None:
    with pytest.raises(MmerError) as error:
        configured(Toy, {field: value}, owner="toy")
    assert str(error.value) == message
