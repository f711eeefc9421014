"""Streams of encoders trained on different folds: each fold reads the one that has not seen its test subset."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cache.errors import MmerError
from cache.joined import open_cache
from fusion.end_to_end.learning.wave import WaveFeatures
from fusion.experiment.plan import plan_run
from fusion.experiment.request import ExperimentRequest
from fusion.grid.engine.remote import load_features
from fusion.grid.run import GridRun, run_grid
from fusion.grid.space import GridRequest, grid_space
from fusion.run.folder import RunFolder
from fusion.run.reference import reference_of
from fusion.run.train import train_run
from tests.support.tuned import CPU, planned, request
from tests.support.voices import featurized


@pytest.fixture(scope="module")
def tuned(learning: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunFolder]:
    """The cache with a stream of the tuned encoder of every fold."""
    folder = tmp_path_factory.mktemp("tuned")
    opened = open_cache(learning)
    run = RunFolder(
        train_run(
            request("audio", "audio=1", audio_lr=1e-3, epochs=1).experiment(opened), opened, out=folder / "run"
        ).folder
    )
    encoders = tuple(f"tuned{fold}={run.model(fold, 0).path / 'audio'}" for fold in run.identity["folds"])
    cache = folder / "tuned.h5"
    featurized(learning.parent / "corpus.csv", cache, encoders=(*encoders, "roberta-tiny"), dtype="float32", mel=False)
    return cache, run


def asked(name: str, **options: Any) -> ExperimentRequest:
    return ExperimentRequest(fusion="audio", streams={"audio": name}, fields={"epochs": 1, "lr": 0.01}, **options)


def test_each_fold_reads_the_stream_of_its_own_encoder(tuned: tuple[Path, RunFolder]) -> None:
    cache, _ = tuned
    plan = planned(cache, asked("tuned*"))
    assert plan.split.chosen == {fold.name: {"audio": f"tuned{fold.name}"} for fold in plan.split.folds}
    assert any("audio of each fold is of an encoder that has not seen its test subset" in note for note in plan.notes)


def test_the_probe_of_a_run_reads_the_stream_of_each_fold_too(tuned: tuple[Path, RunFolder]) -> None:
    cache, _ = tuned
    plan = planned(cache, asked("tuned*"))
    assert plan_run(reference_of(plan), plan.cache).split.chosen == plan.split.chosen


def test_a_single_stream_is_refused_where_its_encoder_saw_the_test(tuned: tuple[Path, RunFolder]) -> None:
    cache, _ = tuned
    with pytest.raises(MmerError, match="the encoder of tuned0 has seen"):
        planned(cache, asked("tuned0"))
    allowed = planned(cache, asked("tuned0", allow_leak=True))
    assert any("the encoder of tuned0 has seen" in note for note in allowed.notes)


def test_a_fold_without_an_unseen_encoder_is_refused(tuned: tuple[Path, RunFolder]) -> None:
    cache, _ = tuned
    with pytest.raises(MmerError, match="fold 2: the encoder of tuned0 has seen"):
        planned(cache, asked("tuned[01]"))
    with pytest.raises(MmerError, match=r"no stream of audio that matches tund\*"):
        planned(cache, asked("tund*"))


def test_a_run_over_a_pattern_is_that_of_each_stream(tuned: tuple[Path, RunFolder], tmp_path: Path) -> None:
    """The scores of each fold are those of a run over its stream alone."""
    cache, _ = tuned
    opened = open_cache(cache)
    run = train_run(asked("tuned*").experiment(opened), opened, out=tmp_path / "pattern")
    again = train_run(asked("tuned*").experiment(opened), opened, out=tmp_path / "pattern")
    assert run.results == again.results
    for place, fold in enumerate(run.folds):
        alone = train_run(
            asked(f"tuned{fold['fold']}", allow_leak=True).experiment(opened), opened, out=tmp_path / str(place)
        )
        expected = next(held for held in alone.folds if held["fold"] == fold["fold"])
        assert fold["wf1"] == expected["wf1"]
        assert fold["dev_scores"] == expected["dev_scores"]


def grid_of(base: ExperimentRequest, cache: Path, out: Path, **axes: object) -> GridRun:
    return run_grid(GridRequest(base=base, space=grid_space(base, grid=axes)), open_cache(cache), out=out)


def test_a_grid_reads_the_streams_of_folds(tuned: tuple[Path, RunFolder], tmp_path: Path) -> None:
    cache, _ = tuned
    base = replace(asked("tuned*"), fields={"epochs": 1})
    grid = grid_of(base, cache, tmp_path / "grid", lr=[0.01])
    opened = open_cache(cache)
    run = train_run(asked("tuned*").experiment(opened), opened, out=tmp_path / "run")
    assert grid.nested["wf1"] == pytest.approx(run.mean["wf1"], abs=1e-9)


def test_a_grid_may_tune_encoders(learning: Path, tmp_path: Path) -> None:
    wanted = request("audio", "audio=1", epochs=1)
    base = replace(wanted, fields={name: value for name, value in wanted.fields.items() if name != "lr"})
    grid = grid_of(base, learning, tmp_path / "grid", lr=[0.01])
    opened = open_cache(learning)
    run = train_run(wanted.experiment(opened), opened, out=tmp_path / "run")
    assert grid.nested["wf1"] == pytest.approx(run.mean["wf1"], abs=1e-9)
    assert grid.winner == {"lr": 0.01}


def test_a_worker_of_a_grid_tells_recordings_from_features(learning: Path) -> None:
    """Plans that name the same stream, one for its rows and one for the recordings, do not share what is loaded."""
    wave = planned(learning, request("audio", "audio=wave"))
    stream = wave.starts["audio"].stream
    frozen = planned(learning, replace(request("audio"), streams={"audio": stream}))
    loaded = [load_features(plan, CPU, 0.25) for plan in (frozen, wave, frozen)]
    assert loaded[0] is loaded[2]
    assert isinstance(loaded[1], WaveFeatures)
    assert not isinstance(loaded[0], WaveFeatures)
