"""The command that trains encoders: its defaults, its lines, its errors."""

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import mmer
from cli.finetune import finetune
from cli.train import train
from tests.support.folds import table_of_folds
from tests.support.tuned import write_learning_cache
from tests.support.voices import featurized

QUICK = ("--device", "cpu", "--epochs", "1", "--batch-size", "8")
TWO_FOLDS = ("--only", "session=0+1")  # of three
OF_SPEECH = ("--fusion", "audio", "--tune", "audio")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    encoders = ("wav2vec2-tiny", "wav2vec2-tiny@conv", "roberta-tiny")
    return write_learning_cache(tmp_path_factory.mktemp("finetune"), encoders=encoders, mel=False)


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A finished run whose encoder of speech has learned, and the output of its command."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, called(cache, *OF_SPEECH, *TWO_FOLDS, "--out", str(out))


def called(cache: Path, *options: str) -> Result:
    return CliRunner().invoke(finetune, ["--cache", str(cache), *QUICK, *options])


def test_every_role_of_the_head_learns_by_default(cache: Path, tmp_path: Path) -> None:
    result = called(cache, "--fusion", "concat", *TWO_FOLDS, "--out", str(tmp_path / "run"))
    assert result.exit_code == 0, result.output
    assert "tuned encoders: audio wav2vec2-tiny (all layers, from wav2vec2-tiny@conv), text roberta-tiny (all" in (
        result.output
    )
    assert {path.name for path in (tmp_path / "run" / "0-seed0").iterdir() if path.is_dir()} == {"audio", "text"}


def test_the_command_that_is_printed_makes_streams_that_a_run_reads(
    cache: Path, run: tuple[Path, Result], tmp_path: Path
) -> None:
    from cli.extract import featurize

    _, result = run
    line = next(line for line in result.output.splitlines() if line.startswith("streams of the tuned encoders"))
    printed, _, reads = line.partition(": ")[2].partition("; a later run reads them with ")
    name, *arguments = shlex.split(printed)
    assert name == "mmer-featurize"
    copied = tmp_path / "copy.h5"
    copied.write_bytes(cache.read_bytes())
    arguments[arguments.index(str(cache))] = str(copied)
    made = CliRunner().invoke(featurize, [*arguments, "--dtype", "float32", "--device", "cpu"])
    assert made.exit_code == 0, made.output
    options = [
        "--fusion",
        "audio",
        "--cache",
        str(copied),
        *QUICK,
        *shlex.split(reads),
        *TWO_FOLDS,
        "--out",
        str(tmp_path / "later"),
    ]
    later = CliRunner().invoke(train, options)
    assert later.exit_code == 0, later.output
    assert "audio of each fold is of an encoder that has not seen its test subset: fold 0 tuned0" in later.output


def test_python_trains_what_the_command_trains(cache: Path, run: tuple[Path, Result], tmp_path: Path) -> None:
    command = called(cache, *OF_SPEECH, *TWO_FOLDS, "--out", str(run[0]), "--json")  # reads what was trained before
    other = mmer.train(
        cache,
        fusion="audio",
        tune={"audio": "all"},
        only={"session": ["0", "1"]},
        out=tmp_path / "there",
        device="cpu",
        epochs=1,
        batch_size=8,
    )
    printed = command.stdout.replace(str(run[0]), str(tmp_path / "there"))  # notes and `run` name the folder
    assert json.loads(printed) == json.loads(json.dumps(other.results))


def test_an_encoder_that_nothing_fills_is_one_line(cache: Path, tmp_path: Path) -> None:
    without = tmp_path / "without.h5"
    featurized(cache.parent / "corpus.csv", without, encoders=("mfcc39", "roberta-tiny"), mel=False)
    result = called(without, "--fusion", "concat", "--audio", "mfcc39")
    assert result.exit_code == 1
    assert "--tune audio:" in result.output.splitlines()[-1]
    assert "has no encoder mfcc39 whose layers can learn" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--fusion", "audio", "--tune", "text"), "--tune text: head audio does not read text; it reads audio"),
        (("--fusion", "audio", "--tune", "audio=2"), "learns from wav2vec2-tiny@2, which"),
        (("--fusion", "audio", "--tune", "audio=all3"), "--tune audio must be all, a number of top layers such as 3"),
        (("--fusion", "audio", "--encoder", "mine"), "invalid 'mine'; expected NAME=FOLDER"),
        (("--fusion", "audio", "--tune", "none", "--set", "audio_lr=1"), "audio_lr: only tuned encoders have this"),
        (("--fusion", "audio", "--workers", "2", "--scheduler", "tcp://a:1"), "give one of the two"),
    ],
)
def test_a_wrong_request_is_one_line(cache: Path, options: tuple[str, ...], message: str) -> None:
    result = called(cache, *options)
    assert result.exit_code == 1
    assert len(result.output.splitlines()) == 1
    assert message in result.output


def test_a_lack_of_memory_names_what_helps(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*given: object, **named: object) -> None:
        raise MemoryError

    monkeypatch.setattr("fusion.run.cross_validation.train_fold", exhausted)
    result = called(cache, "--fusion", "audio", "--out", str(tmp_path / "run"))
    assert result.exit_code == 1
    last = result.output.splitlines()[-1]
    for remedy in ("--set checkpointing=true", "--set accumulate", "tune fewer layers, as in --tune audio=3"):
        assert remedy in last


def test_a_wrong_table_of_folds_is_one_line(cache: Path, tmp_path: Path) -> None:
    folds = table_of_folds(cache, tmp_path / "folds.csv", more="nobody,a\n")
    result = called(cache, "--fusion", "audio", "--folds", str(folds))
    assert (result.exit_code, len(result.output.splitlines())) == (1, 1)
    assert "nobody" in result.output
