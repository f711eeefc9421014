"""From recordings to scores: real encoders, a real cache, the command in processes of its own, and a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fusion.training.checkpoint import load_checkpoint
from tests.support.runs import files_of, train_by_command
from tests.support.voices import RATE_HZ, featurized, tone, write_corpus

ROOT = Path(__file__).parents[2]
CLASSES = {"angry": (0.3, "i hate this"), "happy": (0.3, "i love this"), "sad": (0.0, "i hate this")}
SESSIONS, TURNS = 3, 16
LONG = ["--fusion", "concat", "--epochs", "25", "--set", "patience=25", "--set", "dim=16", "--batch-size", "4"]
SHORT = [*LONG, "--epochs", "3"]


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of 48 recordings: noise in the voice and words tell the class only together."""
    folder = tmp_path_factory.mktemp("voices")
    rows = []
    for place in range(SESSIONS * TURNS):
        session, turn = divmod(place, TURNS)
        label = list(CLASSES)[turn % len(CLASSES)]
        noise, text = CLASSES[label]
        sound = tone(0.3 + 0.02 * (place % 5), pitch_hz=120 + 5 * session, seed=place)
        sound += noise * np.random.default_rng(place).standard_normal(len(sound)).astype(np.float32)
        soundfile.write(folder / f"v{place:02}.wav", sound, RATE_HZ)
        told = {"speaker": f"s{session}{turn % 2}", "session": str(session), "dialogue": f"d{session}{turn // 4}"}
        rows.append({"id": f"v{place:02}", "text": text, "label": label, **told})
    manifest = write_corpus(folder, rows)
    featurized(manifest, folder / "voices.h5")
    return folder / "voices.h5"


def command(cache: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "cli.train", "--cache", str(cache), "--device", "cpu", *options]


def started(cache: Path, folder: Path, *options: str) -> "subprocess.Popen[str]":
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command(cache, *options), cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True)


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)


def killed_in_the_second_fold(cache: Path, folder: Path) -> None:
    with started(cache, folder, *LONG, "--out", "run") as process:
        wait_for(folder / "run" / "0-seed0" / "scores.json", process)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "run" / "results.json").exists()


def test_a_run_that_was_killed_ends_bit_equal_to_an_undisturbed_one(
    voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "killed").mkdir()
    (tmp_path / "whole").mkdir()
    killed_in_the_second_fold(voices, tmp_path / "killed")
    with started(voices, tmp_path / "killed", *LONG, "--out", "run", "--json") as process:
        told, progress = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "fold 0, seed 0" not in progress
    assert "fold 2, seed 0" in progress
    monkeypatch.chdir(tmp_path / "whole")
    result = train_by_command(voices, *LONG, "--out", "run", "--json")
    assert json.loads(told) == json.loads(result.stdout)
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def test_an_interrupt_leaves_a_state_that_is_gone_on_from(
    voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stopped", "whole"):
        (tmp_path / name).mkdir()
    with started(voices, tmp_path / "stopped", *SHORT, "--out", "run") as process:
        wait_for(tmp_path / "stopped" / "run" / "0-seed0", process)
        os.kill(process.pid, signal.SIGTERM)
        told, progress = process.communicate(timeout=60)
    assert (process.returncode, told) == (1, "")
    assert progress.endswith("interrupted; what is committed stays; run the same command again to resume\n")
    assert load_checkpoint(tmp_path / "stopped" / "run" / "0-seed0" / "state.safetensors").progress.step > 0
    for name in ("stopped", "whole"):
        monkeypatch.chdir(tmp_path / name)
        assert train_by_command(voices, *SHORT, "--out", "run").exit_code == 0
    assert files_of(tmp_path / "stopped") == files_of(tmp_path / "whole")


def test_something_is_learnt_of_voices_and_words(voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--epochs", "30", "--lr", "0.01", "--set", "monitor=loss", "--set", "adapter=off", "--json"]
    told = json.loads(train_by_command(voices, "--fusion", "concat", *options).stdout)
    assert told["mean"]["ua"] > 0.55  # one of three classes by chance
    assert all(one["epoch"] > 1 for one in told["folds"])


@pytest.mark.parametrize("fusion", ["rescmfa", "bimodal", "tab", "label-guided"])
def test_heads_train_on_what_encoders_gave(
    voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fusion: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = train_by_command(voices, "--fusion", fusion, "--epochs", "1", "--json")
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["folds"]) == SESSIONS
