"""The winner of a grid is the run folder that ``mmer-train`` writes, and nothing is trained for it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from cache.errors import MmerError
from cache.joined import open_cache
from cli.grid import grid
from fusion.experiment.request import ExperimentRequest
from fusion.grid.run import GridRun, run_grid
from fusion.grid.space import GridRequest, grid_space, parse_search
from fusion.run.folder import RunFolder
from fusion.run.load import load_model
from fusion.run.train import train_run
from tests.support.grids import GridTold
from tests.support.runs import QUICK, TWO_FOLDS, Told, files_of, reader_of

SEEDS = (0, 1)
ONLY = ["--only", "session=1+2"]
CHOSEN = "results.json", "results.md", "run.json"  # they have a note on the choice, or paths


def kept_by(cache_path: Path, progress: GridTold | None = None) -> GridRun:
    base = ExperimentRequest(fusion="audio", fields=QUICK, seeds=SEEDS, **TWO_FOLDS)
    cache = open_cache(cache_path)
    request = GridRequest(
        base=base, space=grid_space(base, grid=["dropout=0,0.2"], cache=cache), search=parse_search("grid")
    )
    return run_grid(request, cache, engine="shared", keep=True, progress=progress)


@pytest.fixture(scope="module")
def searched(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GridRun]:
    """A grid that has ended with its winner, and the folder that it was started in."""
    folder = tmp_path_factory.mktemp("searched") / "home"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return folder, kept_by(trainable)


@pytest.fixture
def found(searched: tuple[Path, GridRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GridRun:
    """A copy of it in the current folder."""
    shutil.copytree(searched[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return searched[1]


def test_the_winner_equals_the_run_of_its_settings(trainable: Path, tmp_path: Path, found: GridRun) -> None:
    assert found.kept is not None
    assert found.winner is not None
    folder = found.kept.folder
    request = ExperimentRequest(fusion="audio", fields={**QUICK, **found.winner}, seeds=SEEDS, **TWO_FOLDS)
    trained = train_run(request.experiment(reader_of(trainable)), reader_of(trainable), out=tmp_path / "trained")
    ours, theirs = files_of(folder), files_of(trained.folder)
    assert ours.keys() == theirs.keys()
    assert [name for name in theirs if ours[name] != theirs[name] and name not in CHOSEN] == []
    assert RunFolder(folder).identity == RunFolder(trained.folder).identity
    note = found.kept.results["notes"][0]
    assert note.startswith(
        f"dropout={found.winner['dropout']} was chosen from 2 combinations of a grid by mean dev wf1; not"
    )
    assert {**found.kept.results, "notes": "", "run": ""} == {**trained.results, "notes": "", "run": ""}
    heads = [load_model(RunFolder(path), "2", 1).state_dict() for path in (folder, trained.folder)]
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[1])
    again = train_run(request.experiment(reader_of(trainable)), reader_of(trainable), progress=(told := Told()))
    assert (again.folder, told.started, again.results) == (folder, [], found.kept.results)
    progress = GridTold()
    assert kept_by(trainable, progress).kept == found.kept
    assert progress.started == []


def test_a_winner_that_was_trained_before_has_the_note_on_its_choice_too(trainable: Path, found: GridRun) -> None:
    assert found.kept is not None
    folder, record = RunFolder(found.kept.folder), (found.kept.folder / "run.json").read_bytes()
    folder.write("run.json", {name: value for name, value in folder.record.items() if name != "chosen"})
    assert kept_by(trainable).kept == found.kept
    assert (folder.path / "run.json").read_bytes() == record
    assert found.kept.results["notes"][0] in (folder.path / "results.md").read_text()


def test_a_grid_names_the_journal_entries_and_streams_of_its_rows(
    trainable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [
        "--cache",
        str(trainable),
        "--fusion",
        "audio",
        "--epochs",
        "1",
        "--device",
        "cpu",
        "--seeds",
        "2",
        *ONLY,
    ]
    result = CliRunner().invoke(grid, [*options, "--grid", "lr=0.01,0.02", "--keep-winner", "--json"])
    assert result.exit_code == 0, result.output
    plain = json.loads(result.stdout)
    journal = next(Path("runs").glob("*-grid"))
    for row in plain["rows"]:
        assert [(fold, list(entries)) for fold, entries in row["journal"].items()] == [(f, ["0", "1"]) for f in "12"]
        for fold, entries in row["journal"].items():
            for seed, key in entries.items():
                entry = json.loads((journal / "models" / key / "entry.json").read_text())
                assert (entry["fold"], str(entry["seed"])) == (fold, seed)
                assert entry["decides"]["training"]["lr"] == row["config"]["lr"]
        assert row["streams"] == {"audio": "voice"}
    assert plain["streams"] == {"audio": "voice"}
    assert plain["folds"][0]["journal"] in [row["journal"]["1"] for row in plain["rows"]]
    shown = CliRunner().invoke(grid, [*options, "--grid", "lr=0.01,0.02", "--latex", "--keep-winner"])
    lines = shown.stdout.splitlines()
    assert [note for note in plain["notes"] if lines.count(note) != 1] == []
    assert plain["folds"][0]["journal"]["1"] in shown.stdout
    assert lines[-1].startswith("audio, nested & voice & session & ")
    assert any(line.startswith("runs/toy-audio-voice-") and line.endswith(" as a run") for line in lines)
    (models,) = journal.glob("grids/*/models.csv")
    assert models.read_text().count(plain["folds"][0]["journal"]["1"]) == 1
    quiet = CliRunner().invoke(grid, [*options, "--grid", "lr=0.01,0.02", "--quiet"])
    assert (quiet.stderr, set(quiet.stdout.splitlines()) < set(lines)) == ("", True)
    assert "frozen features of voice" not in quiet.stdout


def test_winners_that_read_other_streams_are_named_with_them(
    trainable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = ExperimentRequest(fusion="concat", fields={**QUICK, "epochs": 1})
    cache = reader_of(trainable)
    space = grid_space(base, grid=["modalities=audio,text"], cache=cache)
    found = run_grid(GridRequest(base=base, space=space, search=parse_search("grid")), cache, engine="shared")
    streams = {"audio": {"audio": "voice"}, "text": {"text": "words@4"}}
    for fold in found.results["folds"]:
        assert fold["streams"] == streams[fold["config"]["modalities"]]
    for modality, (name,) in (("audio", streams["audio"].values()), ("text", streams["text"].values())):
        won = [fold["fold"] for fold in found.results["folds"] if fold["config"]["modalities"] == modality]
        notes = [note for note in found.results["notes"] if note.startswith(f"frozen features of {name}")]
        ending = "" if len(won) == 3 else f" (winner on fold {', '.join(won)})"
        assert notes == ([f"frozen features of {name}{ending}"] if won else [])


def test_no_winner_is_kept_of_a_grid_whose_combinations_lack_models(
    trainable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = ExperimentRequest(fusion="audio", fields={"epochs": 1})
    cache = reader_of(trainable)
    space = grid_space(base, grid=["lr=0.001..0.1"], cache=cache)
    request = GridRequest(base=base, space=space, search=parse_search("tpe:2"))
    pytest.importorskip("optuna")
    with pytest.raises(MmerError, match="no winner can be kept: each combination lacks a model"):
        run_grid(request, cache, engine="shared", keep=True)
