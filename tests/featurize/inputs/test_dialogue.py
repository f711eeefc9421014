from collections.abc import Sequence
from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import given

from cache.utterance import Utterance
from featurize.inputs.transcript import Dialogues, Turn


def dialogue(names: Sequence[str], *, turns: Sequence[int | None], dialogue: str = "d") -> list[Utterance]:
    return [
        Utterance(id=name, text=f"text {name}", dialogue=dialogue, turn=turn)
        for name, turn in zip(names, turns, strict=True)
    ]


def test_the_turns_before_come_oldest_first_and_no_more_than_asked_for() -> None:
    dialogues = Dialogues(dialogue("abcd", turns=[0, 1, 2, 3]))
    assert dialogues.before("d", 2) == ("text b", "text c")
    assert dialogues.before("d", 9) == ("text a", "text b", "text c")
    assert dialogues.before("a", 9) == ()
    assert dialogues.before("d", 0) == ()


def test_turns_are_ordered_by_their_numbers_and_without_them_as_in_the_corpus() -> None:
    assert Dialogues(dialogue("abc", turns=[2, 0, 1])).before("a", 9) == ("text b", "text c")
    assert Dialogues(dialogue("abc", turns=[None] * 3)).before("c", 9) == ("text a", "text b")
    assert Dialogues(dialogue("abc", turns=[None, 0, 1])).before("a", 9) == ("text b", "text c")


def test_nothing_is_taken_from_another_dialogue_or_from_none() -> None:
    dialogues = Dialogues(
        [*dialogue("ab", turns=[0, 1]), *dialogue("cd", turns=[0, 1], dialogue="e"), Utterance(id="x")]
    )
    assert dialogues.before("d", 9) == ("text c",)
    assert dialogues.before("x", 9) == dialogues.before("unknown", 9) == ()


def test_the_dialogues_of_one_session_are_kept_apart() -> None:
    utterances = [*dialogue("ab", turns=[0, 1]), *dialogue("cd", turns=[0, 1], dialogue="e"), Utterance(id="x", turn=9)]
    dialogues = Dialogues([replace(turn, session="1") for turn in utterances])
    assert [dialogues.before(name, 9) for name in "abcdx"] == [(), ("text a",), (), ("text c",), ()]


def test_a_dialogue_over_two_sessions_is_one() -> None:
    first, second = dialogue("ab", turns=[0, 1])
    assert Dialogues([replace(first, session="1"), replace(second, session="2")]).before("b", 9) == ("text a",)


def test_a_corpus_without_dialogues_has_none() -> None:
    assert not Dialogues([Utterance(id="a"), Utterance(id="b")])
    assert Dialogues(dialogue("a", turns=[0]))


@given(st.permutations(range(8)), st.integers(0, 9))
def test_the_order_of_the_corpus_does_not_matter_where_turns_are_numbered(order: list[int], count: int) -> None:
    dialogues = Dialogues(dialogue([str(turn) for turn in order], turns=order))
    expected = tuple(f"text {turn}" for turn in range(8))
    for turn in order:
        assert dialogues.before(str(turn), count) == expected[max(0, turn - count) : turn]


def test_what_is_spoken_leaves_out_silent_turns_of_the_history_only() -> None:
    turn = Turn("[LAUGHTER]", ("I  know.", " ", "[SIGH]", "So what?"))
    assert turn.words("strip") == ["I know.", "So what?", ""]
    assert turn.words("keep") == ["I know.", "[SIGH]", "So what?", "[LAUGHTER]"]


def test_the_latest_turns_are_the_last_ones() -> None:
    turn = Turn("c", ("a", "b"))
    assert turn.latest(1) == Turn("c", ("b",))
    assert turn.latest(0) == Turn("c")
    assert turn.latest(2) == turn
    assert turn.latest(3) == turn
