import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from cache.errors import DiskFull, MmerError
from cache.joined import open_cache
from cache.layout import StreamPlan, read_layout
from cache.packs.export import export_pack
from cache.packs.native import safe_name
from tests.support.toys import commit, create, plan_for, utterances_named, values_for


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_anybody_can_read_a_pack(toy: tuple[Path, StreamPlan], tmp_path: Path) -> None:
    done = export_pack(open_cache(toy[0]), tmp_path / "pack")
    home = tmp_path / "pack" / "streams" / "00-enc"
    assert (done.utterances, done.committed) == (4, {"enc": 3})
    assert done.size_bytes == sum(file.stat().st_size for file in (tmp_path / "pack").rglob("*") if file.is_file())
    assert lines(tmp_path / "pack" / "utterances.jsonl")[1] == {
        "id": "b", "audio": "b.wav", "text": "text of b", "label": "sad", "speaker": "s1"
    }  # fmt: skip
    assert lines(home / "rows.jsonl")[2] == {"id": "c", "state": "failed", "rows": 0, "reason": "missing"}
    assert lines(home / "rows.jsonl")[1].items() >= {"id": "b", "rows": 5, "file": "000001-b.npy"}.items()
    np.testing.assert_array_equal(np.load(home / "000001-b.npy"), values_for(toy[1], 1).astype(np.float16))
    (weights,) = (tmp_path / "pack" / "weights").iterdir()
    assert load_file(weights)["w"].tolist() == [0, 1, 2]


def test_a_packed_pack_is_two_arrays(toy: tuple[Path, StreamPlan], tmp_path: Path) -> None:
    export_pack(open_cache(toy[0]), tmp_path / "pack", layout="packed")
    home = tmp_path / "pack" / "streams" / "00-enc"
    lengths = np.load(home / "lengths.npy")
    assert lengths.tolist() == [3, 5, 0, 2]
    parts = np.split(np.load(home / "values.npy"), np.cumsum(lengths)[:-1])
    np.testing.assert_array_equal(parts[3], values_for(toy[1], 3).astype(np.float16))


def test_names_of_files_are_safe_and_differ(tmp_path: Path) -> None:
    ids = ["A", "a", "../../b", "x" * 500, "a b.c/d", "con", "ü"]
    create(tmp_path / "a.h5", utterances_named(ids), [plan := plan_for([1] * len(ids), name="e@4,8+h~lsa")])
    commit(tmp_path / "a.h5", plan, range(len(ids)))
    export_pack(open_cache(tmp_path / "a.h5"), tmp_path / "pack")
    home = tmp_path / "pack" / "streams" / "00-e_4_8_h_lsa"
    names = [file.name for file in home.glob("*.npy")]
    assert len({name.lower() for name in names}) == len(ids)
    assert all(name.isascii() and len(name) < 100 for name in names)
    assert [record["id"] for record in lines(home / "rows.jsonl")] == ids
    assert safe_name(3, "") == "000003-"


def test_nothing_is_overwritten_unless_it_is_a_pack_and_asked_for(toy: tuple[Path, StreamPlan], tmp_path: Path) -> None:
    cache = open_cache(toy[0])
    export_pack(cache, tmp_path / "pack")
    with pytest.raises(MmerError, match="already holds a feature pack; choose another folder, or pass --replace"):
        export_pack(cache, tmp_path / "pack", layout="packed")
    export_pack(cache, tmp_path / "pack", layout="packed", replace=True)
    assert json.loads((tmp_path / "pack" / "pack.json").read_text())["layout"] == "packed"
    assert not list(tmp_path.rglob("00000*.npy"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for folder in (tmp_path / "mine", toy[0]):
        with pytest.raises(MmerError, match="already exists and is not a feature pack of mmer"):
            export_pack(cache, folder, replace=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_leftovers_of_killed_exports_are_swept(toy: tuple[Path, StreamPlan], tmp_path: Path) -> None:
    (tmp_path / "out" / ".pack.part" / "streams").mkdir(parents=True)
    export_pack(open_cache(toy[0]), tmp_path / "out" / "pack")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["pack"]


def test_a_failed_export_leaves_the_older_pack_whole(
    toy: tuple[Path, StreamPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_pack(open_cache(toy[0]), tmp_path / "out" / "pack")
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    values = read_layout(toy[0]).streams["enc"].regions["values"]
    with toy[0].open("rb+") as file:
        file.seek(values.offset + 4 * values.row_bytes)
        file.write(b"\xff")
    with pytest.raises(MmerError, match="enc of b is damaged"):
        export_pack(open_cache(toy[0]), tmp_path / "out" / "pack", replace=True)
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()} == before
    monkeypatch.setattr("cache.packs.export.free_bytes", lambda folder: 5)
    with pytest.raises(DiskFull, match=r"0.00 GB needed in .*fewer streams with --stream"):
        export_pack(open_cache(toy[0]), tmp_path / "out" / "pack", replace=True)


def test_what_cannot_be_had_or_written_is_one_line(toy: tuple[Path, StreamPlan], tmp_path: Path) -> None:
    with pytest.raises(MmerError, match="no stream nope; it has: enc"):
        export_pack(open_cache(toy[0]), tmp_path / "pack", streams=["nope"])
    with pytest.raises(MmerError, match=r"cannot write .*pack \(Not a directory\); choose another folder"):
        export_pack(open_cache(toy[0]), toy[0] / "pack")
