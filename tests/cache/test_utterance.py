from typing import Any

import pytest

from cache.utterance import COLUMNS, Utterance


def test_every_field_has_a_column_of_its_own() -> None:
    assert list(COLUMNS) == list(Utterance.__dataclass_fields__)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": ""}, "needs an id"),
        ({"id": "a", "start_s": -1.0}, "not be negative, got -1.0"),
        ({"id": "a", "start_s": 2.0, "end_s": 2.0}, "after start_s 2.0, got 2.0"),
        ({"id": "a", "end_s": float("nan")}, "got nan"),
        ({"id": "a", "turn": -1}, "turn of a"),
    ],
)
def test_impossible_utterances_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Utterance(**fields)


@pytest.mark.parametrize(
    ("votes", "message"),
    [
        ("happy", "votes of a have an invalid item 'happy'; expected happy:3,sad:1"),
        ("happy:-1", "votes of a have an invalid item 'happy:-1'"),
        ("happy:1,happy:2", "votes of a name 'happy' twice"),
        ("happy:0", "votes of a are all 0"),
        ("happy:0.5,sad:0.2", "votes of a sum to 0.7 .*; expected whole numbers, or shares that sum to 1"),
    ],
)
def test_invalid_votes_are_one_line(votes: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Utterance(id="a", votes=votes)
    assert Utterance(id="a", votes="happy:0.67,sad:0.33").votes
