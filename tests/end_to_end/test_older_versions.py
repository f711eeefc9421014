"""Files of version 0.1 under the present code: they open, resume and give the recorded numbers.

The files and the recorded values are described in ``tests/fixtures/v0.1/README.md``.
"""

import csv
import gzip
import json
import shutil
import signal
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors import safe_open

from benchmarks.demo_digest import machine, model_artifacts
from cli.extract import featurize
from cli.grid import grid
from cli.maintain import cache as maintain
from cli.train import train
from fusion.training.optimizer import Adam

FIXTURES = Path(__file__).parents[1] / "fixtures" / "v0.1"
EXPECTED: Mapping[str, Any] = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))
METRICS = ("wa", "ua", "wf1")  # those that version 0.1 writes
COUNTS = ("fold", "seed", "epoch", "train", "dev", "test", "test_of", "parameters")
# Two epochs of a tiny head differ by about 1e-7 between processors.
TOLERANCE = 1e-4

TINY = ["--cache", "toy.h5", "--device", "cpu", "--epochs", "2", "--batch-size", "8", "--lr", "0.01"]
# Defaults of version 0.1 that depend on the stream since; `TINY` sets the others.
OLDER = ["pooling=mean", "standardize=false", "hidden=0", "schedule=constant", "patience=10", "label_smoothing=0"]
OLDER += ["adapter=false", "dropout=0.1"]
HEADS: Mapping[str, list[str]] = {
    "rescmfa": ["dim=8", "layers=1", "text_slots=16", "audio_slots=24"],
    "bimodal": ["dim=8"],
    "tab": ["dim=8"],
    "jfm": ["blocks=1", "extractor_layers=1"],
    "label-guided": ["dim=8"],
    "concat": ["dim=8"],
    "cross-attention": ["dim=8"],
    "audio": ["dim=8", *OLDER],
    "text": ["dim=8", *OLDER],
    "score": ["dim=8"],
}
TIED = {"text"}  # both epochs have the same score on dev: version 0.1 kept the first, now the lower loss decides
INTERRUPTED = ["--fusion", "rescmfa", *TINY, "--epochs", "4", "--modality-dropout", "0.2", "--out", "interrupted"]
INTERRUPTED += ["--set", "schedule=cosine", "--set", "label_smoothing=0.1", "--set", "monitor=loss"]
SLOTS = ["--set", "dim=8", "--set", "layers=1", "--set", "text_slots=16", "--set", "audio_slots=24"]
GRID = ["--fusion", "concat", *TINY[:-2], "--set", "dim=8", "--engine", "shared", "--out", "grid", "--json"]
AXES = ["--grid", "lr=0.01,0.03", "--grid", "pooling=mean,max"]
ENCODERS = ["--encoder", "wav2vec2-tiny", "--encoder", "roberta-tiny", "--no-codes", "--device", "cpu"]
OF_STREAM = ("offsets", "values", "scales", "state", "checksum", "input_digest", "reason")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a copy of the cache."""
    monkeypatch.chdir(tmp_path)
    unpacked(FIXTURES / "toy.h5.gz", tmp_path / "toy.h5")
    return tmp_path


@pytest.fixture
def untrainable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every training step fail."""

    def step(*args: object, **options: object) -> None:
        raise AssertionError("a training step was taken")

    monkeypatch.setattr(Adam, "step", step)


def unpacked(packed: Path, path: Path) -> Path:
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    return path


def done(result: Result) -> str:
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.stdout


def trained(*options: str) -> dict[str, Any]:
    """Runs ``mmer-train`` and reads its JSON output."""
    found: dict[str, Any] = json.loads(done(CliRunner().invoke(train, [*options, "--json"])))
    return found


def head_options(name: str) -> list[str]:
    fields = [part for field in HEADS[name] for part in ("--set", field)]
    return ["--fusion", name, *TINY, "--protocol", "session5", *fields]


