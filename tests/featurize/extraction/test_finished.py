import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
from click.testing import CliRunner
from huggingface_hub import constants

import cli.extract
from cache.errors import MmerError
from cli.extract import featurize
from featurize.extraction import finished
from featurize.extraction.finished import RunRequest, finished_report, record_path, watch_files
from featurize.extraction.job import ExtractionJob
from featurize.extraction.report import ExtractionReport
from featurize.extraction.run import extract_here, run_job, run_shards
from featurize.inputs import file_identity
from tests.support.voices import RATE_HZ, Silent, job_over, tone, write_corpus, write_voices

MFCC: dict[str, Any] = {"encoders": ("mfcc39",), "audio_only": True, "mel": False}


@pytest.fixture(autouse=True)
def old_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treats files as unchanged for long: a test cannot wait, and no program can set the time of a change."""
    monkeypatch.setattr(file_identity, "RACY_NS", 0)


@pytest.fixture
def job(tmp_path: Path) -> ExtractionJob:
    return job_over(write_voices(tmp_path / "corpus", "ab"), tmp_path / "a.h5", **MFCC)


def run(job: ExtractionJob) -> ExtractionReport:
    return run_job(job, Silent())


def answer(job: ExtractionJob) -> ExtractionReport | None:
    return finished_report(RunRequest.of_job(job))


def test_an_unchanged_run_answers_with_its_own_report(job: ExtractionJob) -> None:
    report = run(job)
    answered = answer(job)
    assert answered is not None
    assert replace(answered, seconds=0.0) == replace(report, seconds=0.0)
    before = job.cache.stat()
    run(job)
    assert job.cache.stat().st_mtime_ns == before.st_mtime_ns
    assert answer(job) is not None


def test_notes_on_the_corpus_are_repeated_and_notes_on_changes_are_not(tmp_path: Path) -> None:
    table = write_corpus(tmp_path, [{"id": "a", "mood": "x", "text": ""}, {"id": "b", "mood": "y", "text": ""}])
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", tone(0.2), RATE_HZ)
    job = job_over(table, tmp_path / "a.h5", **{**MFCC, "audio_only": False})
    run(job)
    table.write_text(table.read_text().replace("sad", "happy", 1))
    assert any("label of 1 utterances has changed" in note for note in run(job).notes)
    report = answer(job)
    assert report is not None
    (note,) = report.notes
    assert note.startswith("unknown columns are ignored: mood")


def new_contents(corpus: Path) -> None:
    """Writes another recording of equal size and restores the time of its modification."""
    path = corpus / "a.wav"
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\1\2\3\4")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)


def other_file(corpus: Path) -> None:
    """Replaces a recording by a copy of it."""
    shutil.copy2(corpus / "a.wav", corpus / "copy.wav")
    (corpus / "copy.wav").replace(corpus / "a.wav")


def other_label(corpus: Path) -> None:
    table = corpus / "corpus.csv"
    table.write_text(table.read_text().replace("sad", "mad", 1))


CHANGES: dict[str, Callable[[Path], object]] = {
    "new contents": new_contents,
    "another file": other_file,
    "another label": other_label,
    "a renamed recording": lambda corpus: (corpus / "a.wav").rename(corpus / "c.wav"),
    "a lost recording": lambda corpus: (corpus / "b.wav").unlink(),
    "other permissions": lambda corpus: (corpus / "b.wav").chmod(0o600),
    "a lost table": lambda corpus: (corpus / "corpus.csv").unlink(),
    "a copied cache": lambda corpus: Path(shutil.copy2(corpus.parent / "a.h5", corpus.parent / "b.h5")).replace(
        corpus.parent / "a.h5"
    ),
    "no cache": lambda corpus: (corpus.parent / "a.h5").unlink(),
    "no record": lambda corpus: record_path(corpus.parent / "a.h5").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_files_needs_a_check(job: ExtractionJob, tmp_path: Path, change: str) -> None:
    run(job)
    assert answer(job) is not None
    CHANGES[change](tmp_path / "corpus")
    assert answer(job) is None


def test_a_damaged_cache_needs_a_check(job: ExtractionJob) -> None:
    run(job)
    with job.cache.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"damaged!")
    assert answer(job) is None


@pytest.mark.parametrize(
    "change",
    [
        {"encoders": ("mfcc39", "logmel80")},
        {"limit": 1},
        {"columns": ("label=speaker",)},
        {"audio_only": False},
        {"corpus": "ravdess"},
        {"asr": "openai/whisper-tiny.en"},
    ],
    ids=str,
)
def test_another_request_needs_a_check(job: ExtractionJob, change: dict[str, Any]) -> None:
    run(job)
    assert answer(replace(job, **change)) is None
    assert answer(replace(job, options=replace(job.options, dtype="float32"))) is None


def test_other_versions_of_libraries_need_a_check(job: ExtractionJob, monkeypatch: pytest.MonkeyPatch) -> None:
    run(job)
    monkeypatch.setattr(finished, "library_versions", lambda: {"torch": "0"})
    assert answer(job) is None


def test_a_change_during_the_run_needs_a_check(job: ExtractionJob, tmp_path: Path) -> None:
    def changing(*given: Any) -> None:
        extract_here(*given)
        new_contents(tmp_path / "corpus")

    run_job(job, Silent(), changing)
    assert answer(job) is None
    assert any("have changed since" in note for note in run(job).notes)
    assert answer(job) is not None


def test_an_incomplete_run_has_no_record(job: ExtractionJob) -> None:
    run_job(job, Silent(), lambda *_: None)
    assert not record_path(job.cache).exists()


def test_a_file_that_has_just_changed_is_not_trusted(job: ExtractionJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_identity, "RACY_NS", 3_600_000_000_000)
    run(job)
    assert not record_path(job.cache).exists()


def test_runs_over_one_cache_have_a_record_each(job: ExtractionJob) -> None:
    other = replace(job, encoders=("logmel80",))
    run(job)
    run(other)
    assert answer(job) is None  # its cache has changed
    run(job)
    assert answer(job) is not None
    assert answer(other) is not None


def test_shards_are_finished_together(tmp_path: Path) -> None:
    job = job_over(write_voices(tmp_path / "corpus", "abcdefgh"), tmp_path / "a.h5", **MFCC)
    report = run_shards(job, 2, Silent())
    request = RunRequest.of_job(job)
    answered = finished_report(request, 2)
    assert answered is not None
    assert replace(answered, seconds=0.0) == replace(report, seconds=0.0)
    assert finished_report(request) is None
    record_path(job.cache.with_name("a-2-of-2.h5")).unlink()
    assert finished_report(request, 2) is None


FORGED = {
    "text": "no JSON",
    "a list": "[]",
    "deep": "[" * 100_000,
    "another format": '{"format": 2, "runs": {}}',
    "bytes": "\udcff",
}


@pytest.mark.parametrize("text", FORGED.values(), ids=list(FORGED))
def test_a_forged_record_has_no_effect(job: ExtractionJob, text: str) -> None:
    run(job)
    record_path(job.cache).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert answer(job) is None
    run(job)
    assert answer(job) is not None


@pytest.mark.parametrize("run_of", [None, [], {"files": 1}, {"files": "", "streams": "a", "notes": []}], ids=str)
def test_forged_runs_have_no_effect(job: ExtractionJob, run_of: object) -> None:
    run(job)
    content = json.loads(record_path(job.cache).read_text())
    content["runs"] = dict.fromkeys(content["runs"], run_of)
    record_path(job.cache).write_text(json.dumps(content))
    assert answer(job) is None


def test_a_pipe_in_place_of_a_record_does_not_hang(job: ExtractionJob) -> None:
    run(job)
    record_path(job.cache).unlink()
    os.mkfifo(record_path(job.cache))
    assert answer(job) is None


def test_a_run_ends_well_where_no_record_can_be_written(job: ExtractionJob) -> None:
    record_path(job.cache).mkdir()
    assert run(job).empty == []
    assert answer(job) is None


def test_all_files_below_a_corpus_and_of_an_encoder_count(tmp_path: Path) -> None:
    root, encoder = tmp_path / "ravdess", tmp_path / "encoder"
    for folder in (root / "Actor_01", encoder):
        folder.mkdir(parents=True)
    (root / "Actor_01" / "03-01-01-01-01-01-01.wav").write_bytes(b"a")
    (encoder / "model.safetensors").write_bytes(b"weights")
    request = RunRequest(corpus="ravdess", root=root, cache=root / "a.h5", encoders=(str(encoder),), options={})

    def digest() -> str:
        files = watch_files(request)
        assert files is not None
        return files.digest([])

    digests = [digest()]
    (root / "a.h5.lock").touch()  # belongs to the cache, which may lie in the folder of the corpus
    assert digest() == digests[0]
    (root / "Actor_02").mkdir()
    shutil.copy(root / "Actor_01" / "03-01-01-01-01-01-01.wav", root / "Actor_02" / "03-01-01-01-01-01-02.wav")
    digests.append(digest())
    (encoder / "model.safetensors").write_bytes(b"WEIGHTS")
    digests.append(digest())
    (root / "more").symlink_to(encoder)
    digests.append(digest())
    (root / "loop").symlink_to(root)
    digests.append(digest())
    (encoder / "config.json").symlink_to("nowhere")
    digests.append(digest())
    assert len(set(digests)) == len(digests)


def test_an_encoder_of_the_hub_is_trusted_offline_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = RunRequest(corpus="ravdess", root=tmp_path, cache=tmp_path / "a.h5", encoders=("wavlm-base",), options={})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert watch_files(request) is None
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    files = watch_files(request)
    assert files is not None
    blob = tmp_path / "hub" / "models--microsoft--wavlm-base" / "blobs" / "a"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"weights")
    again = watch_files(request)
    assert again is not None
    assert again.digest([]) != files.digest([])


def test_a_data_set_of_another_library_is_read_every_time(tmp_path: Path) -> None:
    options: dict[str, Any] = {"root": None, "cache": tmp_path / "a.h5", "encoders": ()}
    assert RunRequest.of_options("hf:owner/name", **options) is None
    assert RunRequest.of_options("demo", **options, replace=True) is None


def test_the_command_answers_without_its_job(
    job: ExtractionJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checks(*_: object, **__: object) -> None:
        raise MmerError("the run is checked in full")

    def called(*options: str) -> str:
        given = ["manifest", "--root", str(job.root), "--cache", str(job.cache), "--encoder", "mfcc39", *options]
        result = CliRunner().invoke(featurize, [*given, "--no-mel", "--audio-only", "--device", "cpu"])
        return str(result.stderr if result.exit_code else result.stdout)

    first = called()
    assert "is done after" in first
    monkeypatch.setattr(cli.extract, "_job_of", checks)
    assert called().splitlines()[:2] == first.splitlines()[:2]
    assert called("--workers", "2").splitlines()[:2] == first.splitlines()[:2]
    assert json.loads(called("--json"))["streams"]["mfcc39"]["committed"] == 2
    for options in (["--replace"], ["--dry-run"], ["--parity-check", "1"], ["--dtype", "float32"]):
        assert "the run is checked in full" in called(*options)
    new_contents(tmp_path / "corpus")
    assert "the run is checked in full" in called()
