"""The command mmer-predict: what it prints, its exit codes, and how it continues after a kill."""

import csv
import json
import shutil
import signal
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

import mmer
from cli.predict import predict
from fusion.end_to_end.prediction import predictor
from fusion.run.folder import RunFolder
from tests.support.predicted import run_of, wanted
from tests.support.processes import command, forked, wait_until
from tests.support.voices import RATE_HZ, featurized, tone, write_corpus

LABELS = ("calm", "sad")
FEW = 6  # recordings of the smaller manifest
BLOCK, MANY = 16, 64  # recordings: predicted together, and in all, of which a killed command leaves some


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of two speakers, their cache, and a run over them with modality dropout and one without."""
    folder = tmp_path_factory.mktemp("predict")
    rows = []
    for number in range(16):
        soundfile.write(folder / f"u{number:02}.wav", tone(0.3 + 0.02 * number, seed=number), RATE_HZ)
        speaker = str(number // 8)
        rows.append({"id": f"u{number:02}", "label": LABELS[number % 2], "speaker": speaker, "session": speaker})
    featurized(write_corpus(folder, rows), folder / "cache.h5", mel=False)
    table = (folder / "corpus.csv").read_text().splitlines(keepends=True)
    (folder / "few.csv").write_text("".join(table[: FEW + 1]))
    for name, dropout in (("run", 0.0), ("dropped", 0.3)):
        request = wanted("concat", {}, fields={"modality_dropout": dropout}, protocol="session")
        run_of(folder / "cache.h5", folder / name, request, final=True)
    return folder


def called(*arguments: object, text: str | None = None) -> Result:
    return CliRunner().invoke(predict, [*map(str, arguments), "--device", "cpu"], input=text)


def json_rows(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_recording_and_its_text_are_a_row_of_a_table(corpus: Path) -> None:
    result = called(corpus / "run", corpus / "u01.wav", "--text", "this is it")
    assert result.exit_code == 0
    header, row = result.stdout.splitlines()
    assert header.split() == ["file", "label", "calm", "sad"]
    name, label, *values = row.split()
    expected = mmer.load(corpus / "run", device="cpu").predict(corpus / "u01.wav", text="this is it")
    assert (name, label) == (str(corpus / "u01.wav"), expected.label)
    assert values == [f"{expected.probabilities[name]:.3f}" for name in LABELS]
    assert "note: final model of seed 0, trained on all utterances" in result.stderr


def test_csv_and_json_have_the_same_rows(corpus: Path) -> None:
    as_json = called(corpus / "run", corpus / "few.csv", "--json")
    as_csv = called(corpus / "run", corpus / "few.csv", "--csv")
    rows = json_rows(as_json)
    table = list(csv.DictReader(StringIO(as_csv.stdout, newline="")))
    assert len(rows) == len(table) == FEW
    for row, cells in zip(rows, table, strict=True):
        assert isinstance(row["probabilities"], dict)
        assert cells["file"] == row["file"]
        assert cells["label"] == row["label"] == max(LABELS, key=row["probabilities"].__getitem__)
        assert {name: float(cells[f"p_{name}"]) for name in LABELS} == row["probabilities"]
    found = mmer.predict(corpus / "run", corpus / "few.csv", device="cpu")
    assert [row.probabilities for row in found] == [row["probabilities"] for row in rows]


def test_a_bad_file_is_a_row_and_the_exit_code_is_1(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"noise")
    (tmp_path / "texts.csv").write_text("file,text\nbad.wav,one\nu03.wav,two\n")
    files = [tmp_path / "bad.wav", corpus / "u03.wav", corpus / "u04.wav"]
    result = called(corpus / "run", *files, "--texts", tmp_path / "texts.csv", "--json")
    assert result.exit_code == 1
    bad, good, silent = json_rows(result)
    assert str(bad["error"]).startswith("cannot be decoded")
    assert (bad["label"], bad["probabilities"]) == ("", {})
    assert (good["error"], good["text"]) == ("", "two")
    assert silent["error"] == "no text for it"
    assert result.stderr.splitlines()[-1] == "Error: recordings that could not be predicted: 2; see their rows"


def test_without_text_a_run_says_what_it_needs(corpus: Path) -> None:
    result = called(corpus / "run", corpus / "u03.wav")
    assert result.exit_code == 1
    assert (
        "reads speech and text, and no text is given; pass --text, --texts FILE, --asr MODEL, or a manifest"
        in result.stderr
    )
    found = called(corpus / "dropped", corpus / "u03.wav", "--json")
    assert found.exit_code == 0
    assert json_rows(found)[0]["error"] == ""
    assert "1 of 1 recordings have no text: predicted from speech alone" in found.stderr


def test_a_list_on_standard_input_and_windows(corpus: Path) -> None:
    lines = f"{corpus / 'u15.wav'}\n{corpus / 'u00.wav'}\n"
    result = called(corpus / "dropped", "-", "--window", "0.25", "--hop", "0.2", "--json", text=lines)
    assert result.exit_code == 0
    rows = json_rows(result)
    assert [(row["start_s"], row["end_s"]) for row in rows[:4]] == [(0.0, 0.25), (0.2, 0.45), (0.4, 0.6), (None, None)]
    assert [row["file"] for row in rows] == [str(corpus / "u15.wav")] * 4 + [str(corpus / "u00.wav")] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--json", "--csv"], "--csv, --json and --resume exclude each other"),
        (["--hop", "2"], "--hop 2 needs --window SECONDS"),
        (["--window", "1", "--hop", "2"], "--window must be above 0 and --hop at most the window, got 1 and 2"),
        (["--vad"], "--vad needs the package silero-vad; install it with pip install silero-vad"),
        (["--fold", "7"], "has no model of fold 7 and seed 0; folds: 0, 1"),
        (["--encoder", "x"], "--encoder"),
        (["--resume", "rows.txt", "--text", "x"], "unknown ending '.txt'"),
    ],
)
def test_wrong_options_are_one_line(
    corpus: Path, options: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    result = called(corpus / "run", corpus / "u00.wav", *options)
    assert result.exit_code == 1
    assert message in result.stderr.splitlines()[-1]


def test_nothing_to_predict_is_one_line(corpus: Path) -> None:
    result = called(corpus / "run")
    assert result.exit_code == 1
    assert "nothing to predict: pass files, folders, a manifest, or - for a list" in result.stderr


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_file_of_rows_is_continued_to_the_rows_of_one_run(corpus: Path, tmp_path: Path, suffix: str) -> None:
    files = sorted(corpus.glob("*.wav"))[:8]
    whole, partial = tmp_path / f"whole{suffix}", tmp_path / f"partial{suffix}"
    assert called(corpus / "dropped", *files, "--resume", whole).exit_code == 0
    assert called(corpus / "dropped", *files[:5], "--resume", partial).exit_code == 0
    partial.write_bytes(partial.read_bytes()[:-20])
    result = called(corpus / "dropped", *files, "--resume", partial)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert f"{partial} has 4 recordings already; 4 are left" in result.stderr
    assert partial.read_bytes() == whole.read_bytes()


def predict_in_blocks(*arguments: str) -> None:
    """Runs the command with small blocks, whose rows are written together; to be forked."""
    predictor.BLOCK = BLOCK
    command("cli.predict", "predict", *arguments)


def test_a_killed_command_continues(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(MANY):
        shutil.copy(corpus / f"u{number % 16:02}.wav", folder / f"{number:03}.wav")
    rows = tmp_path / "rows.jsonl"
    arguments = [str(corpus / "dropped"), str(folder), "--resume", str(rows), "--device", "cpu"]
    with forked(predict_in_blocks, *arguments) as process:
        wait_until(lambda: rows.exists() and rows.stat().st_size, process)
        assert process.kill() == -signal.SIGKILL
    assert 0 < len(rows.read_bytes().splitlines()) < MANY
    assert called(corpus / "dropped", folder, "--resume", rows).exit_code == 0
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [Path(row["file"]).name for row in found] == [f"{number:03}.wav" for number in range(MANY)]
    values = np.array([list(row["probabilities"].values()) for row in found])
    np.testing.assert_allclose(values[16:32], values[:16], atol=1e-6)


def test_python_gets_a_head_with_a_fold_and_a_predictor_without(corpus: Path) -> None:
    head = mmer.load(corpus / "run", fold="0")
    assert isinstance(head, mmer.Head)
    assert mmer.load(corpus / "run", device="cpu").classes == LABELS
    assert RunFolder(corpus / "run").identity["seeds"] == [0]
