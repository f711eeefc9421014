"""Fields of heads and trainings: lists, meanings and configurations."""

import pytest

from cache.errors import MmerError
from fusion.experiment.fields import check_once, configure, list_fields, meanings, parse_fields
from fusion.heads.catalog import HEADS
from fusion.heads.configs.label_guided import LabelGuidedConfig
from fusion.heads.configs.rescmfa import ResCMFAConfig
from fusion.training.config import TrainConfig


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
    assert found["words"] == found["frames"] == "number of words and of joint codes that describe a class."
    assert found["dropout"] == "rate of all dropout, in [0, 1)."
    assert found["constraint"].endswith("C1 has no such loss.")


def test_what_is_given_otherwise_is_not_listed() -> None:
    names = {name for name, _, _, _ in list_fields("text")}
    assert not names & {"seed", "modalities"}


def test_an_unknown_head_is_one_line() -> None:
    with pytest.raises(MmerError, match="unknown head 'rescma'; did you mean rescmfa"):
        list_fields("rescma")


def test_fields_go_to_the_head_or_to_its_training() -> None:
    head, training = configure("rescmfa", {"alpha": "0", "lr": "0.01", "epochs": 3, "class_weights": "true"})
    assert isinstance(head, ResCMFAConfig)
    assert head.alpha == 0
    assert training == TrainConfig(lr=0.01, epochs=3, class_weights=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"droput": "0.1"}, "no field 'droput'; did you mean dropout?"),
        ({"zzz": "1"}, "no field 'zzz'; known: "),
        ({"seed": "3"}, "seed cannot be set as a field; use --seed"),
        ({"lr": "fast"}, "training: lr must be a number, got 'fast'"),
        ({"epochs": "0"}, "epochs must be at least 1, got 0"),
        ({"dropout": "1"}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"modalities": "text"}, "modalities of head audio is always audio, got 'text'"),
    ],
)
def test_what_is_not_allowed_is_an_error(values: dict[str, object], message: str) -> None:
    with pytest.raises(MmerError, match=message):
        configure("audio", values)


def test_an_unknown_head_is_told_with_its_neighbours() -> None:
    with pytest.raises(MmerError, match=r"unknown head 'rescma'; did you mean rescmfa\?"):
        configure("rescma", {})


def test_values_may_hold_equals_signs_and_spaces_around() -> None:
    assert parse_fields([" a = b=c "]) == {"a": "b=c"}


@pytest.mark.parametrize("text", ["alpha", "=3", "alpha=", ""])
def test_what_is_no_pair_is_told_with_an_example(text: str) -> None:
    with pytest.raises(MmerError, match=r"invalid .*; expected FIELD=VALUE, such as --set alpha=0.1$"):
        parse_fields([text])
    with pytest.raises(MmerError, match=r"expected ROLE=STREAM, such as --stream mel=x$"):
        parse_fields([text], form="ROLE=STREAM", such_as="--stream mel=x")


def test_a_name_given_twice_is_an_error() -> None:
    with pytest.raises(MmerError, match="alpha is given twice"):
        parse_fields(["alpha=1", "alpha=2"])
    with pytest.raises(MmerError, match="lr is given twice"):
        check_once("lr", {"lr": 1})
