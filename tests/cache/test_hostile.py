"""Caches that somebody forged: each is refused in one line before a row is mapped or another file is read."""

import json
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import CacheMissing, CacheUnreadable
from cache.layout import BOOKKEEPING, StreamPlan, read_layout, read_weights
from cache.store import FeatureCache
from cache.utterance import COLUMNS
from tests.support.toys import commit, create, plan_for, utterances_named

Damage = Callable[[h5py.File], None]
STREAM, ROWS, COUNT = "streams/enc", 10, 4
DATASETS = [*(f"{STREAM}/{name}" for name in ("values", "offsets", *BOOKKEEPING)), "utterances/id", "utterances/turn"]


def forged(toy: tuple[Path, StreamPlan], damage: Damage) -> str:
    """Applies a damage and returns the line that opening the file ends in."""
    with h5py.File(toy[0], "r+") as file:
        damage(file)
    with pytest.raises(CacheUnreadable) as caught:
        everything_of(toy[0])
    assert "\n" not in str(caught.value)
    assert toy[0].name in str(caught.value)
    return str(caught.value)


def everything_of(path: Path) -> None:
    """Reads all that a cache holds, as info and export do."""
    cache = FeatureCache(path)
    cache.all_weights()
    for stream in cache.streams.values():
        for index in range(len(stream)):
            stream.reason(index)
            stream.stored(index).values.sum()


def swapped(file: h5py.File, name: str, **how: Any) -> h5py.Dataset:
    """Replaces a dataset by another one of the same values."""
    values = file[name][()]
    shape = values.shape
    del file[name]
    dtype = how.pop("dtype", h5py.string_dtype() if values.dtype == object else values.dtype)
    return file.create_dataset(name, how.pop("shape", shape), dtype, **how)


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize(
    "dtype",
    [
        h5py.string_dtype("ascii"),
        h5py.vlen_dtype(np.int32),
        h5py.ref_dtype,
        h5py.regionref_dtype,
        np.dtype("S7"),
        np.dtype(">f8"),
        np.dtype(">u8"),
        np.dtype(bool),
        np.dtype([("state", "u1")]),
        np.dtype(("<f4", (2,))),
        np.dtype("<c16"),
    ],
    ids=str,
)
def test_a_dataset_of_another_type_is_refused(toy: tuple[Path, StreamPlan], name: str, dtype: Any) -> None:
    line = forged(toy, lambda file: swapped(file, name, dtype=dtype) and None)
    assert name.rpartition("/")[2] in line


def test_addresses_in_a_column_are_never_followed(toy: tuple[Path, StreamPlan]) -> None:
    def point_anywhere(file: h5py.File) -> None:
        dataset = swapped(file, f"{STREAM}/state", dtype=h5py.string_dtype())
        dataset[...] = [b"x"] * COUNT
        offsets.append(dataset.id.get_offset())

    offsets: list[int] = []
    with h5py.File(toy[0], "r+") as file:
        point_anywhere(file)
    with toy[0].open("r+b") as raw:
        raw.seek(offsets[0])
        raw.write((0x414141414140).to_bytes(8, "little") * 2 * COUNT)
    with pytest.raises(CacheUnreadable, match="state is not of uint8"):
        FeatureCache(toy[0])


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("shape", [(), (COUNT, 1), (COUNT - 1,), (COUNT + 3,), (0,), (2, 2, 1)], ids=str)
def test_a_dataset_of_another_shape_is_refused(toy: tuple[Path, StreamPlan], name: str, shape: tuple[int, ...]) -> None:
    forged(toy, lambda file: swapped(file, name, shape=shape) and None)


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize(
    "how",
    [{"chunks": True}, {"compression": "gzip"}, {"fletcher32": True}, {"maxshape": True}, {"external": True}],
    ids=str,
)
def test_a_dataset_that_is_not_plain_bytes_of_this_file_is_refused(
    toy: tuple[Path, StreamPlan], name: str, how: dict[str, Any]
) -> None:
    def store_otherwise(file: h5py.File) -> None:
        shape = file[name].shape
        kind = np.dtype("V16") if file[name].dtype.hasobject else file[name].dtype  # HDF5 itself refuses texts there
        if "maxshape" in how:
            swapped(file, name, maxshape=(None, *shape[1:]))
        elif "external" in how:
            outside = [(str(toy[0].with_name("secret")), 0, h5py.h5f.UNLIMITED)]
            swapped(file, name, dtype=kind, external=outside)
        else:
            swapped(file, name, dtype=kind, **how)

    toy[0].with_name("secret").write_bytes(b"what the owner of this machine keeps" * 99)
    assert "secret" not in forged(toy, store_otherwise)


