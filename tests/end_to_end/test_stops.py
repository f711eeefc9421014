"""What stops a run with one line and loses nothing, row by row of the table in the README."""

import resource
import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest
from click.testing import CliRunner

from benchmarks.kill_runs import survive
from cache.audit import verify
from cache.store import FeatureCache
from cli.extract import featurize
from featurize.extraction.pipeline import extract
from tests.support.commands import ENCODERS, run, stopped
from tests.support.processes import forked, started, wait_until
from tests.support.voices import write_corpus, write_voices

STOPS: dict[str, tuple[list[dict[str, str]], list[str], str]] = {
    "duplicate id": ([{"id": "a"}, {"id": "a", "audio": "b.wav"}], [], "duplicate id a"),
    "unknown encoder": ([{"id": "a"}], ["--encoder", "wav2vec2-tyny"], "did you mean wav2vec2-tiny"),
    "path outside": ([{"id": "a", "audio": "../a.wav"}], [], "--allow-outside"),
    "no such device": ([{"id": "a"}], ["--device", "quantum"], "choose auto, cpu, cuda"),
    "no such folder": ([{"id": "a"}], ["--encoder", "./nope"], "unknown encoder './nope'"),
    "bad layers": ([{"id": "a"}], ["--encoder", "x=wav2vec2-tiny@99"], "hidden states 0 to 4"),
}


@pytest.mark.parametrize("kind", STOPS)
def test_a_mistake_stops_the_run_before_any_work(tmp_path: Path, kind: str) -> None:
    rows, options, told = STOPS[kind]
    assert told in stopped(run(write_corpus(tmp_path, rows), *options))
    assert not (tmp_path / "a.h5").exists()


def test_codes_that_no_encoder_has_stop_the_run(tmp_path: Path) -> None:
    manifest = write_voices(tmp_path, "a")
    arguments = ["manifest", "--root", str(manifest), "--cache", str(tmp_path / "a.h5"), "--audio-only", "--codes"]
    assert "--codes needs an encoder with a quantizer" in stopped(
        CliRunner().invoke(featurize, [*arguments, "--encoder", "mfcc39"])
    )


def test_a_folder_in_place_of_the_cache_stops_the_run(tmp_path: Path) -> None:
    manifest = write_voices(tmp_path, "a")
    (tmp_path / "folder").mkdir()
    assert "is a folder; choose a file with --cache" in stopped(run(manifest, "--cache", str(tmp_path / "folder")))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.wav", "corpus.csv", "folder"]


def test_an_unknown_corpus_stops_the_run(tmp_path: Path) -> None:
    result = CliRunner().invoke(featurize, ["iemocup", "--root", str(tmp_path), "--cache", str(tmp_path / "a.h5")])
    assert "iemocap" in stopped(result)


def test_a_corpus_without_its_root_says_where_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMER_IEMOCAP_ROOT", raising=False)
    result = CliRunner().invoke(featurize, ["iemocap", "--cache", str(tmp_path / "a.h5")])
    line = stopped(result)
    assert "MMER_IEMOCAP_ROOT" in line
    assert "Session{1..5}" in line


def test_an_encoder_of_speech_for_texts_alone_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "corpus.csv").write_text("id,text\na,hello\n")
    assert "wav2vec2-tiny reads recordings, and manifest names none" in stopped(run(tmp_path / "corpus.csv"))


def test_a_manifest_without_a_needed_column_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "corpus.csv").write_text("audio,label\na.wav,happy\n")
    assert "missing columns id; found audio, label" in stopped(run(tmp_path / "corpus.csv"))


@pytest.fixture
def committed(tmp_path: Path) -> Path:
    """A manifest whose cache is complete."""
    manifest = write_voices(tmp_path, "abc")
    assert run(manifest).exit_code == 0
    return manifest


def test_a_cache_of_a_newer_version_stops_the_run(committed: Path) -> None:
    with h5py.File(committed.parent / "a.h5", "r+") as file:
        file.attrs["format_version"] = 9
    before = (committed.parent / "a.h5").read_bytes()
    assert "has cache format 9, this mmer reads format 1; upgrade mmer" in stopped(run(committed))
    assert (committed.parent / "a.h5").read_bytes() == before


def test_a_file_that_is_no_cache_is_not_overwritten(tmp_path: Path) -> None:
    manifest = write_voices(tmp_path, "a")
    (tmp_path / "a.h5").write_text("my thesis")
    assert "is not a cache file but a file of another kind" in stopped(run(manifest))
    assert (tmp_path / "a.h5").read_text() == "my thesis"


def test_a_second_writer_stops_the_run(committed: Path) -> None:
    lock = committed.parent / "a.h5.lock"
    hold = (
        "import time; from filelock import FileLock\n"
        f"with FileLock({str(lock)!r}): print('held', flush=True); time.sleep(1000)"
    )
    with started("-c", hold) as other:
        wait_until(other.output.read_text, other)
        assert "another run is writing" in stopped(run(committed))
        other.kill()
    assert run(committed).exit_code == 0


def test_a_folder_that_cannot_be_written_stops_the_run(tmp_path: Path) -> None:
    if not Path("/sys/kernel").is_dir():
        pytest.skip("needs /sys, a folder that nobody can write to")
    manifest = write_voices(tmp_path, "a")
    assert "cannot write to /sys/kernel" in stopped(run(manifest, "--cache", "/sys/kernel/a.h5"))


def test_a_plan_that_the_disk_cannot_hold_stops_the_run(committed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(committed.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    before = (committed.parent / "a.h5").read_bytes()
    line = stopped(run(committed, "--encoder", "mfcc39"))
    assert "GB free; free some, choose another folder with --cache, or store less with --dtype int8" in line
    assert (committed.parent / "a.h5").read_bytes() == before


def run_with_room_for(size: int, arguments: list[str]) -> None:
    """Runs the command in a process that, once the file is created at its full length, may write no further than this.

    As on a disk that is full by then, writes come back short and then fail.
    """
    from featurize.extraction import run as module

    whole = extract

    def limited(*args: Any, **kwargs: Any) -> Any:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        return whole(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "extract", limited)
        featurize(arguments)


def test_a_disk_that_fills_up_keeps_what_was_committed(tmp_path: Path) -> None:
    names = "abcdefghijkl"
    manifest = write_voices(tmp_path, names)
    assert run(manifest, "--limit", "12").exit_code == 0
    whole = (tmp_path / "a.h5").stat().st_size
    (tmp_path / "a.h5").unlink()
    arguments = ["manifest", "--root", str(manifest), "--cache", str(tmp_path / "a.h5"), *ENCODERS]
    with forked(run_with_room_for, whole // 2, arguments) as process:
        status, errors = process.wait(), process.errors.read_text()
    assert status == 1, errors
    assert "no space left while writing" in errors
    assert "Traceback" not in errors
    cache = FeatureCache(tmp_path / "a.h5")
    committed = sum(int((stream.state == 1).sum()) for stream in cache.streams.values())
    assert 0 < committed < 6 * len(names)
    assert verify(cache) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert run(manifest).exit_code == 0
    assert all((stream.state == 1).all() for stream in FeatureCache(tmp_path / "a.h5").streams.values())


def test_kills_at_random_moments_lose_nothing_that_was_committed(tmp_path: Path, demo_corpus: Path) -> None:
    shutil.copytree(demo_corpus, tmp_path / "demo")
    tally = survive(tmp_path, kills=3, seed=1, utterances=12)
    assert tally.total == 3
