import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cache.layout import read_layout
from cache.store import FeatureCache
from cli.maintain import cache as command
from tests.support.shards import everything


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, ["merge", *[str(argument) for argument in arguments]])


@pytest.fixture
def whole(six: Path) -> Path:
    """Six committed utterances in one file; next to it the same in three."""
    return six / "whole.h5"


def test_merge_joins_files_and_patterns(whole: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "out.h5", tmp_path / "shard-0.h5", tmp_path / "shard-[12].h5")
    assert result.exit_code == 0, result.output
    assert "out.h5: 6 utterances, 18 committed rows of utterances from 3 files" in result.stdout
    assert everything(FeatureCache(tmp_path / "out.h5")) == everything(FeatureCache(whole))


def test_merge_as_json_is_the_summary_and_the_counts(whole: Path, tmp_path: Path) -> None:
    found = json.loads(run(tmp_path / "out.h5", tmp_path / "shard-*.h5", "--json").stdout)
    assert (found["utterances"], found["files"], found["committed"], found["damaged"]) == (6, 3, 18, 0)
    assert found["streams"]["mel"]["committed"] == 6
    assert found["failures"] == []


def test_merge_replaces_only_what_it_may(whole: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "out.h5", whole).exit_code == 0
    result = run(tmp_path / "out.h5", whole)
    assert result.exit_code == 1
    assert "out.h5 already exists; choose another file, or pass --replace to overwrite it" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert run(tmp_path / "out.h5", whole, "--replace").exit_code == 0


def test_merge_tells_of_damaged_rows(whole: Path, tmp_path: Path) -> None:
    values = read_layout(whole).streams["enc"].regions["values"]
    with whole.open("rb+") as file:
        file.seek(values.offset)
        file.write(b"\xff\xff")
    result = run(tmp_path / "out.h5", whole)
    assert result.exit_code == 0
    assert "1 damaged rows of utterances were left out; mmer-featurize computes them again" in result.stderr


@pytest.mark.parametrize(("name", "told"), [("none.h5", "no cache at "), ("none-*.h5", "no cache matches ")])
def test_a_missing_file_is_one_line(tmp_path: Path, name: str, told: str) -> None:
    result = run(tmp_path / "out.h5", tmp_path / name)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {told}")
    assert len(result.stderr.splitlines()) == 1


def test_merging_nothing_is_wrong_usage(tmp_path: Path) -> None:
    assert run(tmp_path / "out.h5").exit_code == 2
