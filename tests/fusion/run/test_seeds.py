"""A seed is trained once: runs are extended, and models of other seeds are taken over from neighbouring runs."""

import json
import shutil
from pathlib import Path

import pytest

from cache.errors import MmerError
from fusion.experiment.experiment import Experiment
from fusion.experiment.request import ExperimentRequest
from fusion.run.folder import RunFolder
from fusion.run.train import train_run
from tests.support.runs import QUICK, TWO_FOLDS, Told, files_of, reader_of

FIELDS = {**QUICK, "epochs": 1, "batch_size": 11}  # two batches


def requested(cache: Path, *seeds: int) -> Experiment:
    return ExperimentRequest(fusion="audio", fields=FIELDS, seeds=seeds, **TWO_FOLDS).experiment(reader_of(cache))


def trained_models(progress: Told) -> list[tuple[str, int]]:
    return [started for started in progress.started if started[0] != "end"]


@pytest.fixture(scope="module")
def whole(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of seeds 0, 1 and 4 that was trained at once."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return train_run(requested(trainable, 0, 1, 4), reader_of(trainable), out=out).folder


def own_files(folder: Path) -> dict[str, bytes]:
    """The files of a run that do not name its folder."""
    return {name: content for name, content in files_of(folder).items() if name not in {"run.json", "results.json"}}


def without_paths(folder: Path) -> dict[str, object]:
    return {**json.loads((folder / "results.json").read_text()), "run": ""}


def test_a_seed_that_is_added_is_the_only_one_that_is_trained(
    trainable: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cache, progress = reader_of(trainable), Told()
    first = train_run(requested(trainable, 0, 1), cache)
    before = files_of(first.folder)
    more = train_run(requested(trainable, 0, 1, 4), cache, progress=progress)
    assert trained_models(progress) == [("1", 4), ("2", 4)]
    taken = f"4 models of seed 0, 1 are those of {first.folder}; they are not trained again"
    assert taken in progress.notes
    assert more.folder != first.folder
    assert own_files(more.folder) == own_files(whole)
    assert without_paths(more.folder) == without_paths(whole)
    again = train_run(requested(trainable, 0, 1), cache, progress=(repeated := Told()))
    assert (trained_models(repeated), again.results) == ([], first.results)
    assert files_of(first.folder) == before


def test_a_folder_of_its_own_is_extended_in_place(trainable: Path, whole: Path, tmp_path: Path) -> None:
    cache, out, progress = reader_of(trainable), tmp_path / "run", Told()
    train_run(requested(trainable, 0, 1), cache, out=out)
    train_run(requested(trainable, 0, 1, 4), cache, out=out, progress=progress)
    assert trained_models(progress) == [("1", 4), ("2", 4)]
    assert own_files(out) == own_files(whole)
    assert RunFolder(out).identity == RunFolder(whole).identity
    assert (out / "config.toml").read_text().count("seed = [0, 1, 4]") == 1


def test_an_extension_that_was_killed_is_resumed_to_the_same_bits(trainable: Path, whole: Path, tmp_path: Path) -> None:
    cache, out = reader_of(trainable), tmp_path / "run"
    train_run(requested(trainable, 0, 1), cache, out=out)
    steps = iter(range(4))
    with pytest.raises(KeyboardInterrupt):
        train_run(requested(trainable, 0, 1, 4), cache, out=out, stopping=lambda: next(steps, None) is None)
    assert RunFolder(out).identity["seeds"] == [0, 1, 4]
    train_run(requested(trainable, 0, 1, 4), cache, out=out)
    assert own_files(out) == own_files(whole)


def test_a_run_does_not_lose_a_seed_that_is_not_requested(trainable: Path, whole: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    before = files_of(out)
    with pytest.raises(MmerError, match="already holds this run with seed 0, 1, 4; also pass --seed 0 --seed 1 to add"):
        train_run(requested(trainable, 4, 5), reader_of(trainable), out=out)
    assert files_of(out) == before


def test_a_damaged_model_is_trained_again_and_not_taken_over_as_it_is(
    trainable: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cache, progress = reader_of(trainable), Told()
    first = train_run(requested(trainable, 0), cache)
    damaged = first.folder / "2-seed0" / "predictions.csv"
    damaged.write_text("id\n")
    more = train_run(requested(trainable, 0, 1), cache, progress=progress)
    assert trained_models(progress) == [("2", 0), ("1", 1), ("2", 1)]
    assert damaged.read_text() == "id\n"  # the file of the other run is its own
    same = "2-seed0/predictions.csv"
    assert files_of(more.folder)[same] == files_of(whole)[same]
