"""Bad and odd input, row by row of the table in the README: accepted with a note, failed with a reason, or stopped."""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from cache.audit import verify
from cache.store import FeatureCache
from cli.extract import featurize
from tests.voices import RATE_HZ, tone, write_corpus, write_voices

ENCODERS = ["--encoder", "wav2vec2-tiny", "--encoder", "roberta-tiny"]
Write = Callable[[Path], None]


def run(manifest: Path, *options: str) -> Result:
    arguments = ["manifest", "--root", str(manifest), "--cache", str(manifest.parent / "a.h5"), *ENCODERS, *options]
    return CliRunner().invoke(featurize, arguments)


def stopped(result: Result) -> str:
    """The one line that a run stopped with."""
    assert result.exit_code == 1, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert "Traceback" not in result.output
    return lines[0]


def sound(seconds: float = 0.5, **options: Any) -> Write:
    return lambda path: soundfile.write(path, tone(seconds, rate_hz=options.get("samplerate", RATE_HZ)), **options)


def stereo(path: Path) -> None:
    soundfile.write(path, np.stack([tone(0.5), tone(0.5, seed=1)], axis=1), RATE_HZ)


def flac_called_wav(path: Path) -> None:
    soundfile.write(path, tone(0.5), RATE_HZ, format="FLAC")


ACCEPTED: dict[str, Write] = {
    "stereo": stereo,
    "8 kHz": sound(samplerate=8_000),
    "48 kHz": sound(samplerate=48_000),
    "24 bit": sound(samplerate=RATE_HZ, subtype="PCM_24"),
    "float": sound(samplerate=RATE_HZ, subtype="FLOAT"),
    "wrong extension": flac_called_wav,
}


