import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cache.errors import MmerError
from cache.joined import open_cache
from cache.layout import StreamPlan
from cache.packs.catalog import open_pack
from cache.packs.export import export_pack
from cache.packs.importing import import_pack
from cache.packs.third_party import ImportOptions
from tests.support.packs import rewrite
from tests.support.toys import commit, create, plan_for, utterances_named


def pack_of(path: Path, layout: str) -> Path:
    """The pack of utterances a (3 rows), b (5) and c (2), int8 so that there are scales."""
    for name, content in _pack_files(layout).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path / "pack"


@functools.cache
def _pack_files(layout: str) -> dict[str, bytes]:
    """The files of the pack and of its cache, by path."""
    with TemporaryDirectory() as name:
        path = Path(name)
        plan = plan_for([3, 5, 2], dtype="int8")
        create(path / "toy.h5", utterances_named("abc"), [plan], enc={"w": np.ones(2)})
        commit(path / "toy.h5", plan, range(3))
        export_pack(open_cache(path / "toy.h5"), path / "pack", layout=layout)
        return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def refused(pack: Path) -> str:
    """Returns the error of an import, after a check that it wrote no file."""
    with pytest.raises(MmerError) as error:
        import_pack(open_pack(pack), pack.parent / "new.h5")
    assert not (pack.parent / "new.h5").exists()
    assert "\n" not in str(error.value)
    return str(error.value)


def stream(pack: Path, name: str) -> Path:
    (file,) = pack.glob(f"streams/*/{name}")
    return file


def put(file: Path, array: Any) -> None:
    np.save(file, array)


def _shape(file: Path) -> None:
    put(file, np.zeros((5, 3), np.int8))


def _rows(file: Path) -> None:
    put(file, np.zeros((4, 4), np.int8))


def _type(file: Path) -> None:
    put(file, np.zeros((5, 4), np.float32))


def _pickle(file: Path) -> None:
    put(file, np.array([{"a": 1}] * 5, dtype=object))


def _truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_shape, r"enc of b has shape \(5, 3\), not \(5, 4\)"),
        (_rows, r"enc of b has shape \(4, 4\), not \(5, 4\)"),
        (_type, "enc of b is float32, not int8"),
        (_pickle, "000001-b.npy is not a .npy array of plain numbers .*pickles are never loaded"),
        (_truncated, "000001-b.npy is not a .npy array"),
        (Path.unlink, "no file .*000001-b.npy"),
        (lambda file: put(file, np.load(file)[::-1]), "enc of b is not what was exported: its checksum differs"),
        (lambda file: file.write_bytes(b""), "000001-b.npy is not a .npy array"),
    ],
)
def test_damaged_arrays_are_named(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    pack = pack_of(tmp_path, "npy")
    damage(stream(pack, "000001-b.npy"))
    assert re.search(message, refused(pack))


def test_scales_must_be_one_per_row(tmp_path: Path) -> None:
    pack = pack_of(tmp_path, "npy")
    put(stream(pack, "000001-b.scales.npy"), np.ones(4, np.float16))
    assert "enc of b needs one scale per row" in refused(pack)


def test_packed_counts_must_agree(tmp_path: Path) -> None:
    pack = pack_of(tmp_path, "packed")
    values, lengths = stream(pack, "values.npy"), stream(pack, "lengths.npy")
    put(lengths, np.array([3, 4, 3]))
    assert "does not match the 3 lengths of rows.jsonl" in refused(pack)
    put(lengths, np.array([3, 5, 2]))
    put(values, np.load(values)[:-1])
    assert "sums to 10 rows, values.npy has (9, 4)" in refused(pack)


def test_rows_outside_of_the_packed_array_are_refused(tmp_path: Path) -> None:
    pack = pack_of(tmp_path, "packed")
    rewrite(stream(pack, "rows.jsonl"), lambda record: {**record, "start": -1})
    assert "rows -1 to 2 lie outside the 10 of values.npy" in refused(pack)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    pack = pack_of(tmp_path, "safetensors")
    shard = stream(pack, "values-00000.safetensors")
    save_file({name: values for name, values in load_file(shard).items() if name != "000001-b"}, shard)
    assert "cannot read 000001-b of" in refused(pack)
    shard.write_bytes(b"no header")
    assert "cannot read 000000-a of" in refused(pack)


@pytest.mark.parametrize("file", ["../../../../outside.npy", "/etc/passwd"])
def test_no_file_outside_of_the_pack_is_opened(tmp_path: Path, file: str) -> None:
    pack = pack_of(tmp_path, "npy")
    put(tmp_path / "outside.npy", np.zeros((3, 4), np.int8))
    rewrite(stream(pack, "rows.jsonl"), lambda record: {**record, "file": file})
    assert "lies outside" in refused(pack)


def _lacking_b(record: dict[str, Any]) -> dict[str, Any] | None:
    return None if record["id"] == "b" else record


def _twice_a(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "id": "a"}


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("rows.jsonl", _lacking_b, "do not list the same ids .first: b"),
        ("rows.jsonl", _twice_a, "duplicate id a"),
        ("rows.jsonl", lambda record: {**record, "rows": "3"}, "line 1: field rows must be int, got '3'"),
        ("rows.jsonl", lambda record: {**record, "state": "done"}, "state must be one of pending, committed, failed"),
        ("rows.jsonl", lambda record: {**record, "checksum": "7"}, "must be 32 and 16 hexadecimal digits"),
        ("utterances.jsonl", _lacking_b, "has 2 utterances of 3"),
        ("utterances.jsonl", _twice_a, "duplicate id a"),
        ("utterances.jsonl", lambda record: {**record, "label": 7}, "line 1: label must be text, got 7"),
        ("utterances.jsonl", lambda record: {**record, "text": "\ud800"}, "line 1: text must be text"),
        ("utterances.jsonl", lambda record: {**record, "turn": -1}, "turn of a must not be negative"),
    ],
)
def test_lines_that_cannot_be_are_told_with_their_place(
    tmp_path: Path, file: str, change: Callable[[dict[str, Any]], dict[str, Any] | None], message: str
) -> None:
    pack = pack_of(tmp_path, "npy")
    (path,) = pack.rglob(file)
    rewrite(path, change)
    assert re.search(message, refused(pack))