@pytest.mark.parametrize("name", DATASETS)
def test_a_virtual_dataset_is_refused(toy: tuple[Path, StreamPlan], name: str) -> None:
    def point_elsewhere(file: h5py.File) -> None:
        shape, dtype = file[name].shape, file[name].dtype
        dtype = np.dtype("V16") if dtype.hasobject else dtype
        layout = h5py.VirtualLayout(shape, dtype)
        with h5py.File(toy[0].with_name("other.h5"), "w") as other:
            layout[...] = h5py.VirtualSource(other.create_dataset("x", shape, dtype))
        del file[name]
        file.create_virtual_dataset(name, layout)

    forged(toy, point_elsewhere)


@pytest.mark.parametrize(
    "name", [*DATASETS, STREAM, "streams", "utterances", "weights", "weights/enc", "weights/enc/w"]
)
@pytest.mark.parametrize("kind", ["soft", "loop", "external", "gone", "other kind"])
def test_no_link_leads_out_of_the_file(toy: tuple[Path, StreamPlan], name: str, kind: str) -> None:
    def link(file: h5py.File) -> None:
        if kind == "soft":
            file.move(name, "elsewhere")
            file[name] = h5py.SoftLink("/elsewhere")
            return
        is_group = isinstance(file[name], h5py.Group)
        del file[name]
        if kind == "loop":
            file[name] = h5py.SoftLink(f"/{name}")
        elif kind == "external":
            with h5py.File(toy[0].with_name("other.h5"), "w") as other:
                other["secret"] = np.arange(3.0)
            file[name] = h5py.ExternalLink("other.h5", "/secret")
        elif is_group:
            file[name] = np.arange(3.0)
        else:
            file.create_group(name)

    if kind == "gone" and name.startswith(("weights", "streams/enc")) and name.count("/") < 2:
        pytest.skip("a file may lack it")
    if kind == "gone" and name == "weights/enc/w":
        pytest.skip("an encoder may have no weights")
    forged(toy, link if kind != "gone" else lambda file: file.__delitem__(name))


def test_groups_that_hold_themselves_end(toy: tuple[Path, StreamPlan]) -> None:
    def nest(file: h5py.File) -> None:
        file["weights/enc/again"] = file["weights"]
        file["streams/again"] = file["/"]

    forged(toy, nest)


@pytest.mark.parametrize(
    "offsets",
    [[0, 8, 3, 8, 10], [-3, 0, 3, 8, 10], [1, 3, 8, 8, 10], [0, 3, 8, 8, 11], [0, 3, 8, 8, 9], [0, 3, 8, 8, 2**62]],
)
def test_offsets_that_do_not_divide_the_rows_are_refused(toy: tuple[Path, StreamPlan], offsets: list[int]) -> None:
    def write(file: h5py.File) -> None:
        file[f"{STREAM}/offsets"][...] = offsets

    assert "offsets" in (line := forged(toy, write)) or "values" in line


