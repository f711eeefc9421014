import json
import shutil
from pathlib import Path

import pytest
import soundfile
from click.testing import CliRunner, Result

from cache.joined import open_cache
from cache.layout import StreamPlan, read_layout
from cache.store import FeatureCache
from cli.maintain import cache as command
from tests.support.voices import RATE_HZ, featurized, tone, write_voices


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    manifest = write_voices(folder / "corpus", "abc")
    (folder / "corpus" / "c.wav").write_bytes(b"")
    featurized(manifest, folder / "a.h5")
    return folder / "a.h5"


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    shutil.copy(made, tmp_path)
    shutil.copytree(made.parent / "corpus", tmp_path / "corpus")
    return tmp_path / "a.h5"


def test_info_lists_streams_and_failures(made: Path) -> None:
    result = run("info", made)
    assert result.exit_code == 0
    assert "manifest, 3 utterances" in result.stdout
    assert "failed: c in wav2vec2-tiny: empty: zero bytes" in result.stdout


def test_info_as_json_keeps_its_contract(made: Path) -> None:
    found = json.loads(run("info", made, "--json").stdout)
    assert found["utterances"] == 3
    assert {"id": "c", "stream": "logmel80", "reason": "empty: zero bytes"} in found["failures"]
    assert set(found["streams"]["roberta-tiny"]) == {
        "rows",
        "dim",
        "dtype",
        "committed",
        "failed",
        "pending",
        "bytes",
        "key",
    }


def test_verify_is_clean_on_a_sound_cache_and_its_recordings(made: Path) -> None:
    result = run("verify", made, "--audio", made.parent / "corpus")
    assert result.exit_code == 0, result.output
    assert "0 problems" in result.stdout


def test_verify_finds_damage(copy: Path) -> None:
    values = read_layout(copy).streams["logmel80"].regions["values"]
    with copy.open("rb+") as file:
        file.seek(values.offset)
        file.write(b"\xff\xff\xff")
    result = run("verify", copy, "--json")
    assert result.exit_code == 1
    (problem,) = json.loads(result.stdout)["problems"]
    assert (problem["stream"], problem["id"]) == ("logmel80", "a")
    assert "checksum differs" in problem["problem"]


def test_verify_finds_exchanged_and_missing_recordings(copy: Path) -> None:
    soundfile.write(copy.parent / "corpus" / "a.wav", tone(0.2, seed=99), RATE_HZ)
    (copy.parent / "corpus" / "b.wav").unlink()
    result = run("verify", copy, "--audio", copy.parent / "corpus")
    assert result.exit_code == 1
    assert "wav2vec2-tiny a: the recording is not the one that was featurized" in result.stdout
    assert "wav2vec2-tiny b: missing" in result.stdout


def test_verify_takes_the_manifest_for_its_folder_and_refuses_what_is_not_there(made: Path) -> None:
    assert run("verify", made, "--audio", made.parent / "corpus" / "corpus.csv").exit_code == 0
    result = run("verify", made, "--audio", made.parent / "nope")
    assert result.exit_code == 1
    assert "nope not found; expected the same path as --root" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_doctor_counts(made: Path) -> None:
    result = run("doctor", made)
    assert result.exit_code == 0
    assert "label 'sad'" in result.stdout
    assert "DIFFERS" in result.stdout  # c is not covered
    found = json.loads(run("doctor", made, "--json").stdout)["findings"]
    assert {"what": "utterances", "found": 3, "expected": None, "detail": "", "differs": False} in found


def test_drop_takes_one_stream_away(copy: Path) -> None:
    result = run("drop", copy, "logmel80")
    assert result.exit_code == 0, result.output
    assert "logmel80" not in FeatureCache(copy).streams
    assert run("verify", copy).exit_code == 0


@pytest.fixture
def pattern(six: Path) -> Path:
    """Six committed utterances in three files, named by a pattern."""
    return six / "shard-*.h5"


def test_info_sums_up_all_files_of_a_pattern(pattern: Path) -> None:
    result = run("info", pattern)
    assert result.exit_code == 0, result.output
    assert "shard-*.h5: toy, 6 utterances in 3 files, made 2026" in result.stdout
    shards = json.loads(run("info", pattern, "--json").stdout)
    whole = json.loads(run("info", pattern.with_name("whole.h5"), "--json").stdout)
    assert shards["streams"] == whole["streams"]
    assert shards.keys() == whole.keys()


def test_verify_and_doctor_look_at_all_files_of_a_pattern(pattern: Path) -> None:
    result = run("verify", pattern)
    assert result.exit_code == 0, result.output
    assert "18 committed rows of utterances checked, 0 problems" in result.stdout
    counted = run("doctor", pattern).stdout.splitlines()
    assert run("doctor", pattern.with_name("whole.h5")).stdout.splitlines() == counted
    values = read_layout(pattern.with_name("shard-1.h5")).streams["enc"].regions["values"]
    with pattern.with_name("shard-1.h5").open("rb+") as file:
        file.seek(values.offset)
        file.write(b"\xff\xff")
    damaged = run("verify", pattern, "--json")
    assert damaged.exit_code == 1
    assert [problem["id"] for problem in json.loads(damaged.stdout)["problems"]] == ["e"]


def test_drop_takes_a_stream_out_of_every_file_of_a_pattern(pattern: Path) -> None:
    result = run("drop", pattern, "mel")
    assert result.exit_code == 0, result.output
    assert "mel dropped from" in result.stdout
    assert list(open_cache(pattern).streams) == ["enc", "enc.codes"]
    assert run("verify", pattern).exit_code == 0
    assert list(json.loads(run("drop", pattern, "enc.codes", "--json").stdout)["streams"]) == ["enc"]


def test_files_that_are_not_one_corpus_are_one_line(pattern: Path) -> None:
    assert run("drop", pattern.with_name("shard-2.h5"), "mel").exit_code == 0
    result = run("info", pattern)
    assert result.exit_code == 1
    assert "shard-2.h5 has no stream mel" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("call", [("info",), ("verify",), ("doctor",), ("drop", "x")])
def test_no_cache_at_all_is_one_line(tmp_path: Path, call: tuple[str, ...]) -> None:
    name, *rest = call
    result = run(name, tmp_path / "none.h5", *rest)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: no cache at ")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("call", [("info",), ("verify",), ("doctor",), ("drop", "x")])
def test_a_pattern_without_a_match_is_one_line(tmp_path: Path, call: tuple[str, ...]) -> None:
    name, *rest = call
    result = run(name, tmp_path / "none-*.h5", *rest)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: no cache matches ")
    assert len(result.stderr.splitlines()) == 1


def test_dropping_an_unknown_stream_names_the_known(toy: tuple[Path, StreamPlan]) -> None:
    result = run("drop", toy[0], "nope")
    assert result.exit_code == 1
    assert "it has: enc" in result.stderr
