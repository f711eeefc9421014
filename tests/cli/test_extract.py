import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cache.store import FeatureCache
from cli.extract import featurize
from tests.support.voices import write_voices


def run(*arguments: str) -> Result:
    return CliRunner().invoke(featurize, list(arguments))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_voices(tmp_path / "corpus", "abcd")


TINY = ("--encoder", "wav2vec2-tiny", "--encoder", "roberta-tiny")
QUICK = (*TINY, "--no-mel")


def test_the_cache_of_a_manifest_is_named_after_it(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("manifest", "--root", str(manifest), *QUICK)
    assert result.exit_code == 0, result.output
    assert len(FeatureCache(tmp_path / "cache" / "corpus.h5")) == 4
    assert "cache/corpus.h5 is done" in result.stdout


def test_the_root_may_come_from_the_environment(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMER_MANIFEST_ROOT", str(manifest))
    result = run("manifest", "--cache", str(tmp_path / "a.h5"), "--encoder", "mfcc39", "--audio-only", "--no-mel")
    assert result.exit_code == 0, result.output
    assert list(FeatureCache(tmp_path / "a.h5").streams) == ["mfcc39"]


def test_json_is_one_object_on_stdout_and_nothing_else(manifest: Path, tmp_path: Path) -> None:
    result = run("manifest", "--root", str(manifest), "--cache", str(tmp_path / "a.h5"), *TINY, "--json")
    report = json.loads(result.stdout)
    assert report["utterances"] == 4
    assert report["streams"]["wav2vec2-tiny"]["committed"] == 4
    assert {"cache", "failures", "noted", "notes", "seconds"} <= report.keys()


def test_a_dry_run_plans_what_a_run_then_writes(manifest: Path, tmp_path: Path) -> None:
    arguments = ("manifest", "--root", str(manifest), "--cache", str(tmp_path / "a.h5"), *TINY, "--json")
    planned = json.loads(run(*arguments, "--dry-run").stdout)
    assert not (tmp_path / "a.h5").exists()
    assert planned["seconds"] > 0
    assert planned["free_bytes"] > planned["size_bytes"]
    streams = json.loads(run(*arguments).stdout)["streams"]
    assert {one["name"]: (one["rows"], one["size_bytes"]) for one in planned["streams"]} == {
        name: (one["rows"], one["bytes"]) for name, one in streams.items()
    }


def test_a_dry_run_for_people_names_disk_and_time(manifest: Path, tmp_path: Path) -> None:
    result = run("manifest", "--root", str(manifest), "--cache", str(tmp_path / "a.h5"), *TINY, "--dry-run")
    assert "free disk" in result.stdout
    assert "time: about" in result.stdout


def test_parity_check_prints_a_figure_per_encoder(manifest: Path, tmp_path: Path) -> None:
    arguments = ("manifest", "--root", str(manifest), "--cache", str(tmp_path / "a.h5"), *QUICK)
    result = run(*arguments, "--parity-check", "3", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "parity of wav2vec2-tiny (float32), 3 utterances" in result.stdout
    assert "parity of roberta-tiny (float32), 3 utterances" in result.stdout
    assert result.stdout.count("relative L2") == 2
    result = run(*arguments, "--parity-check", "3", "--dry-run", "--json")
    assert "streams" in json.loads(result.stdout)


def test_a_parity_that_is_off_stops_the_run(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from featurize.encoders import speech

    monkeypatch.setattr(speech, "valid_mask", lambda lengths, device: None)  # as careless batching would
    arguments = ("manifest", "--root", str(manifest), "--cache", str(tmp_path / "a.h5"), *QUICK)
    result = run(*arguments, "--parity-check", "4")
    assert result.exit_code == 1
    assert "wav2vec2-tiny deviates by more than 1e-05" in result.stderr
    assert not (tmp_path / "a.h5").exists()


def test_codes_may_be_left_out(manifest: Path, tmp_path: Path) -> None:
    arguments = ("manifest", "--root", str(manifest), "--cache", str(tmp_path / "a.h5"), "--encoder", "wav2vec2-tiny")
    assert run(*arguments, "--audio-only", "--no-codes", "--no-mel").exit_code == 0
    assert list(FeatureCache(tmp_path / "a.h5").streams) == ["wav2vec2-tiny"]


def test_listings_name_every_encoder_and_corpus() -> None:
    listed = run("--list-encoders").stdout
    assert all(name in listed for name in ("wav2vec2-base", "facebook/wav2vec2-base", "mfcc39", "roberta-tiny"))
    listed = run("--list-corpora").stdout
    assert all(name in listed for name in ("iemocap", "ravdess", "manifest", "demo"))


@pytest.mark.parametrize(
    "wrong", [("--limit", "0"), ("--max-seconds", "-1"), ("--dtype", "float8"), ("--batch-seconds", "-1"), ("--nope",)]
)
def test_wrong_usage_is_exit_code_2(wrong: tuple[str, ...]) -> None:
    assert run("demo", *wrong).exit_code == 2


def test_interrupting_says_how_to_go_on(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from featurize.extraction import run as running

    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "extract", interrupted)
    result = run("manifest", "--root", str(manifest), "--cache", str(tmp_path / "a.h5"), *QUICK)
    assert result.exit_code == 130  # as a shell sees SIGINT
    assert "run the same command again to resume" in result.stderr
    monkeypatch.undo()
    assert run("manifest", "--root", str(manifest), "--cache", str(tmp_path / "a.h5"), *QUICK).exit_code == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--workers", "2", "--scheduler", "tcp://a:1"], "give one of the two"),
        (["--shard", "2"], "--shard 2 needs --shards of at least as many"),
        (["--shards", "2", "--shard", "3"], "--shard 3 needs --shards of at least as many"),
        (["--cache", "cache/voices-*.h5"], "names one file to write"),
        (["--start-layers", "0"], "must be a number from 1 to 12, got 0"),
        (["--start-layers", "13"], "must be a number from 1 to 12, got 13"),
        (["--batch-seconds", "nan"], "must be a number of at least 0, got nan"),
        (["--history", "-1"], "must be a number of at least 0, got -1"),
    ],
)
def test_options_that_contradict_each_other_are_wrong_usage(manifest: Path, options: list[str], told: str) -> None:
    result = run("manifest", "--root", str(manifest), *TINY, *options)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_job_array_writes_a_file_for_each_share(tmp_path: Path) -> None:
    corpus = ["manifest", "--root", str(write_voices(tmp_path / "corpus", "ghijkl"))]
    for shard in ("1", "2"):
        cache = ["--cache", str(tmp_path / "a.h5"), "--shards", "2", "--shard", shard]
        assert run(*corpus, *QUICK, *cache).exit_code == 0
    assert [path.name for path in sorted(tmp_path.glob("*.h5"))] == ["a-1-of-2.h5", "a-2-of-2.h5"]
