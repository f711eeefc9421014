import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.compare import compare
from cli.main import mmer
from tests.support.commands import stopped
from tests.support.runs import train_by_command


@pytest.fixture(scope="module")
def pair(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two finished runs over the same utterances."""
    folder = tmp_path_factory.mktemp("pair")
    for head in ("audio", "text"):
        result = train_by_command(trainable, "--fusion", head, "--epochs", "1", "--out", str(folder / head))
        assert result.exit_code == 0, result.output
    return [str(folder / head) for head in ("audio", "text")]


def test_two_runs_are_compared_in_a_table(pair: list[str]) -> None:
    result = CliRunner().invoke(compare, pair)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split("  ")[0] == "score"
    assert [line.split()[0] for line in lines[1:5]] == ["WA", "UA", "W-F1", "M-F1"]
    assert lines[5].startswith("McNemar: ")
    assert lines[6].startswith("WA accuracy, UA mean recall of the classes")
    assert lines[7].startswith("note: interval and permutation test: 6 speakers")


def test_json_is_one_object_and_the_group_has_the_command(pair: list[str]) -> None:
    result = CliRunner().invoke(mmer, ["compare", *pair, "--json"])
    assert result.stdout.count("\n") == 1
    assert list(json.loads(result.stdout)) == ["reference", "runs", "comparisons", "notes"]


def test_latex_rows_follow_the_table(pair: list[str]) -> None:
    lines = CliRunner().invoke(compare, [*pair, "--latex"]).stdout.splitlines()
    assert lines[-3].startswith("audio (audio) & ")
    assert lines[-2].startswith("text (text) & ")
    assert "--latex and --json exclude each other" in stopped(CliRunner().invoke(compare, [*pair, "--latex", "--json"]))


def test_one_run_or_none_is_refused_in_one_line(pair: list[str]) -> None:
    assert stopped(CliRunner().invoke(compare, pair[:1])) == (
        "Error: a comparison needs two or more finished runs, got 1; pass each folder"
    )
    assert "Missing argument 'RUN RUN...'" in CliRunner().invoke(compare, []).stderr
