import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import MmerError
from fusion.experiment.fields import ELSEWHERE, configure
from fusion.grid.axes import SET_BY_GRID, STREAM, AxisReader, ValueRange, axis_types
from fusion.grid.combinations import value_text
from fusion.heads.catalog import HEADS

READER = AxisReader(fusion="rescmfa", where="--grid")


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, unique=True))
def test_numbers_come_back_as_they_were_written(values: list[float]) -> None:
    assert READER.axis(f"lr={','.join(map(value_text, values))}").values == tuple(values)


@given(st.lists(st.integers(), min_size=1, unique=True))
def test_whole_numbers_come_back_as_whole_numbers(values: list[int]) -> None:
    read = READER.axis(f"layers={','.join(map(value_text, values))}").values
    assert read == tuple(values)
    assert {type(value) for value in read} == {int}


@settings(max_examples=15)  # names of this form take long to draw
@given(
    st.lists(st.from_regex(r"[a-z][a-z0-9]{0,5}(@\d(,\d\d){0,3})?(\+history\d|\.codes)?", fullmatch=True), unique=True)
)
def test_names_of_streams_come_back_with_their_layers(names: list[str]) -> None:
    assert READER.axis(f"stream.text={','.join([*names, 'last'])}").values == (*names, "last")


@given(low=st.integers(1, 90), width=st.integers(1, 90), log=st.booleans(), name=st.sampled_from(["layers", "lr"]))
def test_a_range_comes_back_as_it_was_written(low: int, width: int, log: bool, name: str) -> None:
    kind = axis_types("rescmfa")[name]
    span = ValueRange(low=kind(low), high=kind(low + width), log=log, whole=kind is int)
    axis = READER.axis(f"{name}={span}")
    assert (axis.value_range, axis.values) == (span, ())


@pytest.mark.parametrize("fusion", HEADS)
def test_every_field_that_can_be_configured_is_an_axis(fusion: str) -> None:
    kinds = axis_types(fusion)
    assert SET_BY_GRID.keys() == ELSEWHERE.keys()
    assert not SET_BY_GRID.keys() & kinds.keys()
    with pytest.raises(MmerError) as error:
        configure(fusion, {"zzz": "1"})
    known = str(error.value).partition("known: ")[2].split(", ")
    assert {name for name in kinds if not name.startswith(STREAM)} == set(known)


def test_a_value_that_only_the_configuration_refuses_is_read() -> None:
    reader = AxisReader(fusion="bimodal", where="--grid")
    assert reader.axis("tau=-1,0.1").values == (-1.0, 0.1)
    assert reader.axis("optimizer=sgd").values == ("sgd",)


def test_one_value_may_stand_alone_and_spell_a_range() -> None:
    assert READER.scalar("layers", 2).values == (2,)
    assert READER.scalar("layers", " 1..6 ").value_range == ValueRange(low=1, high=6, whole=True)
    assert READER.scalar("stream.text", "a@9,12").values == ("a@9,12",)
    assert READER.scalar("gate", "a..b").values == ("a..b",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lr", "'lr' is not of the form FIELD=VALUES, such as lr=1e-4,3e-4"),
        ("=3", "'=3' is not of the form FIELD=VALUES, such as lr=1e-4,3e-4"),
        ("lr=", "lr has no value; name one or more, such as lr=0.1,0.3"),
        ("layers= ", "layers has no value; name one or more, such as layers=2,4"),
        ("adapter=", "adapter has no value; name one or more, such as adapter=true,false"),
        ("stream.text=", "stream.text has no value; name one or more, such as stream.text=A,B"),
        ("lr=1e-3,", "lr has an empty value; remove the value or the additional comma"),
        ("gate=tanh,,identity", "gate has an empty value; remove the value or the additional comma"),
        ("stream.text=a,,b", "stream.text must be the name of a stream, got ''"),
        ("lr=1e-3,3e-4,0.001", "lr is given the value 0.001 twice; give it once"),
        ("adapter=on,true", "adapter is given the value true twice; give it once"),
        ("stream.text=a,a", "stream.text is given the value a twice; give it once"),
        ("lr=fast", "lr must be a number, got 'fast'"),
        ("lr=nan", "lr must be a number, got 'nan'"),
        ("layers=2,2.5", "layers must be a whole number, got '2.5'"),
        ("adapter=maybe", "adapter must be true or false, got 'maybe'"),
        ("seed=1,2", "seed cannot be an axis; every combination is trained with the seeds of --seeds"),
        ("droput=0.1", "head rescmfa and its training have no field 'droput'; did you mean dropout?"),
        ("text=a", "head rescmfa and its training have no field 'text'; did you mean stream.text?"),
        ("layers=1..2.5", "layers must be a whole number, got '2.5'"),
        ("lr=1,2..3", "lr=1,2..3 is not a range; write a single range as lr=LOW..HIGH or lr=log:LOW..HIGH"),
        ("lr=..3", "lr=..3 is not a range; write a single range as lr=LOW..HIGH or lr=log:LOW..HIGH"),
        ("lr=log:3", "lr=log:3 is not a range; write a single range as lr=LOW..HIGH or lr=log:LOW..HIGH"),
        ("lr=log:0..1", "lr: a range by log: must start above 0, got log:0.0..1.0"),
        ("layers=6..1", "layers: the end of a range must be above its start, got 6..1"),
        ("adapter=0..1", "adapter must be true or false, got '0..1'"),
    ],
)
def test_what_cannot_be_an_axis_is_one_clear_line(text: str, told: str) -> None:
    with pytest.raises(MmerError) as error:
        READER.axis(text)
    assert str(error.value) == f"--grid: {told}"


@pytest.mark.parametrize("name", ["stream.txt", "strem.text", "zzz"])
def test_an_unknown_axis_is_told_with_the_streams_that_may_be_chosen(name: str) -> None:
    with pytest.raises(MmerError, match=r"have no field .*(did you mean|known:) .*stream\.text"):
        READER.axis(f"{name}=a")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("alpha=0/alpha=1", "alpha is given twice; give it once, with all its values"),
        ("alpha=0,1/layers=2", "fields changed together by / have one value each, got 'alpha=0,1/layers=2'; write one"),
        ("alpha=0..1", r"alpha=0.0..1.0 is a range, which only --grid takes; list the values"),
        ("alpha=0/", "'' is not of the form FIELD=VALUES"),
        ("alph=0", "have no field 'alph'; did you mean alpha?"),
    ],
)
def test_what_cannot_be_a_change_is_one_clear_line(text: str, told: str) -> None:
    with pytest.raises(MmerError) as error:
        AxisReader(fusion="rescmfa", where="--ablate").changes(text)
    assert str(error.value).startswith("--ablate: ")
    assert told in str(error.value)
