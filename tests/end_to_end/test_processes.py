"""Every command once in a process of its own, as its script starts it, on what the commands before it left."""

import configparser
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import ROOT, command, forked
from tests.support.tuned import write_learning_corpus

QUICK = "--device cpu --epochs 1 --batch-size 8"
AUDIO = "--cache voices.h5 --fusion audio --audio wav2vec2-tiny"
ENCODER = "--cache voices.h5 --encoder wav2vec2-tiny"


def read_scripts() -> dict[str, str]:
    """Reads the commands and their functions, ``module:function``."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options.entry_points"]["console_scripts"].strip().splitlines()
    return dict(line.split(" = ") for line in lines)


SCRIPTS = read_scripts()


def started(module: str, function: str, *options: str, folder: Path) -> tuple[int, str, str]:
    """Runs a command in a Python of its own; returns its status and what it printed to both streams."""
    done = subprocess.run(
        [sys.executable, "-c", f"from {module} import {function}; {function}()", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def quick(module: str, function: str, *options: str, folder: Path) -> tuple[int, str, str]:
    """Runs a command in a process of its own that has everything imported already."""
    with forked(command, module, function, *options, folder=folder) as process:
        return process.wait(), process.output.read_text(), process.errors.read_text()


@pytest.mark.parametrize("start", [quick, pytest.param(started, marks=pytest.mark.slow)])
def test_every_command_runs_as_a_process(tmp_path: Path, start: Callable[..., tuple[int, str, str]]) -> None:
    write_learning_corpus(tmp_path)
    encoders = "--encoder wav2vec2-tiny --encoder wav2vec2-tiny@conv --no-mel --device cpu"
    lines = {
        f"mmer-featurize manifest --root corpus.csv --cache voices.h5 {encoders}": "wav2vec2-tiny@conv",
        "mmer-cache verify voices.h5": "54 committed rows of utterances checked, 0 problems",
        f"mmer-train {AUDIO} {QUICK} --out run": "95% of pooled",
        f"mmer-finetune {AUDIO} {QUICK} --out tuned": "tuned encoders: audio wav2vec2-tiny",
        f"mmer-grid {AUDIO} {QUICK} --grid lr=0.01,0.03 --out grid": "best by mean dev",
        f"mmer-pretrain {ENCODER} --fold 0 --epochs 1 --device cpu --out ssl": "pre-0=ssl/0/encoder",
        "mmer-compare run tuned": "McNemar",
        "mmer-runs .": "grid/grids/",
        "mmer-report run": "run/report.html",
        "mmer-export run bundle": "bundle",
        "mmer-predict bundle v00.wav": "v00.wav",
        "mmer --help": "pretrain",
    }
    for line, expected in lines.items():
        name, *options = line.split()
        status, printed, errors = start(*SCRIPTS[name].split(":"), *options, folder=tmp_path)
        assert status == 0, f"{line}: {errors}"
        assert expected in printed, line
    assert {line.split()[0] for line in lines} == SCRIPTS.keys()
