import subprocess
import sys

import pytest
from click.testing import CliRunner

from cli.main import COMMANDS, mmer

HEAVY = ("torch", "transformers", "h5py", "numpy", "sklearn", "librosa", "dask")


@pytest.mark.parametrize(
    "call",
    [
        ["cli.main", "mmer"],
        ["cli.extract", "featurize"],
        ["cli.train", "train"],
        ["cli.maintain", "cache"],
        ["cli.maintain", "cache", "verify"],
    ],
)
def test_help_imports_nothing_heavy(call: list[str]) -> None:
    module, command, *arguments = call
    code = (
        f"import sys, atexit; from {module} import {command}\n"
        f"atexit.register(lambda: print('HEAVY', [name for name in {HEAVY} if name in sys.modules]))\n"
        f"{command}({[*arguments, '--help']})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in found.stdout
    assert "HEAVY []" in found.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_stands_in_the_group(name: str) -> None:
    listed = CliRunner().invoke(mmer, ["--help"]).output
    assert name in listed
    assert CliRunner().invoke(mmer, [name, "--help"]).exit_code == 0


def test_an_unknown_command_is_wrong_usage() -> None:
    result = CliRunner().invoke(mmer, ["featurise"])
    assert result.exit_code == 2
    assert "featurise" in result.output
