"""Streams of encoders trained on different folds: each fold reads the one that has not seen its test subset."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cache.errors import MmerError
from fusion.end_to_end.learning.wave import WaveFeatures
from fusion.experiment.plan import plan_run
from fusion.experiment.request import ExperimentRequest
from fusion.grid.engine.remote import load_features
from fusion.grid.run import GridRun, run_grid
from fusion.grid.space import GridRequest, grid_space
from fusion.run.folder import RunFolder
from fusion.run.reference import reference_of
from fusion.run.train import train_run
from tests.support.runs import reader_of
from tests.support.tuned import CPU, planned, request
from tests.support.voices import featurized


@pytest.fixture(scope="module")
def streams(spoken: Path, tuned: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a stream of the tuned encoder of every fold."""
    encoders = tuple(f"tuned{fold}={tuned.model(fold, 0).path / 'audio'}" for fold in tuned.identity["folds"])
    cache = tmp_path_factory.mktemp("streams") / "tuned.h5"
    featurized(spoken.parent / "corpus.csv", cache, encoders=encoders, audio_only=True, mel=False)
    return cache


def asked(name: str, **options: Any) -> ExperimentRequest:
    return ExperimentRequest(fusion="audio", streams={"audio": name}, fields={"epochs": 1, "lr": 0.01}, **options)


def test_each_fold_reads_the_stream_of_its_own_encoder(streams: Path) -> None:
    plan = planned(streams, asked("tuned*"))
    assert plan.split.chosen == {fold.name: {"audio": f"tuned{fold.name}"} for fold in plan.split.folds}
    assert any("audio of each fold is of an encoder that has not seen its test subset" in note for note in plan.notes)


def test_the_probe_of_a_run_reads_the_stream_of_each_fold_too(streams: Path) -> None:
    plan = planned(streams, asked("tuned*"))
    assert plan_run(reference_of(plan), plan.cache).split.chosen == plan.split.chosen


def test_a_single_stream_is_refused_where_its_encoder_saw_the_test(streams: Path) -> None:
    with pytest.raises(MmerError, match="the encoder of tuned0 has seen"):
        planned(streams, asked("tuned0"))
    allowed = planned(streams, asked("tuned0", allow_leak=True))
    assert any("the encoder of tuned0 has seen" in note for note in allowed.notes)


def test_a_fold_without_an_unseen_encoder_is_refused(streams: Path) -> None:
    with pytest.raises(MmerError, match="fold 2: the encoder of tuned0 has seen"):
        planned(streams, asked("tuned[01]"))
    with pytest.raises(MmerError, match=r"no stream of audio that matches tund\*"):
        planned(streams, asked("tund*"))


def test_a_run_over_a_pattern_is_that_of_each_stream(streams: Path, tmp_path: Path) -> None:
    """The scores of each fold are those of a run over its stream alone."""
    opened = reader_of(streams)
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
    return run_grid(GridRequest(base=base, space=grid_space(base, grid=axes)), reader_of(cache), out=out)


def test_a_grid_reads_the_streams_of_folds(streams: Path, tmp_path: Path) -> None:
    base = replace(asked("tuned*"), fields={"epochs": 1})
    grid = grid_of(base, streams, tmp_path / "grid", lr=[0.01])
    opened = reader_of(streams)
    run = train_run(asked("tuned*").experiment(opened), opened, out=tmp_path / "run")
    assert grid.nested["wf1"] == pytest.approx(run.mean["wf1"], abs=1e-9)


def test_a_grid_may_tune_encoders(learning: Path, tmp_path: Path) -> None:
    wanted = replace(request("audio", "audio=1", epochs=1), only={"session": ("0", "1")})
    base = replace(wanted, fields={name: value for name, value in wanted.fields.items() if name != "lr"})
    grid = grid_of(base, learning, tmp_path / "grid", lr=[0.01])
    opened = reader_of(learning)
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
