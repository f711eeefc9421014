"""Notes are arranged: each once, equal notes of folds as one line, limits first."""

from hypothesis import given
from hypothesis import strategies as st

from fusion.run.notes import arrange, head_notes, limits

PROMISE = "session: leave one session out: test shares no speaker with train or dev"


def test_equal_notes_of_folds_are_one_line_with_the_range_of_their_counts() -> None:
    text = "test utterances have a transcript of 3 words or more that occurs in train or dev"
    notes = [PROMISE, *(f"fold {fold}: {count} of 64 {text}" for fold, count in (("1", 60), ("b", 64), ("3", 58)))]
    assert arrange(notes) == [f"folds 1, b, 3: 58 to 64 of 64 {text}", PROMISE]


def test_notes_that_name_different_speakers_stay_apart() -> None:
    notes = [f"fold {fold}: the encoder of voice has seen speaker {fold} of test" for fold in ("1", "2")]
    assert arrange([PROMISE, *notes]) == [*notes, PROMISE]
    assert all(map(limits, notes))


@given(st.lists(st.sampled_from(["a", "frozen features of voice", "1 of 2 utterances are left out", PROMISE, "b"])))
def test_every_note_is_there_once_and_the_order_stays_within_a_rank(notes: list[str]) -> None:
    arranged = arrange(notes)
    assert sorted(arranged) == sorted(set(notes))
    assert arrange(arranged) == arranged
    rest = [note for note in dict.fromkeys(notes) if not limits(note)]
    assert [note for note in arranged if not limits(note)] == rest


def test_a_note_of_one_fold_names_it() -> None:
    folds = [{"fold": name, "notes": notes} for name, notes in (("1", ["all", "only here"]), ("2", ["all"]))]
    assert list(dict.fromkeys(head_notes(folds))) == ["all", "fold 1: only here"]


def test_what_makes_scores_worth_less_is_a_limit() -> None:
    notes = [
        "random5: five random fifths of the utterances: speaker-dependent, no promise",
        "2 of 5 models predict a single class for every test utterance (sad); pass another --lr (now 0.1)",
        "the loss of the first epoch is up to 9.0 in 2 of 5 models, where chance has 1.4: pass --lr 0.01",
    ]
    assert all(map(limits, notes))
    assert not limits(PROMISE)
