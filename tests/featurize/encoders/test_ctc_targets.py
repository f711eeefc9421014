import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from featurize.encoders.ctc_targets import CharacterTargets
from featurize.inputs.transcript import CTC_SYMBOLS, ctc_ids, spoken
from tests.support.models import turns

TEXTS = (
    st.lists(st.sampled_from(["I", "don't", "KNOW", "[LAUGHTER]", "5", "é", "😀", "-", " "])).map(" ".join) | st.text()
)
POLICIES = st.sampled_from(["strip", "keep"])


def targets(event_tags: str = "strip") -> CharacterTargets:
    return CharacterTargets(event_tags=event_tags, versions={"mmer": "1"})


def spelt(text: str, event_tags: str = "strip") -> str:
    ((rows,),) = targets(event_tags).encode(turns(text))
    return "".join(CTC_SYMBOLS[index] for index in rows[:, 0])


def test_a_transcript_becomes_a_column_of_symbols() -> None:
    ((rows,), (empty,)) = targets().encode(turns("I know.", ""))
    assert rows.dtype == np.uint8
    assert rows.tolist() == [[10], [4], [26], [9], [8], [18]]
    assert empty.shape == (0, 1)


def test_event_tags_are_stripped_or_spelt() -> None:
    assert spelt("[LAUGHTER] I know") == "I|KNOW"
    assert spelt("[LAUGHTER] I know", "keep") == "LAUGHTER|I|KNOW"


def test_a_transcript_that_cannot_be_spelt_has_no_row_and_is_no_failure() -> None:
    empty, tag, digits = targets().plan(turns("", "[LAUGHTER]", "42"))
    for planned in (empty, tag, digits):
        assert (planned.rows, planned.failure) == ((0,), "")
        assert planned.cost == 1
    assert (empty.note, tag.note) == ("", "")
    assert digits.note == "2 characters such as 4 not in the CTC vocabulary"


@given(TEXTS, POLICIES)
def test_as_many_rows_as_planned(text: str, event_tags: str) -> None:
    encoder = targets(event_tags)
    (planned,) = encoder.plan(turns(text))
    ((rows,),) = encoder.encode(turns(text))
    assert (len(rows),) == planned.rows
    np.testing.assert_array_equal(rows[:, 0], ctc_ids(spoken(text, event_tags).text))


def test_the_spec_records_the_symbols_and_the_policy() -> None:
    (spec,) = targets().specs
    assert (spec.name, spec.role, spec.shape, spec.dtype, spec.consumes) == (
        "ctc.chars",
        "chars",
        (1,),
        "uint8",
        "transcript",
    )
    assert spec.preprocessing["symbols"] == "".join(CTC_SYMBOLS)
    assert spec.key != targets("keep").specs[0].key
    assert spec.key == CharacterTargets(event_tags="strip", versions={"mmer": "2"}).specs[0].key
