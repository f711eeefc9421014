"""The command ``mmer-pretrain``: its table, its JSON, the line that comes next, and mistakes in one line."""

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.extract import featurize
from cli.pretrain import pretrain
from tests.support.commands import stopped
from tests.support.folds import table_of_folds
from tests.support.pretraining import featurize_sessions, write_sessions
from tests.support.processes import command, forked

QUICK = ["--steps", "3", "--batch-size", "4", "--set", "negatives=10"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    manifest = write_sessions(tmp_path_factory.mktemp("sessions") / "tones")
    return featurize_sessions(manifest, manifest.parent.parent / "a.h5", "wav2vec2-tiny@conv", "b=wav2vec2-tiny")


def run(cache: Path, *options: str, encoder: str = "wav2vec2-tiny") -> Result:
    arguments = ["--cache", str(cache), "--encoder", encoder, "--device", "cpu", *options]
    return CliRunner().invoke(pretrain, arguments)


def test_a_process_prints_the_table_and_the_command_that_comes_next(cache: Path, tmp_path: Path) -> None:
    options = ["--cache", str(cache), "--encoder", "wav2vec2-tiny", "--fold", "2", "--out", str(tmp_path / "run")]
    with forked(command, "cli.pretrain", "pretrain", *options, *QUICK) as child:
        assert child.wait() == 0, child.errors.read_text()
        lines = child.output.read_text().splitlines()
        assert "fold 2: epoch 1, loss " in child.errors.read_text()
    assert lines[0].split() == [
        "fold", "train", "epochs", "steps", "loss", "dev", "loss", "accuracy", "perplexity", "seconds"
    ]  # fmt: skip
    assert lines[1].split()[:4] == ["2", "12", "1", "3"]
    assert lines[2].startswith("session: leave one session out")
    assert lines[-2] == "make streams of the encoders with"
    name, *arguments = shlex.split(lines[-1])
    assert name == "mmer-featurize"
    assert f"pre-2={tmp_path / 'run' / '2' / 'encoder'}" in arguments
    assert CliRunner().invoke(featurize, arguments).exit_code == 0


def test_json_is_one_object(cache: Path, tmp_path: Path) -> None:
    result = run(cache, *QUICK, "--fold", "1", "--json", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["folder"] == str(tmp_path)
    (fold,) = found["folds"]
    assert fold["encoder"] == str(tmp_path / "1" / "encoder")
    assert fold["curves"][0]["epoch"] == 1.0
    assert found["featurize"].startswith("mmer-featurize manifest --root ")


def test_the_default_folder_is_named_after_cache_encoder_and_settings(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in ("0", "1", "0"):
        assert run(cache, *QUICK, "--steps", "1", "--fold", "1", "--seed", seed).exit_code == 0
    names = [path.name for path in (tmp_path / "runs").iterdir()]
    assert len(names) == 2
    assert all(name.startswith("a-pretrain-wav2vec2-tiny-") for name in names)


@pytest.mark.parametrize(
    ("encoder", "options", "message"),
    [
        ("b", [], "has no stream b@conv, from which pre-training starts; add it with mmer-featurize"),
        ("roberta-tiny", [], "has no stream roberta-tiny@conv"),
        ("wav2vec2-tiny", ["--set", "mask=1"], "pre-training has no field 'mask'; "),
        ("wav2vec2-tiny", ["--set", "mask_prob=2"], "pre-training: mask_prob must lie in (0, 1], got 2.0"),
        ("wav2vec2-tiny", ["--gumbel-decay", "2"], "gumbel_decay must lie in (0, 1]"),
        ("wav2vec2-tiny", ["--fold", "9"], "protocol session has no fold 9; known: 1, 2, 3"),
        (
            "wav2vec2-tiny",
            ["--from", "wave", "--root", "nowhere"],
            "folder nowhere not found; expected the same path",
        ),
        ("wav2vec2-tiny", ["--only", "mood=sad"], "--only: unknown column 'mood'"),
        ("wav2vec2-tiny", ["--device", "quantum"], "choose auto, cpu, cuda"),
    ],
)
def test_mistakes_are_one_line(cache: Path, tmp_path: Path, encoder: str, options: list[str], message: str) -> None:
    assert message in stopped(run(cache, *QUICK, *options, "--out", str(tmp_path / "run"), encoder=encoder))


def test_a_wrong_table_of_folds_is_one_line(cache: Path, tmp_path: Path) -> None:
    folds = table_of_folds(cache, tmp_path / "folds.csv", more="nobody,a\n")
    assert "nobody" in stopped(run(cache, *QUICK, "--folds", str(folds), "--out", str(tmp_path / "run")))


def test_values_out_of_range_are_usage_errors(cache: Path) -> None:
    result = run(cache, "--lr", "0")
    assert result.exit_code == 2
    assert "must be a number above 0" in result.output


def test_a_cache_that_is_not_there(tmp_path: Path) -> None:
    assert "no cache at" in stopped(run(tmp_path / "none.h5"))