def interrupted_at(step: int, *options: str) -> Result:
    """Runs ``mmer-train`` and sends it Ctrl-C in a training step."""
    taken = 0

    def counted(optimizer: Adam, *args: Any, **keywords: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken == step:
            signal.raise_signal(signal.SIGINT)
        return own(optimizer, *args, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        own = Adam.step
        patch.setattr(Adam, "step", counted)
        return CliRunner().invoke(train, list(options))


def state_config(path: Path) -> dict[str, dict[str, Any]]:
    """Reads the identity of the training that a state belongs to."""
    with safe_open(path, framework="np") as file:
        config: dict[str, dict[str, Any]] = json.loads(file.metadata()["mmer"])["config"]
    return config


def probabilities(part: Path) -> list[list[str]]:
    """Reads ids, labels, guesses and probabilities of a model, as text."""
    return [line.split(",") for line in (part / "predictions.csv").read_text(encoding="utf-8").splitlines()]


def curves(part: Path) -> dict[str, list[float]]:
    """Reads losses and dev scores of every epoch of a model by column, without scores of later versions."""
    with (part / "curves.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    dev = {f"dev_{name}" for name in (*METRICS, "loss")}
    return {name: [float(row[name]) for row in rows] for name in rows[0] if not name.startswith("dev_") or name in dev}


def numbers(results: Mapping[str, Any]) -> dict[str, Any]:
    """Selects scores and counts of a run, without paths, intervals and scores of later versions."""
    every = {row: {metric: results[row][metric] for metric in METRICS} for row in ("mean", "std", "pooled")}
    folds = [{name: fold[name] for name in (*COUNTS, *METRICS)} for fold in results["folds"]]
    dev = [{name: fold["dev_scores"][name] for name in (*METRICS, "loss")} for fold in results["folds"]]
    return {"folds": folds, "dev": dev, **every, "recall": results["recall"], "labels": results["labels"]}


def grid_numbers(results: Mapping[str, Any]) -> dict[str, Any]:
    """Selects scores and ranks of a grid, without paths, times and intervals."""
    kept = ("config", "rank", "dev_loss", "wins", "models", "of", "failures")
    rows = [
        {name: row[name] for name in kept} | {"dev": {metric: row["dev"][metric] for metric in METRICS}}
        for row in results["rows"]
    ]
    folds = [
        {"fold": fold["fold"], "config": fold["config"], "test": {metric: fold["test"][metric] for metric in METRICS}}
        for fold in results["folds"]
    ]
    nested = {metric: results["nested"][metric] for metric in METRICS}
    return {"rows": rows, "folds": folds, "nested": nested, "winner": results["winner"]}


def assert_close(found: Any, expected: Any, where: str = "") -> None:
    """Compares nested values: floats within `TOLERANCE`, all else exactly; further keys are allowed."""
    if isinstance(expected, Mapping):
        assert found.keys() >= expected.keys(), where
        for name, value in expected.items():
            assert_close(found[name], value, f"{where}.{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for place, value in enumerate(expected):
            assert_close(found[place], value, f"{where}[{place}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=TOLERANCE), where
    else:
        assert found == expected, where


def assert_same_probabilities(part: Path, expected: list[list[str]]) -> None:
    found = probabilities(part)
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    values, recorded = ([[float(cell) for cell in row[3:]] for row in table[1:]] for table in (found, expected))
    np.testing.assert_allclose(values, recorded, rtol=0, atol=TOLERANCE)


def assert_same_bits(part: Path, expected: Mapping[str, str]) -> None:
    """Compares the digests of a model if they were recorded on this machine."""
    if machine() == EXPECTED["machine"]:
        assert dict(model_artifacts(part)) == expected


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Reads every file below a folder, with the time of its last change."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


def rows_of(path: Path) -> dict[str, dict[str, bytes]]:
    """Reads all streams of a cache as bytes."""
    with h5py.File(path, "r") as file:
        return {
            name: {part: group[part][()].tobytes() for part in OF_STREAM if part in group}
            for name, group in file["streams"].items()
        }


def test_a_cache_opens_and_is_sound(here: Path) -> None:
    before = (here / "toy.h5").read_bytes()
    results = json.loads(done(CliRunner().invoke(maintain, ["info", "toy.h5", "--json"])))
    assert_close(results, EXPECTED["info"])
    assert json.loads(done(CliRunner().invoke(maintain, ["verify", "toy.h5", "--json"]))) == {"problems": []}
    assert (here / "toy.h5").read_bytes() == before


@pytest.mark.parametrize("head", ["audio", "text"])
@pytest.mark.usefixtures("untrainable")
def test_a_finished_run_is_printed_without_training(here: Path, head: str) -> None:
    shutil.copytree(FIXTURES / "finished" / head, here / head)
    before = files_of(here / head)
    results = trained("--fusion", head, *TINY, "--out", head)
    assert numbers(results) == EXPECTED["finished"][head]
    after = files_of(here / head)
    models = [name for name in before if "/" in name or name == "run.json"]
    assert {name: after[name] for name in models} == {name: before[name] for name in models}


@pytest.mark.usefixtures("untrainable")
def test_the_logits_of_finished_runs_are_added_up(here: Path) -> None:
    for head in ("audio", "text"):
        shutil.copytree(FIXTURES / "finished" / head, here / head)
    results = trained("--fusion", "score", "--cache", "toy.h5", "--run", "audio", "--run", "text")
    assert results["run"] == "runs/score-audio-text"
    for row in ("mean", "std", "pooled"):
        assert_close(results[row], EXPECTED["added"][row])
    for name, expected in EXPECTED["added"]["probabilities"].items():
        assert_same_probabilities(here / results["run"] / name, expected)


def test_the_folder_of_a_run_refuses_another_configuration(here: Path) -> None:
    shutil.copytree(FIXTURES / "finished" / "audio", here / "audio")
    before = files_of(here / "audio")
    result = CliRunner().invoke(train, ["--fusion", "audio", *TINY, "--lr", "0.02", "--out", "audio"])
    assert result.exit_code == 1
    assert "0.01" in result.stderr
    assert "0.02" in result.stderr
    assert files_of(here / "audio") == before


def test_an_interrupted_run_resumes_and_ends_as_an_uninterrupted_one(here: Path) -> None:
    shutil.copytree(FIXTURES / "interrupted", here / "interrupted")
    assert (here / "interrupted" / "4-seed0" / "state.safetensors").exists()
    first = files_of(here / "interrupted" / "3-seed0")
    results = trained(*INTERRUPTED, *SLOTS)
    assert files_of(here / "interrupted" / "3-seed0") == first
    assert not list(here.rglob("state.safetensors"))
    assert_close(numbers(results), EXPECTED["interrupted"]["numbers"])
    for name, model in EXPECTED["interrupted"]["models"].items():
        assert_same_probabilities(here / "interrupted" / name, model["probabilities"])
        assert_close(curves(here / "interrupted" / name), model["curves"])
        assert_same_bits(here / "interrupted" / name, model["artifacts"])


def test_the_state_of_another_training_is_refused(here: Path) -> None:
    shutil.copytree(FIXTURES / "interrupted", here / "interrupted")
    described = json.loads((here / "interrupted" / "run.json").read_text(encoding="utf-8"))
    described["decides"]["training"]["weight_decay"] = 0.5
    (here / "interrupted" / "run.json").write_text(json.dumps(described), encoding="utf-8")
    result = CliRunner().invoke(train, [*INTERRUPTED, *SLOTS, "--set", "weight_decay=0.5"])
    assert result.exit_code == 1
    assert "weight_decay" in result.stderr


@pytest.mark.parametrize("head", HEADS)
def test_a_head_keeps_its_name_its_identity_and_its_numbers(here: Path, head: str) -> None:
    expected = EXPECTED["heads"][head]
    stopped = interrupted_at(2, *head_options(head))
    assert stopped.exit_code == 130, stopped.output
    stem, _, digest = expected["folder"].rpartition("-")
    (named,) = (here / "runs").iterdir()
    assert (named.name.startswith(f"{stem}-"), named.name.endswith(f"-{digest}")) == (True, True)
    named.rename(here / "runs" / expected["folder"])  # the name that version 0.1 gave, without streams: it is resumed
    part = here / "runs" / expected["folder"] / "5-seed0"
    assert_close(state_config(part / "state.safetensors"), expected["state"])
    results = trained(*head_options(head))
    assert results["run"] == f"runs/{expected['folder']}"
    decides = json.loads((part.parent / "run.json").read_text(encoding="utf-8"))["decides"]
    assert_close(decides, expected["decides"])
    assert_close(curves(part), expected["curves"])
    if head in TIED:
        assert len(set(curves(part)["dev_wf1"])) == 1
        assert (results["folds"][0]["epoch"], expected["numbers"]["folds"][0]["epoch"]) == (2, 1)
        return
    assert_close(numbers(results), expected["numbers"])
    assert_same_probabilities(part, expected["probabilities"])
    assert_same_bits(part, expected["artifacts"])


def test_the_journal_of_a_grid_is_reused_and_completed(here: Path) -> None:
    shutil.copytree(FIXTURES / "grid", here / "grid")
    models = here / "grid" / "models"
    finished = {entry.parent.name: files_of(entry.parent) for entry in models.glob("*/entry.json")}
    assert sorted(finished) == EXPECTED["grid"]["finished"]
    results = json.loads(done(CliRunner().invoke(grid, [*GRID, *AXES])))
    assert sorted(entry.parent.name for entry in models.glob("*/entry.json")) == EXPECTED["grid"]["keys"]
    for key, before in finished.items():
        after = files_of(models / key)
        assert {name: after[name] for name in before} == before
    assert_close(grid_numbers(results), EXPECTED["grid"]["numbers"])
    assert results["run"] == EXPECTED["grid"]["report"]


def test_a_pack_imports_to_the_values_of_its_cache(here: Path) -> None:
    done(CliRunner().invoke(maintain, ["import", str(FIXTURES / "pack"), "imported.h5"]))
    imported, original = rows_of(here / "imported.h5"), rows_of(here / "toy.h5")
    assert sorted(imported) == EXPECTED["pack"]
    assert {name: imported[name] for name in imported} == {name: original[name] for name in imported}
    with h5py.File("imported.h5", "r") as new, h5py.File("toy.h5", "r") as old:
        assert dict(new["streams/voice"].attrs) == dict(old["streams/voice"].attrs)
        assert list(new["utterances/id"][()]) == list(old["utterances/id"][()])
        for name, values in old["weights/voice"].items():
            np.testing.assert_array_equal(new["weights/voice"][name][()], values[()])


def test_an_export_writes_the_pack_of_version_0_1(here: Path) -> None:
    streams = [part for name in EXPECTED["pack"] for part in ("--stream", name)]
    done(CliRunner().invoke(maintain, ["export", "toy.h5", "pack", "--layout", "packed", *streams]))
    found, expected = files_of(here / "pack"), files_of(FIXTURES / "pack")
    assert {name: content for name, (content, _) in found.items()} == {
        name: content for name, (content, _) in expected.items()
    }


def test_a_half_written_cache_is_completed_and_keeps_its_rows(here: Path) -> None:
    shutil.copytree(FIXTURES / "half", here / "half")
    unpacked(FIXTURES / "half" / "half.h5.gz", here / "half.h5")
    committed = dict(_committed(here / "half.h5"))
    assert committed
    arguments = ["manifest", "--root", "half/corpus.csv", "--cache", "half.h5", *ENCODERS]
    done(CliRunner().invoke(featurize, arguments))
    whole = dict(_committed(here / "half.h5"))
    assert {row: whole[row] for row in committed} == committed
    assert len(whole) == 3 * len(EXPECTED["half"]["means"]) > len(committed)
    assert json.loads(done(CliRunner().invoke(maintain, ["verify", "half.h5", "--json"]))) == {"problems": []}
    with h5py.File("half.h5", "r") as file:
        keys = {name: group.attrs["key"] for name, group in file["streams"].items()}
        means = {name: _means(group) for name, group in file["streams"].items()}
    assert keys == EXPECTED["half"]["keys"]
    for name, expected in EXPECTED["half"]["means"].items():
        np.testing.assert_allclose(means[name], expected, rtol=0, atol=1e-3, err_msg=name)


def _committed(path: Path) -> Iterator[tuple[tuple[str, int], tuple[bytes, bytes, int]]]:
    """Yields values, digest and checksum of every committed row of a cache, by stream and utterance."""
    with h5py.File(path, "r") as file:
        for name, group in file["streams"].items():
            offsets, values = group["offsets"][()], group["values"][()]
            for index in np.flatnonzero(group["state"][()] == 1).tolist():
                rows = values[offsets[index] : offsets[index + 1]].tobytes()
                digest, checksum = bytes(group["input_digest"][index]), int(group["checksum"][index])
                yield (name, index), (rows, digest, checksum)


def _means(group: h5py.Group) -> list[float]:
    """Computes mean and mean square of the values of each utterance, a fingerprint that other processors share."""
    offsets, values = group["offsets"][()], group["values"][()].astype(np.float64)
    rows = [values[start:end] for start, end in pairwise(offsets)]
    return [float(value) for block in rows for value in (block.mean(), np.square(block).mean())]
