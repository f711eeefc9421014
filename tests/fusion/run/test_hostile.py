"""Run folders that somebody forged: each value is checked before it names a file, and a damaged file is one line."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cache.errors import MmerError
from fusion.run.artifacts import read_cost, read_scores
from fusion.run.folder import COST, FORMAT_VERSION, RUN, SCORES, ModelFolder, RunFolder
from fusion.run.load import load_model

IDENTITY: dict[str, Any] = {
    "fusion": "concat",
    "head": {},
    "training": {},
    "seeds": [0],
    "labels": {"sad": ["sad"]},
    "protocol": "random5",
    "folds": {"1": "digest"},
}
DEEP = "[" * 100_000


def run_with(folder: Path, *, record: object = None, **changed: Any) -> RunFolder:
    run = RunFolder(folder)
    provenance = record if isinstance(record, dict) else {}
    run.write(RUN, {"format_version": FORMAT_VERSION, "decides": {**IDENTITY, **changed}, **provenance})
    return run


@pytest.mark.parametrize(
    "seed", ["/../../../victim", "../victim", "0/../../victim", "", None, 1.5, True, [0], {"a": 1}, 10**400]
)
def test_no_seed_of_a_file_leads_out_of_its_folder(tmp_path: Path, seed: object) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/chapter.txt").write_text("years of work")
    (tmp_path / "run/1-seed").mkdir(parents=True)
    run = run_with(tmp_path / "run", seeds=[seed])
    with pytest.raises(MmerError, match=r"run.json is damaged \(seeds of another type\)"):
        run.clear()
    assert (tmp_path / "victim/chapter.txt").read_text() == "years of work"
    assert (tmp_path / "run" / RUN).exists()


@pytest.mark.parametrize("fold", ["../../victim", "/", "..", ".", "a/../../b", "\0", "~", "x" * 240])
def test_no_fold_of_a_file_leads_out_of_its_folder(tmp_path: Path, fold: str) -> None:
    (tmp_path / "victim").mkdir()
    run = run_with(tmp_path / "run", folds={fold: "digest"})
    assert run.model(fold, 0).path.parent == run.path
    run.clear()
    assert (tmp_path / "victim").exists()
    assert not (run.path / RUN).exists()


def test_a_folder_that_is_a_link_is_not_followed_by_clear(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/chapter.txt").write_text("years of work")
    run = run_with(tmp_path / "run")
    (run.path / "1-seed0").symlink_to(tmp_path / "victim")
    with pytest.raises(MmerError, match="cannot write to"):
        run.clear()
    assert (tmp_path / "victim/chapter.txt").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"head": None},
        {"training": "fast"},
        {"labels": ["sad"]},
        {"labels": {"sad": "sad"}},
        {"labels": {"sad": [1]}},
        {"folds": ["1"]},
        {"folds": {"1": 1}},
        {"folds": {"ü" * 100: "digest"}},
        {"fusion": ["concat"]},
        {"protocol": None},
        {"task": "sorcery"},
        {"task": []},
        {"tune": {"audio": 3}},
        {"record": {"cache": 3}},
        {"record": {"notes": "a note"}},
        {"record": {"notes": [["a"]]}},
        {"record": {"specs": {"audio": []}}},
        {"record": {"specs": {"audio": {"name": "x"}}}},
        {"record": {"corpus": "iemocap"}},
    ],
    ids=str,
)
def test_values_of_another_type_are_one_line(tmp_path: Path, changed: dict[str, Any]) -> None:
    run = run_with(tmp_path, **changed)
    with pytest.raises(MmerError, match=r"run.json is damaged \(.* of another type\)"):
        load_model(run, "1", 0)


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 100_000, "9" * 5000, "", "\ud800".encode("utf-8", "surrogatepass")])
@pytest.mark.parametrize("name", [RUN, SCORES, COST])
def test_json_that_cannot_be_read_is_one_line(tmp_path: Path, name: str, text: str | bytes) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(MmerError, match=rf"{name} (cannot be read|is damaged)") as caught:
        ModelFolder(tmp_path).read(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [RUN, SCORES, "predictions.csv", "weights.safetensors"])
def test_pipes_do_not_hang(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    folder = ModelFolder(tmp_path)
    for read in (folder.read, folder.read_rows, folder.digest):
        with pytest.raises(MmerError, match="not a regular file"):
            read(name)


@pytest.mark.parametrize(
    "changed",
    [
        {"digests": {"predictions.csv": ["a"]}},
        {"digests": {SCORES: {}}},
        {"digests": []},
        {"notes": [[]]},
        {"over_limits": [{}]},
        {"over_limits": "a"},
        {"test": True},
        {"test": 10**400},
        {"wa": "1"},
        {"fold": 1},
    ],
    ids=str,
)
def test_scores_of_another_type_are_one_line(tmp_path: Path, changed: dict[str, Any]) -> None:
    numbers = dict.fromkeys(("seed", "epoch", "train", "dev", "test", "test_of", "parameters", "wa", "ua"), 1)
    scores = {"fold": "1", **numbers, "wf1": 1, "mf1": 1, "over_limits": [], "notes": []}
    folder = ModelFolder(tmp_path)
    (tmp_path / SCORES).write_text(json.dumps({**scores, **changed}))
    with pytest.raises(MmerError, match=r"scores.json is damaged"):
        read_scores(folder)


@pytest.mark.parametrize(
    "cost", ["[]", "null", '{"seconds": [], "peak_bytes": 1}', '{"seconds": 1, "peak_bytes": 1e999}']
)
def test_a_cost_of_another_type_is_one_line(tmp_path: Path, cost: str) -> None:
    (tmp_path / COST).write_text(cost)
    with pytest.raises(MmerError, match=r"cost.json is damaged"):
        read_cost(ModelFolder(tmp_path))
