from dataclasses import replace

import numpy as np
import pytest

from cache.errors import MmerError
from cache.utterance import COLUMNS, TEXT
from fusion.protocols.filters import FILTER_COLUMNS, filter_utterances, parse_filters
from tests.support.rosters import by_label, dyads

UTTERANCES = [
    replace(item, style=("scripted", "improvised")[index % 2]) for index, item in enumerate(dyads(sessions=2))
]
CLASSES = by_label(UTTERANCES)


def test_only_the_utterances_with_one_of_the_values_take_part() -> None:
    classes, notes = filter_utterances(CLASSES, UTTERANCES, {"style": ("improvised",), "session": ("1", "2")})
    taken = np.array([item.style == "improvised" and item.session in {"1", "2"} for item in UTTERANCES])
    assert ((classes >= 0) == taken).all()
    assert (classes[taken] == CLASSES[taken]).all()
    assert notes == ["only style=improvised: 72 of 144 utterances", "only session=1+2: 72 of 72 utterances"]


def test_what_has_no_class_has_none_afterwards() -> None:
    without = np.where(np.arange(len(CLASSES)) < 100, -1, CLASSES)
    assert (filter_utterances(without, UTTERANCES, {"style": ("improvised",)})[0][:100] == -1).all()
    assert filter_utterances(CLASSES, UTTERANCES, {}) == (CLASSES, [])


def test_nothing_left_is_one_line_with_what_there_is() -> None:
    with pytest.raises(MmerError, match=r"--only style=scripted leaves no utterance; found: 'improvised' \(36\)"):
        filter_utterances(np.where(np.arange(144) % 4 == 1, CLASSES, -1), UTTERANCES, {"style": ("scripted",)})


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ({"style": ("sung",)}, r"style=sung has an unknown value 'sung'; found: 'scripted' \(72\), 'impr"),
        ({"session": ("1", "7")}, r"session=1\+7 has an unknown value '7'; found: '1' \(72\), '2' \(72\)"),
        ({"channel": ("speech",)}, r"found: none \(144\)"),
    ],
)
def test_a_value_that_nothing_has_is_one_line(only: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(MmerError, match=message):
        filter_utterances(CLASSES, UTTERANCES, only)


def test_own_columns_of_a_corpus_select_utterances() -> None:
    known = [replace(item, further={"gender": "fm"[index % 2]}) for index, item in enumerate(UTTERANCES)]
    classes, notes = filter_utterances(CLASSES, known, {"gender": ("f",)})
    assert (np.flatnonzero(classes >= 0) % 2 == 0).all()
    assert notes == ["only gender=f: 72 of 144 utterances"]
    for column, hint in (("stile", "did you mean style"), ("gendre", "did you mean gender")):
        with pytest.raises(MmerError, match=f"--only: unknown column '{column}'; {hint}"):
            filter_utterances(CLASSES, known, {column: ("f",)})


def test_the_order_of_values_and_one_named_twice_make_no_other_run() -> None:
    assert parse_filters({"session": "2+1+2"}) == parse_filters({"session": "1+2"})


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ({"label": "ang"}, "--only: unknown column 'label'; --labels chooses classes"),
        ({"style": "a++b"}, r"--only style=a\+\+b has an empty value; expected style=a\+b"),
    ],
)
def test_a_wrong_column_or_value_is_one_line(pairs: dict[str, str], message: str) -> None:
    with pytest.raises(MmerError, match=message):
        parse_filters(pairs)


def test_columns_that_narrow_are_columns_of_text() -> None:
    assert {COLUMNS[column] for column in FILTER_COLUMNS} == {TEXT}
