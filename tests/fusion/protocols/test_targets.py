"""Values of --target, and the ratings of utterances."""

import numpy as np
import pytest

from cache.errors import MmerError
from cache.utterance import Utterance
from fusion.protocols.targets import parse_target, rated_values

RATED = [
    Utterance(id="a", valence=1.0, activation=2.5),
    Utterance(id="b", valence=7.0),
]


@pytest.mark.parametrize("text", ["", "classes"])
def test_classes_are_no_dimensions(text: str) -> None:
    assert parse_target(text) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("valense", "--target: unknown 'valense'; did you mean valence?"),
        ("valence,arousal,activation", "--target: activation is named twice; name it once"),
        ("valence=5:1", "--target: invalid scale in 'valence=5:1'; expected NAME=LEAST:GREATEST"),
        ("valence=nan:1", "--target: invalid scale in 'valence=nan:1'"),
        ("valence=", "--target: invalid scale in 'valence='"),
    ],
)
def test_an_invalid_target_is_one_line(text: str, message: str) -> None:
    with pytest.raises(MmerError) as found:
        parse_target(text)
    assert str(found.value).startswith(message)


def test_ratings_are_columns_with_gaps() -> None:
    target = parse_target("arousal,valence=1:7")
    assert target is not None
    assert target.text == "activation,valence=1:7"
    assert target.label_set.names == ("activation", "valence")
    np.testing.assert_array_equal(rated_values(RATED, target, "mine"), [[2.5, 1.0], [np.nan, 7.0]])


@pytest.mark.parametrize(
    ("text", "corpus", "message"),
    [
        ("dominance", "mine", "--target dominance: no utterance of mine has a dominance; it has valence, activation"),
        ("valence=1:5", "mine", r"1 utterances have a valence outside 1 to 5 \(first: b, 7\); correct the corpus, or"),
        ("valence", "demo", r"1 utterances have a valence outside 1 to 5 \(first: b, 7\)"),
    ],
)
def test_absent_ratings_and_those_outside_their_scale_are_one_line(text: str, corpus: str, message: str) -> None:
    target = parse_target(text)
    assert target is not None
    with pytest.raises(MmerError, match=message):
        rated_values(RATED, target, corpus)
