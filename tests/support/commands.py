"""Runs of the command over a manifest, as a user types them."""

from pathlib import Path

from click.testing import CliRunner, Result

from cli.extract import featurize

ENCODERS = ["--encoder", "wav2vec2-tiny", "--encoder", "roberta-tiny"]


def run(manifest: Path, *options: str) -> Result:
    arguments = ["manifest", "--root", str(manifest), "--cache", str(manifest.parent / "a.h5"), *ENCODERS, *options]
    return CliRunner().invoke(featurize, arguments)


def stopped(result: Result) -> str:
    """The one line that a run stopped with."""
    assert result.exit_code == 1, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert "Traceback" not in result.output
    return lines[0]