def _described(**changed: Any) -> Damage:
    def write(file: h5py.File) -> None:
        attributes = file[STREAM].attrs
        attributes["spec"] = json.dumps({**json.loads(attributes["spec"]), **changed})

    return write


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "other"},
        {"name": ["enc"]},
        {"name": ""},
        {"role": []},
        {"role": "none"},
        {"dtype": "O"},
        {"dtype": "f4,O"},
        {"dtype": ">f2"},
        {"dtype": "float32"},
        {"dtype": {"names": ["a"], "formats": ["O"]}},
        {"shape": []},
        {"shape": "44"},
        {"shape": [4.0]},
        {"shape": [True]},
        {"shape": [-4]},
        {"shape": [2**70]},
        {"shape": [4, 1]},
        {"shape": None},
        {"rate_hz": float("nan")},
        {"rate_hz": -1},
        {"rate_hz": "50"},
        {"preprocessing": []},
        {"preprocessing": {"view": {"deep": 1}}},
        {"trained_on": "everything"},
        {"layers": 3},
    ],
    ids=str,
)
def test_a_description_of_other_types_is_refused(toy: tuple[Path, StreamPlan], changed: dict[str, Any]) -> None:
    forged(toy, _described(**changed))


TEXTS = ["", "{", "[]", "null", "7", "[" * 100_000, '{"a":' * 100_000, '{"name": NaN}', '{"name": 1e999}', "9" * 5000]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:12])
@pytest.mark.parametrize(("place", "name"), [(STREAM, "spec"), ("/", "corpus")])
def test_json_that_is_no_description_is_refused(toy: tuple[Path, StreamPlan], place: str, name: str, text: str) -> None:
    def write(file: h5py.File) -> None:
        file[place].attrs[name] = text

    forged(toy, write)


@pytest.mark.parametrize(
    "value",
    [7, [1.0, 2.0], np.array(["a", "b"], dtype=h5py.string_dtype()), np.bytes_(b"fixed"), h5py.Empty("f4"), None],
    ids=str,
)
@pytest.mark.parametrize(
    ("place", "name"),
    [("/", "mmer_version"), ("/", "created"), ("/", "corpus"), ("/", "format"), (STREAM, "spec"), (STREAM, "key")],
)
def test_an_attribute_that_is_not_one_text_is_refused(
    toy: tuple[Path, StreamPlan], place: str, name: str, value: Any
) -> None:
    def write(file: h5py.File) -> None:
        del file[place].attrs[name]
        if value is not None:
            file[place].attrs[name] = value

    forged(toy, write)


@pytest.mark.parametrize("value", ["1", 1.0, [1, 1], h5py.Empty("i8")], ids=str)
def test_a_format_version_that_is_not_one_integer_is_refused(toy: tuple[Path, StreamPlan], value: Any) -> None:
    def write(file: h5py.File) -> None:
        file.attrs["format_version"] = value

    forged(toy, write)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("id", ["a", "b", "c", "a"]),
        ("id", ["a", "", "c", "d"]),
        ("label", [b"\xff\xfe", b"", b"", b""]),
        ("duration_s", [1.0, np.inf, 1.0, 1.0]),
        ("duration_s", [1.0, -1.0, 1.0, 1.0]),
        ("start_s", [-1.0, 0.0, 0.0, 0.0]),
        ("end_s", [0.0, 1.0, 1.0, 1.0]),
    ],
)
def test_columns_of_impossible_values_are_refused(toy: tuple[Path, StreamPlan], column: str, values: list[Any]) -> None:
    def write(file: h5py.File) -> None:
        file[f"utterances/{column}"][...] = values

    forged(toy, write)


def test_a_text_cannot_claim_more_bytes_than_the_file_has(toy: tuple[Path, StreamPlan]) -> None:
    with h5py.File(toy[0]) as file:
        offset = file["utterances/text"].id.get_offset()
    with toy[0].open("r+b") as raw:
        raw.seek(offset)
        raw.write((2**32 - 1).to_bytes(4, "little"))
    with pytest.raises(CacheUnreadable, match="text claims more text than the file has bytes"):
        FeatureCache(toy[0])