@pytest.mark.parametrize("text", ["{", "[1]", '{"a"', "\x00"])
def test_lines_that_are_no_objects_are_told_with_their_place(tmp_path: Path, text: str) -> None:
    pack = pack_of(tmp_path, "npy")
    (pack / "utterances.jsonl").write_text(f"{text}\n")
    assert f"{pack / 'utterances.jsonl'} line 1 is" in refused(pack)


def _manifest(pack: Path, **changes: Any) -> None:
    manifest = json.loads((pack / "pack.json").read_text())
    (pack / "pack.json").write_text(json.dumps({**manifest, **changes}))


def test_newer_formats_and_other_layouts_are_refused(tmp_path: Path) -> None:
    pack = pack_of(tmp_path, "npy")
    with pytest.raises(MmerError, match="is a pack of layout npy, not packed"):
        open_pack(pack, layout="packed")
    _manifest(pack, format_version=2)
    assert "pack format 2, this mmer reads format 1; upgrade mmer" in refused(pack)


def test_a_spec_must_have_its_key(tmp_path: Path) -> None:
    pack = pack_of(tmp_path, "npy")
    streams = json.loads((pack / "pack.json").read_text())["streams"]
    streams[0]["spec"]["weights"] = "other"
    _manifest(pack, streams=streams)
    assert "stream enc: its spec is of enc with the key" in refused(pack)
    streams[0]["spec"]["role"] = "smell"
    _manifest(pack, streams=streams)
    assert "has an invalid description (role of enc must be one of" in refused(pack)


def test_weights_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    pack = pack_of(tmp_path, "npy")
    (weights,) = pack.glob("weights/*")
    weights.write_bytes(b"")
    assert "cannot read the weights" in refused(pack)
    _manifest(pack, weights={"enc": "../toy.h5"})
    assert "lies outside" in refused(pack)


def test_a_pack_of_ours_describes_itself(tmp_path: Path) -> None:
    with pytest.raises(MmerError, match="omit --role and --metadata"):
        open_pack(pack_of(tmp_path, "npy"), ImportOptions(role="text"))


def test_what_is_no_pack_says_what_would_be_one(tmp_path: Path, toy: tuple[Path, StreamPlan]) -> None:
    with pytest.raises(MmerError, match=r"no folder .*nope"):
        open_pack(tmp_path / "nope")
    with pytest.raises(
        MmerError, match=r"has an unknown layout; known: npy \(pack.json of mmer-cache export\); packed"
    ):
        open_pack(toy[0].parent)
    with pytest.raises(MmerError, match=r"has no pack.json; mmer-cache export writes one"):
        open_pack(toy[0].parent, layout="npy")
