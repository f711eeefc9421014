from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.audit import verify
from cache.joined import open_cache
from cache.layout import COMMITTED, FAILED, StreamPlan, read_layout
from cache.packs.catalog import open_pack
from cache.packs.export import export_pack
from cache.packs.importing import import_pack
from cache.packs.native import WRITERS
from cache.rows import StoredRows
from cache.store import FeatureCache
from cache.stream import StreamSpec
from cache.utterance import Utterance
from cache.writer import CacheWriter, Row
from tests.support.packs import everything
from tests.support.toys import commit, create, plan_for, utterances_named

NASTY = [
    "a/b",
    "../up",
    "a.b",
    "A",
    "a",
    "with space",
    "x" * 300,
    "ü\u2028ß",
    "con",
    '"q"\\',
    "a\nb\tc",
    "__metadata__",
]
NAMES = ["enc@4,8,12+history10~lsa", "enc.codes", "enc", "ctc.chars", "b=c", "ENC"]
DTYPES = {
    "float16": "audio",
    "float32": "text",
    "int8": "audio",
    "uint16": "codes",
    "int32": "tokens",
    "uint8": "chars",
}

ids = st.lists(
    st.sampled_from(NASTY) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
    min_size=1,
    max_size=5,
    unique=True,
)
rows = st.tuples(
    st.sampled_from(["committed", "failed", "pending"]),
    st.integers(0, 3),
    st.sampled_from(["", "a note, ü", "x" * 200]),
)


@st.composite
def streams(draw: st.DrawFn, count: int) -> list[tuple[StreamPlan, list[tuple[str, int, str]]]]:
    result = []
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)):
        dtype = draw(st.sampled_from(sorted(DTYPES)))
        spec = StreamSpec(
            name=name,
            role=DTYPES[dtype],
            source="a/b",
            shape=draw(st.sampled_from([(1,), (3,), (2, 3)])),
            dtype=dtype,
            rate_hz=draw(st.sampled_from([0.0, 50.0])),
            preprocessing={"hop": 160, "text": "strip", "none": None},
            trained_on={"speakers": ["s1"]},
        )
        what = draw(st.lists(rows, min_size=count, max_size=count))
        failures = {index: note or "why" for index, (state, _, note) in enumerate(what) if state == "failed"}
        lengths = np.array([length for _, length, _ in what], dtype=np.int64)
        result.append((StreamPlan(spec=spec, lengths=lengths, failures=failures), what))
    return result


@st.composite
def corpora(draw: st.DrawFn) -> tuple[list[Utterance], list[tuple[StreamPlan, list[tuple[str, int, str]]]]]:
    names = draw(ids)
    number = st.none() | st.floats(-5, 5)
    utterances = [
        Utterance(
            id=name,
            text=draw(st.sampled_from(["", "hm … \r\n", "ok"])),
            turn=draw(st.none() | st.integers(0, 9)),
            valence=draw(number),
        )
        for name in names
    ]
    return utterances, draw(streams(len(names)))


def fill(path: Path, plan: StreamPlan, what: list[tuple[str, int, str]]) -> None:
    draw = np.random.default_rng(0)
    with CacheWriter(read_layout(path)) as writer:
        for index, (state, length, note) in enumerate(what):
            if state == "committed":
                size = (length, *plan.spec.shape)
                values = (draw.standard_normal(size) * 50).astype(np.int64 if "int" in plan.spec.dtype else np.float32)
                scales = draw.random(length).astype(np.float16) if plan.spec.dtype == "int8" else None
                stored = StoredRows(np.abs(values).astype(plan.spec.dtype), scales)
                digest = bytes([index]) * 15 + b"d"
                writer.commit([Row(stream=plan.spec.name, index=index, stored=stored, digest=digest, note=note)])


@pytest.mark.parametrize("layout", sorted(WRITERS))
@given(corpus=corpora())
@settings(max_examples=6)  # each writes two caches and a pack
def test_nothing_is_lost_on_the_way(tmp_path_factory: pytest.TempPathFactory, layout: str, corpus) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("packs")
    utterances, result = corpus
    weights = {plan.spec.encoder: {"w": np.arange(3.0), "deep.b": np.array(2, np.float32)} for plan, _ in result[:1]}
    create(folder / "a.h5", utterances, [plan for plan, _ in result], **weights)
    for plan, what in result:
        fill(folder / "a.h5", plan, what)
    export_pack(open_cache(folder / "a.h5"), folder / "pack", layout=layout)
    done = import_pack(open_pack(folder / "pack"), folder / "b.h5")
    assert done.created
    assert everything(folder / "b.h5") == everything(folder / "a.h5")
    assert verify(FeatureCache(folder / "b.h5")) == verify(FeatureCache(folder / "a.h5")) == []


def test_shard_files_leave_as_one_pack(tmp_path: Path) -> None:
    plan = plan_for([2, 3])
    for name, ids in (("a-0.h5", "ab"), ("a-1.h5", "cd")):
        create(tmp_path / name, utterances_named(ids), [plan], enc={"w": np.ones(2)})
        commit(tmp_path / name, plan, [0, 1])
    export_pack(open_cache(tmp_path / "a-*.h5"), tmp_path / "pack", layout="packed")
    import_pack(open_pack(tmp_path / "pack"), tmp_path / "b.h5")
    joined, single = open_cache(tmp_path / "a-*.h5"), FeatureCache(tmp_path / "b.h5")
    assert single.ids == joined.ids == ["a", "b", "c", "d"]
    for index in range(4):
        np.testing.assert_array_equal(single.stream("enc").read(index), joined.stream("enc").read(index))
    assert single.weights("enc")["w"].tolist() == [1, 1]


def test_shards_of_safetensors_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache.packs.native.SHARD_BYTES", 30)
    plan = plan_for([3, 5, 1, 2])
    create(tmp_path / "a.h5", utterances_named("abcd"), [plan])
    commit(tmp_path / "a.h5", plan, range(4))
    export_pack(open_cache(tmp_path / "a.h5"), tmp_path / "pack", layout="safetensors")
    assert len(list(tmp_path.rglob("values-*.safetensors"))) == 2  # of 64 and of 24 bytes
    import_pack(open_pack(tmp_path / "pack"), tmp_path / "b.h5")
    assert everything(tmp_path / "b.h5") == everything(tmp_path / "a.h5")


def test_chosen_streams_come_under_another_name_with_their_weights(
    toy: tuple[Path, StreamPlan], tmp_path: Path
) -> None:
    export_pack(open_cache(toy[0]), tmp_path / "pack", streams=["enc"])
    import_pack(open_pack(tmp_path / "pack"), tmp_path / "b.h5", streams=["other=enc"], corpus="mine")
    cache = FeatureCache(tmp_path / "b.h5")
    assert list(cache.streams) == ["other"]
    assert cache.stream("other").key == replace(toy[1].spec, name="other").key == toy[1].spec.key
    assert cache.stream("other").state.tolist() == [COMMITTED, COMMITTED, FAILED, COMMITTED]
    assert cache.weights("other")["w"].tolist() == [0, 1, 2]
    assert cache.header["corpus"] == {"name": "mine", "root": "."}