@pytest.mark.parametrize(
    "dtype", [h5py.string_dtype(), h5py.ref_dtype, h5py.vlen_dtype(float), np.dtype([("x", "O")])], ids=str
)
def test_weights_of_anything_but_numbers_are_refused(toy: tuple[Path, StreamPlan], dtype: Any) -> None:
    kind = dtype if dtype.names is None else np.dtype([("x", h5py.string_dtype())])
    forged(toy, lambda file: file.create_dataset("weights/enc/more", (3,), kind) and None)


def test_compressed_weights_are_never_decompressed(toy: tuple[Path, StreamPlan]) -> None:
    def bomb(file: h5py.File) -> None:
        file.create_dataset("weights/enc/more", (1 << 40,), "f4", chunks=(1 << 20,), compression="gzip")

    assert "not contiguous" in forged(toy, bomb)


def test_weights_may_be_single_numbers_and_truth_values(tmp_path: Path) -> None:
    weights: dict[str, Any] = {"scale": np.float32(3.5), "mask": np.array([True, False]), "ids": np.arange(3)}
    create(tmp_path / "a.h5", utterances_named("a"), [plan_for([2])], enc=weights)
    held = read_weights(tmp_path / "a.h5")["enc"]
    assert {name: (values.dtype, values.tolist()) for name, values in held.items()} == {
        name: (values.dtype, values.tolist()) for name, values in weights.items()
    }


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.h5")
    with pytest.raises(CacheUnreadable, match="not a regular file"):
        FeatureCache(tmp_path / "a.h5")


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero"])
def test_a_device_is_not_read(path: str) -> None:
    with pytest.raises(CacheUnreadable, match="not a regular file"):
        FeatureCache(Path(path))


def test_links_to_a_cache_are_followed_and_loops_end(toy: tuple[Path, StreamPlan], tmp_path: Path) -> None:
    (tmp_path / "link.h5").symlink_to(toy[0])
    assert FeatureCache(tmp_path / "link.h5").ids == ["a", "b", "c", "d"]
    (tmp_path / "loop.h5").symlink_to("loop.h5")
    with pytest.raises(CacheUnreadable, match="cannot be read"):
        FeatureCache(tmp_path / "loop.h5")
    with pytest.raises(CacheMissing):
        FeatureCache(toy[0] / "a.h5")


def test_weights_of_another_file_are_refused(toy: tuple[Path, StreamPlan]) -> None:
    cache = FeatureCache(toy[0])
    toy[0].unlink()
    create(toy[0], utterances_named("ab"), [plan_for([1, 1])], enc={"w": np.zeros(9)})
    with pytest.raises(CacheUnreadable, match="was replaced by another file"):
        cache.all_weights()
    assert pickle.loads(pickle.dumps(FeatureCache(toy[0]))).ids == ["a", "b"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A file that may be written to, and the bytes of a small cache."""
    path, plan = tmp_path_factory.mktemp("small") / "bytes.h5", plan_for([3, 2])
    create(path, utterances_named("ab"), [plan], enc={"w": np.arange(3.0)})
    commit(path, plan, [0, 1])
    return path, path.read_bytes()


@settings(max_examples=50)
@given(st.data())
def test_any_changed_bytes_end_in_one_line_or_in_a_cache(small: tuple[Path, bytes], data: st.DataObject) -> None:
    path, whole = small[0], bytearray(small[1])
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(whole) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, bytes(8)]))
        whole[start : start + len(piece)] = piece
    path.write_bytes(whole)
    with suppress(CacheUnreadable):
        everything_of(path)


def test_the_columns_of_this_page_are_those_of_the_format(toy: tuple[Path, StreamPlan]) -> None:
    assert {name.rpartition("/")[2] for name in DATASETS} >= {"values", "offsets", *BOOKKEEPING}
    assert {"id", "turn"} <= {*COLUMNS}
    assert read_layout(toy[0]).streams["enc"].regions["values"].shape == (ROWS, 4)
