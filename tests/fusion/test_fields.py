import pytest

from cache.errors import MmerError
from fusion.configure import configure
from fusion.fields import list_fields, meanings
from fusion.heads.catalog import HEADS
from fusion.heads.label_guided import LabelGuidedConfig


@pytest.mark.parametrize("name", HEADS)
def test_every_field_that_can_be_set_is_listed_with_its_meaning(name: str) -> None:
    listed = list_fields(name)
    assert all(meaning.endswith(".") for _, _, _, meaning in listed)
    head, training = configure(name, {field: default for field, default, _, _ in listed})
    assert (head, training) == configure(name, {})
    assert {owner for _, _, owner, _ in listed} == {"head", "training"}
    assert len({field for field, _, _, _ in listed}) == len(listed)


def test_fields_that_share_a_line_share_its_meaning() -> None:
    found = meanings(LabelGuidedConfig)
    assert found["words"] == found["frames"] == "words and joint codes that describe a class."
    assert found["dropout"] == "rate of all dropout."
    assert found["constraint"].endswith("C1 has nothing to pull to.")


def test_what_is_given_otherwise_is_not_listed() -> None:
    names = {name for name, _, _, _ in list_fields("text")}
    assert not names & {"seed", "modalities"}


def test_an_unknown_head_is_one_line() -> None:
    with pytest.raises(MmerError, match="unknown head 'rescma'; did you mean rescmfa"):
        list_fields("rescma")
