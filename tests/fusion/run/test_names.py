"""Names of run folders: short, safe, and those of older versions are found."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.experiment.request import ExperimentRequest
from fusion.run.names import run_name, stream_names
from fusion.run.train import train_run
from tests.support.runs import QUICK, Told, reader_of

TEXT = st.text(max_size=150)


@given(stem=TEXT, head=TEXT, streams=st.lists(TEXT, max_size=4))
def test_a_name_is_a_single_part_of_a_path_and_bounded(stem: str, head: str, streams: list[str]) -> None:
    name = run_name(Path("cache") / f"{stem.replace('/', '') or 'x'}.h5", head.replace("/", ""), streams, "0123abcd")
    assert len(name.encode()) <= 240
    assert name.endswith("0123abcd")
    assert "/" not in name


def test_signs_of_stream_names_that_a_shell_reads_are_replaced() -> None:
    name = run_name(Path("a.h5"), "audio", ["x y;$(z)*", "whisper-tiny.en@all"], "01")
    assert name == "a-audio-x_y_z+whisper-tiny.en@all-01"


def test_streams_of_single_folds_are_all_named() -> None:
    by_fold = {"1": {"audio": "tuned1 aa"}, "2": {"audio": "tuned2 bb"}}
    identity = {"streams": {"audio": "tuned1 aa", "text": "words cc"}, "by_fold": by_fold}
    assert stream_names(identity) == {"audio": "tuned1, tuned2", "text": "words"}


def test_a_run_in_a_folder_of_the_old_name_is_found_and_not_trained_again(
    trainable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cache, progress = reader_of(trainable), Told()
    experiment = ExperimentRequest(fusion="concat", fields={**QUICK, "epochs": 1}).experiment(cache)
    first = train_run(experiment, cache)
    assert first.folder.name.startswith("toy-concat-voice+words@4-")
    older = first.folder.with_name(f"toy-concat-{first.folder.name.rpartition('-')[2]}")
    first.folder.rename(older)
    again = train_run(experiment, cache, progress=progress)
    assert (again.folder, progress.started) == (Path("runs") / older.name, [])
    assert [path.name for path in Path("runs").iterdir()] == [older.name]
