"""Help, lists and errors before work are answered without the libraries that only work needs."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

LIBRARIES = ("torch", "transformers", "librosa", "soundfile", "sklearn", "scipy", "matplotlib", "dask", "optuna")
# Imports the modules of all commands and the readers of caches, catalogs and settings, and then runs each requested
# command in a fork of its own, as its script does.
RUNNER = """
import gc, importlib, json, os, sys
libraries, modules = sys.argv[1].split(","), sys.argv[2].split(",")
found = lambda: [library for library in libraries if library in sys.modules]
for module in modules:
    importlib.import_module(module)
gc.freeze()  # a fork then copies no memory of these modules when it ends
for line in sys.stdin:
    module, name, folder, output, errors, *sys.argv = json.loads(line)
    if child := os.fork():
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    os.chdir(folder)
    for stream, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    try:
        status = getattr(importlib.import_module(module), name)()
    except SystemExit as end:
        status = end.code
    print("imported", *found(), file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(status or 0)  # to take all modules apart takes most of the time of a fork
"""
QUICK = (
    "cache.joined",
    "featurize.corpora.catalog",
    "fusion.grid.space",
    "fusion.recipes.listing",
    "fusion.run.listing",
)
COMMANDS = {
    "mmer": "cli.main:mmer",
    "mmer-featurize": "cli.extract:featurize",
    "mmer-cache": "cli.maintain:cache",
    "mmer-train": "cli.train:train",
    "mmer-finetune": "cli.finetune:finetune",
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
    "mmer-finetune --help",
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
    "mmer-compare held": "a comparison needs two or more finished runs, got 1",
    "mmer-compare held ./held": "held is given twice",
    "mmer-report nowhere": "nowhere is not a run folder, it does not exist",
    "mmer-report held held": "held is given more than once",
    "mmer-finetune --fusion rescmfa --cache nowhere.h5": "no cache at nowhere.h5",
    "mmer-predict held call.wav --device none": "device 'none' is not available here",
    "mmer-predict held call.wav --csv --json": "--csv, --json and --resume exclude each other",
    "mmer-featurize demo --device none": "device 'none' is not available here",
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
    "mmer-train --run a --run b": "--run needs two or more finished runs, and --fusion score",
    "mmer-train --fusion score --run a --run b": "a is not a run folder, it does not exist",
    "mmer-train --fusion rescmfa --device none": "device 'none' is not available here",
    "mmer-pretrain --encoder wav2vec2-tiny --device none": "device 'none' is not available here",
    "mmer-grid --fusion rescmfa --device none": "device 'none' is not available here",
    "mmer-train --fusion rescmfa --audio none": "has no stream none",
    "mmer-train --fusion rescmfa --audio none --dry-run": "has no stream none",
    "mmer-train --fusion rescmfa --only none=1": "--only: unknown column 'none'",
    "mmer-train --fusion jfm --stream mel=none": "has no stream none",
    "mmer-train --recipe gcf2net-iemocap": "which recipe gcf2net-iemocap reads",
    "mmer-finetune --fusion rescmfa --tune mel": "the role must be one of",
    "mmer-grid --fusion rescmfa --grid none=1,2": "no field 'none'",
    "mmer-grid --fusion rescmfa --audio none --grid lr=1,2": "none of the 2 combinations can be trained",
    "mmer-grid --fusion rescmfa --audio none --dry-run": "none of the 1 combinations can be trained",
    "mmer-grid --fusion rescmfa --grid modalities=none": "modalities must be",
}


@dataclass(frozen=True)
class Answer:
    """Exit status of a command, what it printed, and the libraries that it imported."""

    status: int
    output: str
    errors: str
    imported: set[str]


Ask = Callable[..., Answer]


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Function that runs a command in a folder, in a process that has imported the modules of commands."""
    modules = [*sorted({target.split(":")[0] for target in COMMANDS.values()}), *QUICK]
    call = [sys.executable, "-c", RUNNER, ",".join(LIBRARIES), ",".join(modules)]
    pipe, files = subprocess.PIPE, tmp_path_factory.mktemp("answers")
    with subprocess.Popen(call, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        requests, statuses = process.stdin, process.stdout

        def ask(command: str, folder: Path, *more: str) -> Answer:
            name, *arguments = command.split()
            output, errors = (files / f"{len(list(files.iterdir()))}.{stream}" for stream in ("out", "err"))
            request = [*COMMANDS[name].split(":"), str(folder), str(output), str(errors), name, *arguments, *more]
            print(json.dumps(request), file=requests, flush=True)
            status = int(statuses.readline())
            printed = errors.read_text()
            assert "Traceback" not in printed
            return Answer(status, output.read_text(), printed, set(printed.splitlines()[-1].split()[1:]))

        yield ask
        requests.close()


@pytest.mark.parametrize("command", ANSWERS)
def test_help_and_lists_import_no_library_of_the_work(command: str, tmp_path: Path, answer: Ask) -> None:
    ended = answer(command, tmp_path)
    assert ended.status == 0
    assert len(ended.output.splitlines()) >= 1
    assert ended.imported == set()


@pytest.mark.parametrize("command", USAGE)
def test_wrong_usage_imports_no_library_of_the_work(command: str, tmp_path: Path, answer: Ask) -> None:
    ended = answer(command, tmp_path)
    assert ended.status == 2
    assert USAGE[command] in ended.errors
    assert ended.imported == set()


@pytest.mark.parametrize("command", ERRORS)
def test_a_wrong_name_or_path_imports_no_library_of_the_work(command: str, tmp_path: Path, answer: Ask) -> None:
    (tmp_path / "text.h5").write_text("no HDF5 at all\n")
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "run.json").touch()
    ended = answer(command, tmp_path)
    assert ended.status == 1
    assert ERRORS[command] in ended.errors
    assert ended.imported == set()


@pytest.mark.parametrize("command", SETTINGS)
def test_a_wrong_setting_imports_no_library_of_the_work(command: str, trainable: Path, answer: Ask) -> None:
    ended = answer(command, trainable.parent, "--cache", str(trainable))
    assert ended.status == 1
    assert SETTINGS[command] in ended.errors
    assert ended.imported == set()


def test_threads_of_matrix_products_are_set_before_numpy_is_imported(tmp_path: Path) -> None:
    code = """
import builtins, os, sys
original = builtins.__import__
def watched(name, *rest, **more):
    if name.partition(".")[0] == "numpy" and "numpy" not in sys.modules:
        print("threads", os.environ.get("OPENBLAS_NUM_THREADS"), file=sys.stderr, flush=True)
        os._exit(0)  # what comes after is not of interest
    return original(name, *rest, **more)
builtins.__import__ = watched
from cli.extract import featurize
featurize(["demo", "--root", "corpus", "--encoder", "none"])
"""
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.stderr.splitlines() == ["threads 1"]
