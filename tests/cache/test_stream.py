from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.stream import ROLES, SPEECH, StreamSpec, is_member_name

SPEC = StreamSpec(name="a", role="audio", source="a/b", weights="w", shape=(8,), dtype="float16", rate_hz=50.0)
DECIDES: dict[str, Any] = {
    "role": "mel",
    "source": "a/c",
    "revision": "1",
    "weights": "x",
    "layers": "4",
    "shape": (9,),
    "dtype": "float32",
    "precision": "bfloat16",
    "rate_hz": 100.0,
    "preprocessing": {"normalize": True},
}
RECORDED: dict[str, Any] = {
    "name": "b",
    "versions": {"torch": "3"},
    "limits": {"max_seconds": 9.0},
    "trained_on": {"speakers": ["1"]},
}


@pytest.mark.parametrize("field", DECIDES)
def test_whatever_decides_the_values_changes_the_key(field: str) -> None:
    changed = replace(SPEC, **{field: DECIDES[field]})
    assert changed.key != SPEC.key
    assert any(field in difference for difference in SPEC.differences(changed))


@pytest.mark.parametrize("field", RECORDED)
def test_what_is_only_recorded_leaves_the_key(field: str) -> None:
    changed = replace(SPEC, **{field: RECORDED[field]})
    assert changed.key == SPEC.key
    assert SPEC.differences(changed) == []


def test_every_field_either_decides_or_is_recorded() -> None:
    assert set(DECIDES) | set(RECORDED) == set(StreamSpec.__dataclass_fields__)


def test_key_is_the_same_in_every_process() -> None:
    # of the format: a changed value here means that caches of older versions are recomputed
    assert SPEC.key == "0700e047d23af58052b003c588a83505"


@given(
    st.text(st.characters(exclude_characters="/\0"), min_size=1).filter(is_member_name),
    st.sampled_from(sorted(ROLES)),
    st.lists(st.integers(1, 99), min_size=1, max_size=2),
    st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()),
)
def test_json_round_trip(name: str, role: str, shape: list[int], preprocessing: dict[str, str]) -> None:
    spec = replace(SPEC, name=name, role=role, shape=tuple(shape), preprocessing=preprocessing)
    again = StreamSpec.from_json(spec.to_json())
    assert again == spec
    assert again.key == spec.key


def test_fields_of_a_later_minor_version_are_left_out() -> None:
    assert StreamSpec.from_json(SPEC.to_json().replace("{", '{"tomorrow": 1, ', 1)) == SPEC


def test_rows_take_their_scale_along() -> None:
    assert replace(SPEC, dtype="int8").row_bytes == 8 + 2
    assert replace(SPEC, shape=(3, 8)).row_bytes == 3 * 8 * 2


@pytest.mark.parametrize("name", ["enc", "enc@4,8", "enc@mean9-12", "enc.codes", "enc.tokens"])
def test_streams_of_one_encoder_know_its_name(name: str) -> None:
    assert replace(SPEC, name=name).encoder == "enc"


def test_role_says_what_is_consumed() -> None:
    assert SPEC.consumes == SPEECH
    assert replace(SPEC, role="tokens").consumes == "transcript"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "a/b", "no slash"),
        ("name", "", "non-empty"),
        ("role", "video", "audio, mel"),
        ("shape", (0,), "positive"),
    ],
)
def test_impossible_specs_are_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SPEC, **{field: value})
