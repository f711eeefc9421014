"""From recordings to scores: real encoders, a real cache, the command in processes of its own, and a kill."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fusion.training.checkpoint import load_checkpoint
from tests.support.pictures import DRAWN, pictures_by
from tests.support.processes import command, forked, wait_until
from tests.support.runs import files_of, train_by_command
from tests.support.voices import RATE_HZ, featurized, tone, write_corpus

CLASSES = {"angry": (0.3, "i hate this"), "happy": (0.3, "i love this"), "sad": (0.0, "i hate this")}
SESSIONS, TURNS = 3, 16
OPTIONS = ["--fusion", "concat", "--epochs", "2", "--set", "dim=16", "--batch-size", "4", "--out", "run"]


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


def options_of(cache: Path, *options: str) -> list[str]:
    return ["--cache", str(cache), "--device", "cpu", *options]


def killed_in_the_second_fold(cache: Path, folder: Path) -> None:
    with forked(command, "cli.train", "train", *options_of(cache, *OPTIONS), folder=folder) as process:
        wait_until((folder / "run" / "0-seed0" / "scores.json").exists, process)
        assert process.kill() == -signal.SIGKILL
    assert not (folder / "run" / "results.json").exists()


def test_a_run_that_was_killed_ends_bit_equal_to_an_undisturbed_one(
    voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "killed").mkdir()
    (tmp_path / "whole").mkdir()
    killed_in_the_second_fold(voices, tmp_path / "killed")
    options = options_of(voices, *OPTIONS, "--json")
    with forked(command, "cli.train", "train", *options, folder=tmp_path / "killed") as process:
        status, told, progress = process.wait(), process.output.read_text(), process.errors.read_text()
    assert status == 0, progress
    assert "(0), seed 0" not in progress
    assert "fold 3 of 3 (2), seed 0" in progress
    monkeypatch.chdir(tmp_path / "whole")
    with pictures_by(*DRAWN):  # as in a process of its own
        result = train_by_command(voices, *OPTIONS, "--json")
    assert json.loads(told) == json.loads(result.stdout)
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


def test_an_interrupt_leaves_a_state_that_is_gone_on_from(
    voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stopped", "whole"):
        (tmp_path / name).mkdir()
    with forked(command, "cli.train", "train", *options_of(voices, *OPTIONS), folder=tmp_path / "stopped") as process:
        wait_until((tmp_path / "stopped" / "run" / "0-seed0").exists, process)
        os.kill(process.pid, signal.SIGTERM)
        status, told, progress = process.wait(), process.output.read_text(), process.errors.read_text()
    assert (status, told) in {(-signal.SIGTERM, ""), (128 + signal.SIGTERM, "")}
    assert progress.endswith("terminated; what is committed stays; run the same command again to resume\n")
    assert load_checkpoint(tmp_path / "stopped" / "run" / "0-seed0" / "state.safetensors").progress.step > 0
    for name in ("stopped", "whole"):
        monkeypatch.chdir(tmp_path / name)
        assert train_by_command(voices, *OPTIONS).exit_code == 0
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
