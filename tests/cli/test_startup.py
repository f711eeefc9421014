"""Help, lists and errors before work are answered without the libraries that only work needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARIES = ("torch", "transformers", "librosa", "soundfile", "sklearn", "scipy", "matplotlib", "dask", "optuna")
# Runs a command as its script does, and reports at the end which libraries it has imported.
RUNNER = """
import atexit, importlib, sys
module, name, libraries, *sys.argv = sys.argv[1:]
found = lambda: [library for library in libraries.split(",") if library in sys.modules]
atexit.register(lambda: print("imported", *found(), file=sys.stderr))
sys.exit(getattr(importlib.import_module(module), name)())
"""
COMMANDS = {
    "mmer": "cli.main:mmer",
    "mmer-featurize": "cli.extract:featurize",
    "mmer-cache": "cli.maintain:cache",
    "mmer-train": "cli.train:train",
    "mmer-grid": "cli.grid:grid",
    "mmer-compare": "cli.compare:compare",
    "mmer-report": "cli.report:report",
    "mmer-runs": "cli.runs:runs",
    "mmer-pretrain": "cli.pretrain:pretrain",
    "mmer-predict": "cli.predict:predict",
    "mmer-export": "cli.export:export",
}
ANSWERS = [
    "mmer --help",
    "mmer --version",
    "mmer-featurize --help",
    "mmer-cache --help",
    "mmer-cache import --help",
    "mmer-train --help",
    "mmer-grid --help",
    "mmer-compare --help",
    "mmer-report --help",
    "mmer-runs --help",
    "mmer-pretrain --help",
    "mmer-featurize --list-encoders",
    "mmer-featurize --list-corpora",
]
ANSWERS += ["mmer-train --list-heads", "mmer-train --list-fields rescmfa", "mmer-train --list-recipes"]
ANSWERS += ["mmer-train --published all", "mmer-train --list-protocols --json", "mmer-predict -h", "mmer-export -h"]
USAGE = {
    "mmer-compare": "Missing argument 'RUN RUN...'",
    "mmer-report": "Missing argument 'RUN...'",
    "mmer-train --fusion rescmfa": "Missing option '--cache'",
    "mmer-train --learning-rate 1": "did you mean --lr?",
    "mmer-train --cache x.h5 --lr 0": "Invalid value for '--lr'",
    "mmer-pretrain --cache x.h5": "Missing option '--encoder'",
    "mmer-grid --cache x.h5 --engine none": "Invalid value for '--engine'",
}
ERRORS = {
    "mmer-featurize none": "unknown corpus 'none'",
    "mmer-featurize iemocap --root nowhere": "iemocap finds no folder nowhere",
    "mmer-featurize demo --encoder none": "unknown encoder 'none'",
    "mmer-cache info nowhere.h5": "no cache at nowhere.h5",
    "mmer-train --fusion rescmfa --cache nowhere.h5": "no cache at nowhere.h5",
    "mmer-train --fusion rescmfa --cache text.h5": "text.h5",
    "mmer-runs nowhere": "nowhere is not a folder",
    "mmer-pretrain --encoder wav2vec2-tiny --cache nowhere.h5": "no cache at nowhere.h5",
    "mmer-compare nowhere nowhere-2": "nowhere is not a run folder, it does not exist",
    "mmer-predict nowhere call.wav": "nowhere is not a run folder, it does not exist",
    "mmer-export nowhere bundle": "nowhere is not a run folder, it does not exist",
    "mmer-grid --fusion rescmfa --cache nowhere.h5 --grid lr=1,2": "no cache at nowhere.h5",
    "mmer-grid --fusion rescmfa --cache text.h5 --grid lr=1,2": "text.h5",
}
SETTINGS = {
    "mmer-train --fusion none": "unknown head 'none'",
    "mmer-train --recipe none": "unknown recipe 'none'",
    "mmer-train --fusion rescmfa --set none=1": "no field 'none'",
    "mmer-train --fusion rescmfa --set gate=none": "gate must be one of",
    "mmer-train --fusion rescmfa --set monitor=none": "monitor must be one of",
    "mmer-train --fusion rescmfa --protocol none": "unknown protocol 'none'",
    "mmer-train --fusion rescmfa --labels none": "unknown label set 'none'",
    "mmer-grid --fusion rescmfa --grid none=1,2": "no field 'none'",
}


def answer(command: str, folder: Path, *more: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Runs a command in a folder; returns what it printed, and the libraries that it imported."""
    name, *arguments = command.split()
    call = [*COMMANDS[name].split(":"), ",".join(LIBRARIES), name, *arguments, *more]
    ended = subprocess.run(
        [sys.executable, "-c", RUNNER, *call], cwd=folder, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in ended.stderr
    return ended, set(ended.stderr.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("command", ANSWERS)
def test_help_and_lists_import_no_library_of_the_work(command: str, tmp_path: Path) -> None:
    ended, imported = answer(command, tmp_path)
    assert ended.returncode == 0
    assert len(ended.stdout.splitlines()) >= 1
    assert imported == set()


@pytest.mark.parametrize("command", USAGE)
def test_wrong_usage_imports_no_library_of_the_work(command: str, tmp_path: Path) -> None:
    ended, imported = answer(command, tmp_path)
    assert ended.returncode == 2
    assert USAGE[command] in ended.stderr
    assert imported == set()


@pytest.mark.parametrize("command", ERRORS)
def test_a_wrong_name_or_path_imports_no_library_of_the_work(command: str, tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("no HDF5 at all\n")
    ended, imported = answer(command, tmp_path)
    assert ended.returncode == 1
    assert ERRORS[command] in ended.stderr
    assert imported == set()


@pytest.mark.parametrize("command", SETTINGS)
def test_a_wrong_setting_imports_no_library_of_the_work(command: str, trainable: Path) -> None:
    ended, imported = answer(command, trainable.parent, "--cache", str(trainable))
    assert ended.returncode == 1
    assert SETTINGS[command] in ended.stderr
    assert imported == set()


def test_threads_of_matrix_products_are_set_before_numpy_is_imported(tmp_path: Path) -> None:
    code = """
import builtins, os, sys
original = builtins.__import__
def watched(name, *rest, **more):
    if name.partition(".")[0] == "numpy" and "numpy" not in sys.modules:
        print("threads", os.environ.get("OPENBLAS_NUM_THREADS"), file=sys.stderr)
    return original(name, *rest, **more)
builtins.__import__ = watched
from cli.extract import featurize
featurize(["demo", "--root", "corpus", "--encoder", "none"])
"""
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert "threads 1" in ended.stderr.splitlines()
    assert "threads None" not in ended.stderr
