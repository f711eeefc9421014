"""Packs that somebody forged: no entry hangs, leads out of the pack, or becomes anything but one line."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cache.packs.catalog import open_pack
from cache.packs.importing import import_pack
from tests.cache.packs.test_native import pack_of, refused
from tests.support.packs import rewrite

ENTRIES = ["pack.json", "utterances.jsonl", "streams/*/rows.jsonl", "weights/*"]
ARRAYS = {
    "npy": ["streams/*/*-a.npy", "streams/*/*-a.scales.npy"],
    "packed": ["streams/*/values.npy", "streams/*/scales.npy", "streams/*/lengths.npy"],
    "safetensors": ["streams/*/values-*.safetensors"],
}
FILES = [(layout, entry) for layout, arrays in ARRAYS.items() for entry in [*ENTRIES, *arrays]]


@pytest.mark.parametrize(("layout", "entry"), FILES)
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "loop", "gone"])
def test_an_entry_that_is_not_a_file_is_one_line(tmp_path: Path, layout: str, entry: str, kind: str) -> None:
    pack = pack_of(tmp_path, layout)
    (file,) = pack.glob(entry)
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "loop":
        file.symlink_to(file.name)
    refused(pack)


@pytest.mark.parametrize(("layout", "entry"), FILES)
def test_an_entry_that_is_a_link_elsewhere_is_refused(tmp_path: Path, layout: str, entry: str) -> None:
    pack = pack_of(tmp_path, layout)
    (file,) = pack.glob(entry)
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert "lies outside" in refused(pack)


def test_a_pack_may_itself_be_a_link(tmp_path: Path) -> None:
    pack = pack_of(tmp_path, "packed")
    (tmp_path / "link").symlink_to(pack)
    assert import_pack(open_pack(tmp_path / "link"), tmp_path / "new.h5").created


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' * 100_000, "NaN", '{"format": Infinity}', "1" * 5000, "[]"])
@pytest.mark.parametrize("entry", ENTRIES[:3])
def test_json_that_cannot_be_read_is_one_line(tmp_path: Path, entry: str, text: str) -> None:
    pack = pack_of(tmp_path, "npy")
    (file,) = pack.glob(entry)
    file.write_text(text)
    refused(pack)


@pytest.mark.parametrize(
    "changed",
    [
        {"mmer_version": "a\0b"},
        {"created": "\ud800"},
        {"corpus": {"name": 3}},
        {"corpus": {"name": "a", "root": []}},
        {"utterances": True},
        {"streams": [[]]},
        {"weights": {"enc": ["a"]}},
        {"weights": {"enc": "\0"}},
    ],
    ids=str,
)
def test_a_manifest_of_other_values_is_one_line(tmp_path: Path, changed: dict[str, Any]) -> None:
    pack = pack_of(tmp_path, "npy")
    manifest = json.loads((pack / "pack.json").read_text())
    (pack / "pack.json").write_text(json.dumps({**manifest, **changed}))
    refused(pack)


@pytest.mark.parametrize("rows", [10**30, 2**62, -1, 1.5, "3", True])
def test_impossible_numbers_of_rows_are_one_line(tmp_path: Path, rows: object) -> None:
    pack = pack_of(tmp_path, "npy")
    (file,) = pack.glob("streams/*/rows.jsonl")
    rewrite(file, lambda record: {**record, "rows": rows})
    refused(pack)


@pytest.mark.parametrize(
    "changed", [{"duration_s": 1e999}, {"turn": 10**30}, {"label": "a\0"}, {"speaker": "\ud800"}, {"start_s": -1}]
)
def test_impossible_utterances_are_one_line(tmp_path: Path, changed: dict[str, Any]) -> None:
    pack = pack_of(tmp_path, "npy")
    rewrite(pack / "utterances.jsonl", lambda record: {**record, **changed})
    refused(pack)


@pytest.mark.parametrize("name", ["a/b", "/a", ".", "a\0b"])
def test_weights_of_names_that_no_cache_holds_are_one_line(tmp_path: Path, name: str) -> None:
    pack = pack_of(tmp_path, "npy")
    (weights,) = pack.glob("weights/*")
    save_file({**load_file(weights), name: np.ones(2)}, weights)
    refused(pack)
