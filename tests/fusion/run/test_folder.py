import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from cache.errors import MmerError
from fusion.run.folder import FORMAT_VERSION, RUN, RunFolder
from tests.support.processes import started, wait_until

DESCRIBED = {"fusion": "audio", "head": {"dim": 0}, "seeds": [0], "labels": {"a": ["a"]}, "protocol": "p"}
DESCRIBED["folds"] = {"1": "x", "a/b": "y"}
HOLD = """
import sys, time
from pathlib import Path
from fusion.run.folder import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(1000)
"""


def test_a_folder_goes_on_with_the_run_it_holds_and_with_no_other(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.begin(DESCRIBED, {"notes": ["a"]})
    folder.begin({**DESCRIBED, "seeds": (0,)}, {"notes": ["b"]})
    assert folder.read(RUN)["notes"] == ["a"]
    assert folder.identity == DESCRIBED
    with pytest.raises(MmerError, match=r"a different run \(head.dim: 0 there, 8 requested\); choose another --out"):
        folder.begin({**DESCRIBED, "head": {"dim": 8}}, {})


@pytest.mark.parametrize(
    ("text", "told"), [("{", "cannot be read"), ("[1]", "was not written by"), ('{"a": 1}', "was not written by")]
)
def test_what_is_no_run_is_neither_trained_into_nor_deleted(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / RUN).write_text(text)
    with pytest.raises(MmerError, match=f"run.json {told}"):
        RunFolder(tmp_path).begin(DESCRIBED, {})
    with pytest.raises(MmerError, match=f"run.json {told}"):
        RunFolder(tmp_path).clear()
    assert (tmp_path / RUN).read_text() == text


@pytest.mark.parametrize("name", ["results.json", "splits.csv", "confusion.png", "1-seed0/weights.safetensors"])
@pytest.mark.parametrize("replace", [False, True])
def test_files_of_no_run_are_not_taken_the_place_of(tmp_path: Path, name: str, replace: bool) -> None:
    mine = tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("precious")
    folder = RunFolder(tmp_path)
    if replace:
        folder.clear()
    with pytest.raises(MmerError, match=f"{name} already exists, but .* has no run.json; choose another --out"):
        folder.begin(DESCRIBED, {})
    assert mine.read_text() == "precious"
    assert not (tmp_path / RUN).exists()


NO_RUNS = [
    {"format_version": "1", "decides": DESCRIBED},
    {"decides": DESCRIBED},
]


@pytest.mark.parametrize("found", [[], {}, *NO_RUNS])
def test_a_file_that_is_no_run_is_refused(tmp_path: Path, found: object) -> None:
    folder = RunFolder(tmp_path)
    folder.write(RUN, found)
    with pytest.raises(MmerError, match=r"run.json was not written by mmer-train; choose another --out"):
        folder.begin(DESCRIBED, {})


def test_a_run_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write(RUN, {"format_version": FORMAT_VERSION + 1, "renamed": DESCRIBED})
    with pytest.raises(MmerError, match=r"run.json was written by a newer mmer \(format 2, .* up to 1\); upgrade"):
        folder.begin(DESCRIBED, {})
    folder.write(RUN, {"format_version": FORMAT_VERSION + 1, "decides": DESCRIBED})
    with pytest.raises(MmerError, match=r"run.json was written by a newer mmer \(format 2, .* up to 1\); upgrade"):
        folder.begin(DESCRIBED, {})


def test_a_field_that_is_new_in_this_version_had_its_default(tmp_path: Path) -> None:
    folder, newer = RunFolder(tmp_path), {**DESCRIBED, "head": {"dim": 0, "depth": 3}}
    folder.begin(DESCRIBED, {})
    folder.begin(newer, {}, {"head": {"dim": 9, "depth": 3}})
    with pytest.raises(MmerError, match=r"holds a different run \(head.depth: 3 there, 4 requested\)"):
        folder.begin({**newer, "head": {"dim": 0, "depth": 4}}, {}, {"head": {"dim": 9, "depth": 3}})


def test_what_is_known_by_a_digest_alone_is_told_in_words(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.begin({**DESCRIBED, "features": "a"}, {})
    told = r"holds a different run \(fold a/b has other utterances or labels; the features have changed\)"
    with pytest.raises(MmerError, match=told):
        folder.begin({**DESCRIBED, "features": "b", "folds": {"1": "x", "a/b": "z"}}, {})


def test_weights_can_be_read_by_whom_all_else_can(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write("x.json", 1)
    with folder.replacing("x.safetensors") as path:
        save_file({"a": torch.zeros(1)}, path)
    assert {(tmp_path / name).stat().st_mode for name in ("x.json", "x.safetensors")} == {
        (tmp_path / "x.json").stat().st_mode
    }


def test_clearing_deletes_the_run_and_nothing_else(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    mine = tmp_path / "mine-seed7" / "thesis.txt"
    folder.clear()  # there is no run yet
    folder.begin(DESCRIBED, {})
    mine.parent.mkdir()
    mine.write_text("precious")
    for part in folder.models(DESCRIBED):
        part.write("scores.json", {})
    folder.write("results.json", {})
    folder.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["mine-seed7"]
    assert mine.read_text() == "precious"


@given(st.lists(st.text(min_size=1, max_size=20), min_size=2, max_size=2, unique=True))
def test_every_fold_has_a_folder_of_its_own_below_the_run(folds: list[str]) -> None:
    paths = [RunFolder(Path("run")).model(fold, 0).path for fold in folds]
    assert paths[0] != paths[1]
    assert all(path.parent == Path("run") and "\0" not in path.name for path in paths)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "a" / "b")
    folder.write("x.json", {"é": [1, None]})
    folder.write_rows("x.csv", ["id", "text"], [["a", 'with "quotes", and\nlines'], ["é", 0.1]])
    assert folder.read("x.json") == {"é": [1, None]}
    assert folder.read_rows("x.csv") == [{"id": "a", "text": 'with "quotes", and\nlines'}, {"id": "é", "text": "0.1"}]


def test_a_file_that_is_not_finished_takes_no_place(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write("x.json", 1)
    with pytest.raises(ZeroDivisionError), folder.replacing("x.json") as path:
        path.write_text(str(1 / 0))
    assert folder.read("x.json") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize(
    "act",
    [
        lambda folder: folder.write("x.json", 1),
        lambda folder: folder.write_rows("x.csv", ["id"], []),
        lambda folder: folder.make(),
        lambda folder: folder.locked().__enter__(),
    ],
)
def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, act: Callable[[RunFolder], object]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MmerError, match=r"cannot write to .*/file/run \(Not a directory\); .* with --out$"):
        act(RunFolder(tmp_path / "file" / "run"))


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(
            MmerError, match=r"no space left while writing to .*; free some, or choose another folder with --out"
        ),
        RunFolder(tmp_path).replacing("x"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", ["x.json", "x.csv"])
def test_a_missing_file_is_told(tmp_path: Path, name: str) -> None:
    read = RunFolder(tmp_path).read if name.endswith("json") else RunFolder(tmp_path).read_rows
    with pytest.raises(MmerError, match=rf"{name} cannot be read \(No such file or directory\)"):
        read(name)


def test_a_second_process_is_refused_and_a_dead_one_is_not_waited_for(tmp_path: Path) -> None:
    with started("-c", HOLD, str(tmp_path)) as other:
        wait_until(other.output.read_text, other)
        with pytest.raises(MmerError, match="another process is training into"), RunFolder(tmp_path).locked():
            pass
        other.kill()
    with RunFolder(tmp_path).locked():
        pass


def test_an_error_under_the_lock_is_passed_on_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="of the cache"), RunFolder(tmp_path).locked():
        raise OSError("of the cache")


@pytest.mark.parametrize("name", ["s" * 241, "é" * 50])
def test_a_fold_whose_name_is_too_long_for_a_folder_is_one_line(tmp_path: Path, name: str) -> None:
    identity = {"fusion": "audio", "seeds": [0], "labels": {}, "protocol": "session", "folds": {"1": "", name: ""}}
    with pytest.raises(MmerError, match=r"is too long for a folder \(\d+ characters\); at most 240 are allowed"):
        RunFolder(tmp_path / "run").begin(identity, {})
    assert not (tmp_path / "run").exists()
