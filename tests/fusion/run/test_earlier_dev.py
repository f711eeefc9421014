"""Runs and journals of version 0.1 keep the development subsets that they recorded."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cache.joined import AnyCache, open_cache
from fusion.experiment.experiment import Experiment
from fusion.experiment.plan import EARLIER_DEV, plan_earlier, plan_run
from fusion.experiment.request import ExperimentRequest
from fusion.grid.engine.local import Engine
from fusion.grid.journal import Journal
from fusion.grid.session import GridSession
from fusion.grid.space import Search, Space
from fusion.run.folder import RunFolder
from fusion.run.train import train_run
from tests.support.grids import GridTold
from tests.support.heads import samples
from tests.support.runs import COUNT, reader_of, utterances, write_cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> AnyCache:
    """A cache without dialogues, whose sessions have two speakers each."""
    alone = [replace(held, dialogue="") for held in utterances(samples(COUNT))]
    return open_cache(write_cache(tmp_path_factory.mktemp("earlier") / "a.h5", utterances=alone, roles=["audio"]))


def requested(cache: AnyCache, **fields: object) -> Experiment:
    request = ExperimentRequest(fusion="audio", protocol="session", fields={"epochs": 1, **fields})
    return request.experiment(cache)


def test_a_half_done_run_of_version_0_1_is_continued_with_its_dev(cache: AnyCache, tmp_path: Path) -> None:
    """Nothing in run.json names the rule: the recorded folds show it."""
    experiment = requested(cache)
    train_run(replace(experiment, earlier_dev=True), cache, out=tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    recorded = folder.identity
    kept = {name: (folder.path / name / "scores.json").read_bytes() for name in ("1-seed0", "2-seed0")}
    (folder.path / "3-seed0" / "scores.json").unlink()
    results = train_run(experiment, cache, out=tmp_path / "run").results
    assert folder.identity == recorded
    assert {name: (folder.path / name / "scores.json").read_bytes() for name in kept} == kept
    assert EARLIER_DEV in results["notes"]
    assert "each counts as a dialogue of its own" in " ".join(results["notes"])


def test_a_new_run_and_a_replaced_one_draw_dev_by_speaker(cache: AnyCache, tmp_path: Path) -> None:
    experiment = requested(cache)
    old = train_run(replace(experiment, earlier_dev=True), cache, out=tmp_path / "run")
    new = train_run(experiment, cache, out=tmp_path / "new")
    assert "dev is whole training speakers: 1 of 4" in " ".join(new.results["notes"])
    assert [fold["dev"] for fold in old.folds] != [fold["dev"] for fold in new.folds]
    replaced = train_run(experiment, cache, out=tmp_path / "run", replace=True)
    assert [fold["dev"] for fold in replaced.folds] == [fold["dev"] for fold in new.folds]
    assert EARLIER_DEV not in replaced.results["notes"]


def test_the_default_folder_of_version_0_1_is_found(
    cache: AnyCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    experiment = requested(cache)
    old = train_run(replace(experiment, earlier_dev=True), cache)
    assert train_run(experiment, cache).folder == old.folder
    assert train_run(requested(cache, lr=0.02), cache).folder != old.folder


def test_where_the_rule_changes_no_fold_there_is_no_other_plan(trainable: Path, cache: AnyCache) -> None:
    with_dialogues = reader_of(trainable)
    assert plan_earlier(plan_run(requested(with_dialogues), with_dialogues)) is None
    earlier = plan_earlier(plan_run(requested(cache), cache))
    assert earlier is not None
    assert plan_earlier(earlier) is None


def test_a_journal_of_version_0_1_is_completed_with_its_dev(cache: AnyCache, tmp_path: Path) -> None:
    """A grid goes on with the models that it holds; a new journal draws dev by speaker."""
    session = grid_session(tmp_path / "old", cache, earlier=True)
    session.run(Space(), Search(), seed=0)
    before = {path.name for path in (tmp_path / "old" / "models").iterdir()}
    told = GridTold()
    session = grid_session(tmp_path / "old", cache, told)
    session.run(Space(), Search(), seed=0)
    assert {path.name for path in (tmp_path / "old" / "models").iterdir()} == before
    assert EARLIER_DEV in told.notes
    grid_session(tmp_path / "new", cache).run(Space(), Search(), seed=0)
    assert before.isdisjoint(path.name for path in (tmp_path / "new" / "models").iterdir())


def grid_session(folder: Path, cache: AnyCache, told: GridTold | None = None, *, earlier: bool = False) -> GridSession:
    progress = told or GridTold()
    engine = Engine("shared", journal=Journal(folder), progress=progress, device=torch.device("cpu"))
    return GridSession(
        cache=cache,
        experiment_of=lambda fields: replace(requested(cache, **fields), earlier_dev=earlier),
        journal=engine.journal,
        train=engine.run,
        device=torch.device("cpu"),
        progress=progress,
    )
