from dataclasses import replace

import pytest

from cache.errors import MmerError
from cache.stream import NO_VIEW
from cache.utterance import Utterance
from featurize.views.catalog import VIEWS, ViewRequest, check_views, missing_view_reason, parse_views


def test_a_number_is_read_and_five_texts_are_the_default() -> None:
    assert parse_views([]) == []
    assert parse_views(["cbca", "lsa"]) == [ViewRequest(kind="cbca", count=5), ViewRequest(kind="lsa", count=1)]
    assert parse_views(["cbca:20"]) == [ViewRequest(kind="cbca", count=20)]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["lsa:1"], r"invalid view 'lsa:1'; allowed: lsa, or cbca:K for K texts, 1 to 20"),
        (["cbca:0"], "invalid view 'cbca:0'"),
        (["cbca:21"], "invalid view 'cbca:21'"),
        (["cbca:"], "invalid view 'cbca:'"),
        (["cbca:five"], "invalid view 'cbca:five'"),
        (["cbca:-1"], "invalid view 'cbca:-1'"),
        (["cbca:\u0665"], "invalid view"),  # a digit, but not of ASCII
        (["LSA"], "unknown view 'LSA'; allowed: lsa, or"),
        ([""], "unknown view ''"),
        (["lsa", "lsa"], "view lsa is requested twice; give it once"),
        (["cbca:2", "cbca:3"], "view cbca is requested twice; give it once"),
    ],
)
def test_a_wrong_request_is_one_line_with_what_is_allowed(texts: list[str], message: str) -> None:
    with pytest.raises(MmerError, match=message):
        parse_views(texts)


@pytest.mark.parametrize("kind", VIEWS)
def test_a_view_needs_an_encoder_of_its_input(kind: str) -> None:
    (view,) = parse_views([kind])
    check_views([view], {view.consumes})
    with pytest.raises(MmerError, match=rf"--view {kind} needs an encoder of .*; add one, as in --encoder \w+"):
        check_views([view], {"nothing"})


@pytest.mark.parametrize(
    ("split", "subset"),
    [
        ("", ""),
        ("train", ""),
        ("Training", ""),
        ("fold 3", ""),
        ("dev", "dev"),
        ("Validation", "dev"),
        ("TEST", "test"),
    ],
)
def test_only_utterances_that_training_may_read_get_views(split: str, subset: str) -> None:
    """T001-7: no augmented item derives from an utterance of a published development or test subset."""
    reason = missing_view_reason(replace(Utterance(id="a"), split=split))
    assert reason == (f"{NO_VIEW}views are for training, the utterance is in {subset}" if subset else "")
