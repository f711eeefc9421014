"""The command mmer-export: what it prints, and that mmer-predict reads what it writes."""

import json
import shutil
from pathlib import Path

import click
import pytest
import soundfile
from click.testing import CliRunner, Result

import mmer
from cli.export import export
from cli.predict import predict
from tests.support.commands import stopped
from tests.support.predicted import run_of, wanted
from tests.support.voices import RATE_HZ, featurized, tone, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of two speakers, their cache, and a run that reads speech."""
    folder = tmp_path_factory.mktemp("export")
    rows = []
    for number in range(8):
        soundfile.write(folder / f"u{number}.wav", tone(0.3, seed=number), RATE_HZ)
        row = {"label": ("calm", "sad")[number % 2], "speaker": str(number // 4), "session": str(number // 4)}
        rows.append({"id": f"u{number}", **row})
    featurized(write_corpus(folder, rows), folder / "cache.h5", encoders=("wav2vec2-tiny",), audio_only=True)
    run_of(folder / "cache.h5", folder / "run", wanted("audio", {}, protocol="session"), final=True)
    return folder


def called(*arguments: object) -> Result:
    return CliRunner().invoke(export, [*map(str, arguments)])


def test_a_bundle_is_written_and_predicts(corpus: Path, tmp_path: Path) -> None:
    result = called(corpus / "run", tmp_path / "bundle", "--license", "mit", "--language", "en")
    assert result.exit_code == 0, result.output
    folder, _, size = result.stdout.strip().rpartition(": ")
    assert folder == str(tmp_path / "bundle")
    assert size.endswith("kB")
    assert result.stderr == "note: final model of seed 0, trained on all utterances\n"
    rows = [
        CliRunner().invoke(predict, [str(run), str(corpus / "u1.wav"), "--csv", "--device", "cpu"]).stdout
        for run in (corpus / "run", tmp_path / "bundle")
    ]
    assert rows[0] == rows[1]
    assert "calm" in rows[0]
    assert "license: mit" in (tmp_path / "bundle" / "README.md").read_text()


def test_python_writes_the_same_bundle(corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = mmer.export(corpus / "run", tmp_path / "bundle")
    assert (report.out, report.url) == (tmp_path / "bundle", "")
    bundle = tmp_path / "bundle"
    assert report.size_bytes == sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    assert capfd.readouterr().out == ""
    assert mmer.load(bundle, device="cpu").predict(corpus / "u0.wav") == mmer.load(
        corpus / "run", device="cpu"
    ).predict(corpus / "u0.wav")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to do: pass a folder for the bundle, or --push OWNER/NAME"),
        (["out", "--onnx", "all"], "--onnx must be head or full, got 'all'"),
        (["out", "--push", "../x"], "--push ../x: expected OWNER/NAME"),
        (["out", "--encoder", "x"], "NAME=PATH"),
        (["out", "--encoder", "x=gone"], "--encoder x: the run has no such encoder; it has wav2vec2-tiny"),
    ],
)
def test_an_argument_that_is_invalid_is_one_line(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in stopped(called(corpus / "run", *arguments))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("command", "argument"), [(export, "bundle"), (predict, "u1.wav")])
def test_a_head_that_is_not_named_is_an_error_with_the_option_of_the_command(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: click.Command, argument: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(corpus / "run", "run")
    shutil.copy(corpus / "u1.wav", "u1.wav")
    record = json.loads(Path("run", "run.json").read_text())
    record["decides"]["fusion"] = "their_heads:Gated"
    Path("run", "run.json").write_text(json.dumps(record))
    options = {option for param in command.params for option in param.opts}
    refused = stopped(CliRunner().invoke(command, ["run", argument]))
    assert "if you trust it, name it: --head their_heads:Gated (" in refused
    assert {word for word in refused.split() if word.startswith("--")} <= options
    named = stopped(CliRunner().invoke(command, ["run", argument, "--head", "their_heads:Gated"]))
    assert "head their_heads:Gated: module their_heads not found" in named
