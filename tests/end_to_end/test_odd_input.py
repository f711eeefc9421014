"""Odd input, row by row of the table in the README: accepted with a note, or failed with a reason."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from cache.audit import verify
from cache.store import FeatureCache
from tests.support.commands import run, stopped
from tests.support.voices import RATE_HZ, tone, write_corpus

Write = Callable[[Path], None]


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


@dataclass(frozen=True, kw_only=True)
class Finished:
    """One run over all utterances of a table: what it reported, and its cache."""

    report: dict[str, Any]
    cache: FeatureCache

    def place(self, kind: str) -> int:
        return self.cache.ids.index(id_of(kind))

    def of(self, field: str, kind: str) -> list[dict[str, str]]:
        return [row for row in self.report[field] if row["id"] == id_of(kind)]


def id_of(kind: str) -> str:
    return f"is_{kind.replace(' ', '_')}"  # NaN alone would be an empty cell


def finished(manifest: Path, *options: str) -> Finished:
    result = run(manifest, "--json", *options)
    assert result.exit_code == 0, result.output
    cache = FeatureCache(manifest.parent / "a.h5")
    assert verify(cache) == []
    return Finished(report=json.loads(result.stdout), cache=cache)


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("accepted")
    for kind, write in ACCEPTED.items():
        write(folder / f"{id_of(kind)}.wav")
    return finished(write_corpus(folder, [{"id": id_of(kind), "text": "this is it"} for kind in ACCEPTED]))


@pytest.mark.parametrize("kind", ACCEPTED)
def test_other_formats_are_mixed_and_resampled(accepted: Finished, kind: str) -> None:
    assert accepted.of("failures", kind) == []
    assert accepted.of("noted", kind) == []
    # 0.5 s are 8000 samples at 16 kHz, whatever the file
    assert accepted.cache.stream("wav2vec2-tiny").lengths[accepted.place(kind)] == 24


def test_a_recording_that_cannot_be_sought_in_is_decoded_from_its_start(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path, [{"id": "a", "start_s": 0.1, "end_s": 0.4}])
    sound(samplerate=8_000, subtype="GSM610")(tmp_path / "a.wav")
    result = run(manifest, "--json")
    assert json.loads(result.stdout)["failures"] == []


NOTED: dict[str, tuple[Any, str, str, str]] = {
    "silent": (np.zeros(8000), "hello", "wav2vec2-tiny", "silent: every sample is 0"),
    "5 ms": (tone(0.005), "hello", "logmel80", "5 ms: shorter than one frame"),
    "empty transcript": (tone(0.5), "", "roberta-tiny", "empty transcript"),
    "only an event tag": (tone(0.5), "[LAUGHTER]", "roberta-tiny", ""),
    "emoji": (tone(0.5), "so 😀 nice", "roberta-tiny", "holds 1 symbol such as 😀"),
    "emoji for CTC": (tone(0.5), "so 😀 nice", "ctc.chars", "not in the CTC vocabulary"),
    "NUL": (tone(0.5), "so\0 nice", "roberta-tiny", "1 NUL character removed"),
}


@pytest.fixture(scope="module")
def noted(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("noted")
    for kind, (samples, _, _, _) in NOTED.items():
        soundfile.write(folder / f"{id_of(kind)}.wav", samples, RATE_HZ)
    return finished(write_corpus(folder, [{"id": id_of(kind), "text": row[1]} for kind, row in NOTED.items()]))


@pytest.mark.parametrize("kind", NOTED)
def test_odd_input_is_accepted_with_a_note(noted: Finished, kind: str) -> None:
    _, _, stream, note = NOTED[kind]
    assert noted.of("failures", kind) == []
    notes = {row["stream"]: row["note"] for row in noted.of("noted", kind)}
    assert note in notes.get(stream, "")
    assert (stream in notes) == bool(note)
    if kind in {"empty transcript", "only an event tag"}:
        assert len(noted.cache.stream("roberta-tiny").read(noted.place(kind))) == 2  # <s> and </s>
        assert len(noted.cache.stream("ctc.chars").read(noted.place(kind))) == 0


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


def too_loud(path: Path) -> None:
    soundfile.write(path, np.full((8000, 2), 3e38, dtype=np.float32), RATE_HZ, subtype="FLOAT")


FAILED: dict[str, tuple[Write, str]] = {
    "missing": (lambda path: None, "missing"),
    "zero bytes": (Path.touch, "empty: zero bytes"),
    "truncated": (truncated, "truncated: 4956 of 16000 bytes"),
    "truncated flac": (truncated_flac, "of 14400 samples of sound"),
    "not audio": (lambda path: path.write_text("hello"), "cannot be decoded"),  # type: ignore[dict-item]
    "a folder": (Path.mkdir, "not a file"),
    "NaN": (with_nan, "1 samples are NaN or infinite"),
    "no sound": (too_loud, "samples up to 3e+38 are not audio"),
    "too long": (sound(1.1, samplerate=RATE_HZ), "1.1 s, longer than --max-seconds 1"),
}


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("failed")
    sound(samplerate=RATE_HZ)(folder / "is_good.wav")
    for kind, (write, _) in FAILED.items():
        write(folder / f"{id_of(kind)}.wav")
    return finished(
        write_corpus(folder, [*({"id": id_of(kind)} for kind in FAILED), {"id": "is_good"}]), "--max-seconds", "1"
    )


@pytest.mark.parametrize("kind", FAILED)
def test_an_unusable_recording_fails_and_the_rest_goes_on(failed: Finished, kind: str) -> None:
    reasons = {row["stream"]: row["reason"] for row in failed.of("failures", kind)}
    assert reasons.keys() == {"wav2vec2-tiny", "wav2vec2-tiny.codes", "logmel80"}
    assert all(FAILED[kind][1] in reason for reason in reasons.values())
    for name in ("wav2vec2-tiny", "wav2vec2-tiny.codes"):
        state = failed.cache.stream(name).state
        assert [state[failed.place(kind)], state[failed.place("good")]] == [2, 1]


def test_a_transcript_over_the_limit_fails_or_is_truncated(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path, [{"id": "a", "text": "so " * 600}, {"id": "b"}])
    sound(samplerate=RATE_HZ)(tmp_path / "a.wav")
    sound(samplerate=RATE_HZ)(tmp_path / "b.wav")
    result = run(manifest)
    assert result.exit_code == 0
    assert "602 tokens, the encoder allows 512; pass --truncate to cut" in result.stdout
    result = run(manifest, "--truncate", "--cache", str(tmp_path / "b.h5"))
    assert "truncated from 602 to 512 tokens" in result.stdout


def test_nothing_computed_at_all_is_exit_code_1(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path, [{"id": "a"}, {"id": "b"}])
    line = stopped(run(manifest))
    assert "nothing at all was computed for wav2vec2-tiny, wav2vec2-tiny.codes, logmel80" in line


def test_failures_are_grouped_by_their_reason_and_listed_in_full_as_json(tmp_path: Path) -> None:
    names = [f"gone{number}" for number in range(7)]
    manifest = write_corpus(tmp_path, [{"id": name} for name in ["good", "bad", *names]])
    sound(samplerate=RATE_HZ)(tmp_path / "good.wav")
    truncated(tmp_path / "bad.wav")
    lines = run(manifest).stdout.splitlines()
    assert lines[lines.index("8 utterances failed in one stream or more:") + 1].startswith(
        "  7 x missing: not found (first: gone0 in "
    )
    report = json.loads(run(manifest, "--json").stdout)
    reasons = {one["id"]: one["reason"] for one in report["failures"]}
    assert set(reasons) == {"bad", *names}
    assert reasons["gone3"] == f"missing: not found (tried {tmp_path}/gone3.wav)"


def test_a_recording_that_claims_years_fails_alone_in_chunks_as_well(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path, [{"id": "bad"}, {"id": "pipe"}, {"id": "good"}])
    soundfile.write(tmp_path / "bad.flac", tone(0.5), RATE_HZ)
    data = bytearray((tmp_path / "bad.flac").read_bytes())
    data[21:26] = ((data[21] & 0xF0) << 32 | (1 << 36) - 1).to_bytes(5, "big")
    (tmp_path / "bad.wav").write_bytes(data)
    os.mkfifo(tmp_path / "pipe.wav")
    sound(samplerate=RATE_HZ)(tmp_path / "good.wav")
    report = json.loads(run(manifest, "--json", "--chunk", "--max-seconds", "1e9").stdout)
    reasons = {one["id"]: one["reason"] for one in report["failures"]}
    assert reasons == {
        "bad": f"truncated: 8000 of {(1 << 36) - 1} samples of sound",
        "pipe": "not a file: a named pipe",
    }
