import subprocess
import sys

import pytest
from click.testing import CliRunner

from cli.main import COMMANDS, mmer

HEAVY = ("torch", "transformers", "h5py", "numpy", "sklearn", "librosa", "dask")


CALLS = (
    ("cli.main", "mmer"),
    ("cli.extract", "featurize"),
    ("cli.train", "train"),
    ("cli.maintain", "cache"),
    ("cli.maintain", "cache", "verify"),
)
# One process for all: a library that one of them imports is named by it, and by those after it.
ASKED = f"""
import importlib, sys
for module, command, *arguments in {CALLS}:
    try:
        getattr(importlib.import_module(module), command)([*arguments, "--help"])
    except SystemExit:
        pass
    print("HEAVY", module, *arguments, [name for name in {HEAVY} if name in sys.modules])
"""


def test_help_imports_nothing_heavy() -> None:
    found = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, check=True).stdout
    assert found.count("Usage:") == len(CALLS)
    assert [line for line in found.splitlines() if line.startswith("HEAVY")] == [
        f"HEAVY {' '.join([module, *arguments])} []" for module, _, *arguments in CALLS
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_stands_in_the_group(name: str) -> None:
    listed = CliRunner().invoke(mmer, ["--help"]).output
    assert name in listed
    assert CliRunner().invoke(mmer, [name, "--help"]).exit_code == 0


def test_an_unknown_command_is_wrong_usage() -> None:
    result = CliRunner().invoke(mmer, ["featurise"])
    assert result.exit_code == 2
    assert "featurise" in result.output