@pytest.mark.parametrize("kind", ACCEPTED)
def test_other_formats_are_mixed_and_resampled(tmp_path: Path, kind: str) -> None:
    manifest = write_corpus(tmp_path, [{"id": "a"}])
    ACCEPTED[kind](tmp_path / "a.wav")
    result = run(manifest, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["failures"] == []
    assert report["noted"] == []
    assert report["streams"]["wav2vec2-tiny"]["rows"] == 24  # 0.5 s are 8000 samples at 16 kHz, whatever the file


NOTED: dict[str, tuple[Any, str, str, str]] = {
    "silent": (np.zeros(8000), "hello", "wav2vec2-tiny", "silent: every sample is 0"),
    "5 ms": (tone(0.005), "hello", "logmel80", "5 ms: zero-padded to 400 samples"),
    "empty transcript": (tone(0.5), "", "roberta-tiny", "empty transcript"),
    "only an event tag": (tone(0.5), "[LAUGHTER]", "roberta-tiny", ""),
    "emoji": (tone(0.5), "so 😀 nice", "roberta-tiny", "holds 1 symbol such as 😀"),
    "emoji for CTC": (tone(0.5), "so 😀 nice", "ctc.chars", "not in the CTC vocabulary"),
    "NUL": (tone(0.5), "so\0 nice", "roberta-tiny", "1 NUL character removed"),
    "lone surrogate": (tone(0.5), "so\udc80 nice", "roberta-tiny", "1 undecodable character removed"),
}


@pytest.mark.parametrize("kind", NOTED)
def test_odd_input_is_accepted_with_a_note(tmp_path: Path, kind: str) -> None:
    samples, text, stream, note = NOTED[kind]
    manifest = write_corpus(tmp_path, [{"id": "a", "text": text}, {"id": "b", "audio": "a.wav"}])
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ)
    result = run(manifest, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["failures"] == []
    notes = {(one["id"], one["stream"]): one["note"] for one in report["noted"]}
    assert note in notes.get(("a", stream), "")
    assert (("a", stream) in notes) == bool(note)
    cache = FeatureCache(tmp_path / "a.h5")
    assert verify(cache) == []
    if kind in {"empty transcript", "only an event tag"}:
        assert len(cache.stream("roberta-tiny").read(0)) == 2  # <s> and </s>
        assert len(cache.stream("ctc.chars").read(0)) == 0


def truncated(path: Path) -> None:
    soundfile.write(path, tone(0.5), RATE_HZ)
    path.write_bytes(path.read_bytes()[:5000])


def truncated_flac(path: Path) -> None:
    soundfile.write(path, tone(0.9), RATE_HZ, format="FLAC")
    path.write_bytes(path.read_bytes()[:9000])


def with_nan(path: Path) -> None:
    samples = tone(0.5)
    samples[100] = np.nan
    soundfile.write(path, samples, RATE_HZ, subtype="FLOAT")


FAILED: dict[str, tuple[Write, str]] = {
    "missing": (lambda path: None, "missing"),
    "zero bytes": (Path.touch, "empty: zero bytes"),
    "truncated": (truncated, "truncated: 4956 of 16000 bytes"),
    "truncated flac": (truncated_flac, "flac decoder lost sync"),
    "not audio": (lambda path: path.write_text("hello"), "cannot be decoded"),  # type: ignore[dict-item]
    "a folder": (Path.mkdir, "not a file"),
    "NaN": (with_nan, "1 samples are NaN or infinite"),
    "too long": (sound(1.1, samplerate=RATE_HZ), "1.1 s, longer than --max-seconds 1"),
}


@pytest.mark.parametrize("kind", FAILED)
def test_an_unusable_recording_fails_and_the_rest_goes_on(tmp_path: Path, kind: str) -> None:
    write, reason = FAILED[kind]
    manifest = write_corpus(tmp_path, [{"id": "bad"}, {"id": "good"}])
    write(tmp_path / "bad.wav")
    sound(samplerate=RATE_HZ)(tmp_path / "good.wav")
    result = run(manifest, "--max-seconds", "1")
    assert result.exit_code == 0, result.output
    assert "1 utterances failed in one stream or more:" in result.stdout
    assert reason in result.stdout
    cache = FeatureCache(tmp_path / "a.h5")
    assert verify(cache) == []
    assert {name: stream.state.tolist() for name, stream in cache.streams.items() if "wav2vec2" in name} == {
        "wav2vec2-tiny": [2, 1],
        "wav2vec2-tiny.codes": [2, 1],
    }


def test_a_transcript_over_the_limit_fails_or_is_truncated(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path, [{"id": "a", "text": "so " * 600}, {"id": "b"}])
    sound(samplerate=RATE_HZ)(tmp_path / "a.wav")
    sound(samplerate=RATE_HZ)(tmp_path / "b.wav")
    result = run(manifest)
    assert result.exit_code == 0
    assert "602 tokens, the encoder takes 512; --truncate cuts" in result.stdout
    result = run(manifest, "--truncate", "--cache", str(tmp_path / "b.h5"))
    assert "truncated from 602 to 512 tokens" in result.stdout


def test_nothing_computed_at_all_is_exit_code_1(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path, [{"id": "a"}, {"id": "b"}])
    line = stopped(run(manifest))
    assert "nothing at all was computed for wav2vec2-tiny, wav2vec2-tiny.codes, logmel80" in line


STOPS: dict[str, tuple[list[dict[str, str]], list[str], str]] = {
    "duplicate id": ([{"id": "a"}, {"id": "a", "audio": "b.wav"}], [], "duplicate id a"),
    "unknown encoder": ([{"id": "a"}], ["--encoder", "wav2vec2-tyny"], "did you mean wav2vec2-tiny"),
    "path outside": ([{"id": "a", "audio": "../a.wav"}], [], "--allow-outside"),
    "no such device": ([{"id": "a"}], ["--device", "quantum"], "take auto, cpu, cuda"),
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
    assert "is a folder; name a file by --cache" in stopped(run(manifest, "--cache", str(tmp_path / "folder")))
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


def test_a_manifest_without_a_needed_column_stops_the_run(tmp_path: Path) -> None:
    (tmp_path / "corpus.csv").write_text("id,text\na,hello\n")
    assert "audio" in stopped(run(tmp_path / "corpus.csv"))


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
    assert "no readable cache" in stopped(run(manifest))
    assert (tmp_path / "a.h5").read_text() == "my thesis"


def test_a_second_writer_stops_the_run(committed: Path) -> None:
    lock = committed.parent / "a.h5.lock"
    hold = (
        f"from filelock import FileLock; lock = FileLock({str(lock)!r}); lock.acquire(); print(1, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
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
    assert "GB free; free some, name another place by --cache, or store less by --dtype int8" in line
    assert (committed.parent / "a.h5").read_bytes() == before


def test_a_disk_that_fills_up_keeps_what_was_committed(tmp_path: Path) -> None:
    names = "abcdefghijkl"
    manifest = write_voices(tmp_path, names)
    assert run(manifest, "--limit", "12").exit_code == 0
    whole = (tmp_path / "a.h5").stat().st_size
    (tmp_path / "a.h5").unlink()
    # The file is created at its full length, then the process may not write beyond half of it: as on a disk that is
    # full by then, writes come back short and then fail.
    code = (
        "import resource, sys; import featurize.job as job; from cli.extract import featurize as command\n"
        "extract = job.extract\n"
        "def limited(*args, **kwargs):\n"
        f"    resource.setrlimit(resource.RLIMIT_FSIZE, ({whole // 2}, resource.RLIM_INFINITY))\n"
        "    return extract(*args, **kwargs)\n"
        "job.extract = limited\n"
        "command(sys.argv[1:])"
    )
    arguments = ["manifest", "--root", str(manifest), "--cache", str(tmp_path / "a.h5"), *ENCODERS]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert found.returncode == 1, found.stderr
    assert "no room left while writing" in found.stderr
    assert "Traceback" not in found.stderr
    cache = FeatureCache(tmp_path / "a.h5")
    committed = sum(int((stream.state == 1).sum()) for stream in cache.streams.values())
    assert 0 < committed < 6 * len(names)
    assert verify(cache) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert run(manifest).exit_code == 0
    assert all((stream.state == 1).all() for stream in FeatureCache(tmp_path / "a.h5").streams.values())
