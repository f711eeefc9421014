"""The Python door: what a user imports, and that its calls are those of the commands."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import mmer
from cache.errors import MmerError
from featurize.encoders.options import EncodingOptions
from featurize.extraction.job import ExtractionJob, JobOptions
from fusion.data.features import RESIDENT_SHARE
from tests.support.runs import files_of, train_by_command
from tests.support.voices import write_voices

HEAVY = ("torch", "transformers", "h5py", "numpy", "sklearn", "librosa", "dask", "click")
TINY = ("wav2vec2-tiny", "roberta-tiny")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def in_a_child(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_it_and_listing_its_names_imports_nothing_heavy() -> None:
    code = f"import sys, mmer; print(dir(mmer), [name for name in {HEAVY} if name in sys.modules])"
    assert in_a_child(code).strip() == f"{sorted(mmer.__all__)} []"


def test_a_name_is_imported_when_it_is_used() -> None:
    code = "import sys, mmer; mmer.open_cache; print('h5py' in sys.modules, 'torch' in sys.modules)"
    assert in_a_child(code).split() == ["True", "False"]


def test_every_name_is_there_and_no_other() -> None:
    from fusion.head import Head

    assert mmer.Head is Head
    assert all(callable(getattr(mmer, name)) for name in mmer.__all__)
    with pytest.raises(AttributeError, match="module 'mmer' has no attribute 'trian'"):
        mmer.trian  # type: ignore[attr-defined] # noqa: B018


def test_options_of_featurize_are_the_fields_of_a_job() -> None:
    fields = {*ExtractionJob.__dataclass_fields__, *EncodingOptions.__dataclass_fields__}
    assert set(JobOptions.__annotations__) - {"ctc_vocab"} == fields - {
        "ctc_vocabulary",  # read from the file of ctc_vocab
        "transcripts",  # of --asr, known only during a run
        "corpus",
        "root",
        "cache",
        "encoders",
        "options",
        "device",
        "shard",
    }


@pytest.mark.parametrize("call", [mmer.train, mmer.grid])
def test_the_share_of_memory_is_that_of_the_commands(call: object) -> None:
    assert inspect.signature(call).parameters["resident_share"].default == RESIDENT_SHARE  # type: ignore[arg-type]


def test_featurize_writes_the_cache_of_a_manifest_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    manifest = write_voices(tmp_path / "corpus", "abcd")
    report = mmer.featurize(
        "manifest", root=manifest, cache=tmp_path / "a.h5", encoders=TINY, device="cpu", mel=False, limit=3
    )
    assert (report.cache, report.empty) == (tmp_path / "a.h5", [])
    cache = mmer.open_cache(report.cache)
    assert (len(cache), "logmel80" in cache.streams) == (3, False)
    assert cache.stream("roberta-tiny").read(0).ndim == 2
    assert capfd.readouterr() == ("", "")


def test_a_run_is_that_of_the_command(trainable: Path, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = mmer.train(trainable, fusion="audio", device="cpu", epochs=2, seeds=[0, 1])
    assert capfd.readouterr() == ("", "")
    mine = files_of(run.folder)
    asked = ["--fusion", "audio", "--seed", "0", "--seed", "1", "--epochs", "2"]
    assert train_by_command(trainable, *asked, "--replace").exit_code == 0
    assert files_of(run.folder) == mine
    again = mmer.train(mmer.open_cache(trainable), fusion="audio", device="cpu", epochs=2, seeds=[0, 1])
    assert (again.folder, again.results) == (run.folder, run.results)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"droput": 0.2}, "head audio and its training have no field 'droput'; did you mean dropout"),
        ({"seed": 1}, "seed cannot be set as a field"),
        ({"epochs": 2, "fields": {"epochs": 3}}, "epochs is given twice; give it once"),
        ({"only": {"sesion": "1"}}, "--only: unknown column 'sesion'"),
        ({"recipe": "gcf2net-iemocap"}, "recipe gcf2net-iemocap is for head rescmfa, not for audio"),
        ({"fusion": ""}, "no head given"),
        ({"seeds": ()}, "seeds must be numbers"),
    ],
)
def test_errors_are_those_of_the_command(trainable: Path, here: Path, changes: dict[str, object], told: str) -> None:
    with pytest.raises(MmerError, match=told):
        mmer.train(trainable, **{"fusion": "audio", "device": "cpu", **changes})  # type: ignore[arg-type]
    assert not (here / "runs").exists()


def test_a_field_whose_name_is_an_argument_is_given_in_fields(trainable: Path, here: Path) -> None:
    with pytest.raises(MmerError, match="head jfm: fusion must be joint or late or cfa or concat, got 'odd'"):
        mmer.train(trainable, fusion="jfm", device="cpu", fields={"fusion": "odd"})


def test_some_utterances_take_part(trainable: Path, here: Path) -> None:
    run = mmer.train(trainable, fusion="audio", device="cpu", epochs=1, only={"session": ["1", "3"]})
    assert [scores["fold"] for scores in run.folds] == ["1", "3"]


def test_a_grid_takes_values_and_prints_nothing(trainable: Path, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = mmer.grid(
        trainable, fusion="audio", grid={"lr": [0.1, 0.001]}, ablate=[{"dropout": 0.2}], device="cpu", epochs=1
    )
    configs = [row["config"] for row in found.results["rows"]]
    assert {tuple(config.items()) for config in configs} == {
        (("lr", lr), *extra) for lr in (0.1, 0.001) for extra in ((), (("dropout", 0.2),))
    }
    assert found.winner == configs[0]
    assert set(found.nested) >= {"wa", "ua", "wf1"}
    assert (found.folder / "results.json").exists()
    assert found.journal == Path("runs") / f"{trainable.stem}-audio-grid"
    assert capfd.readouterr() == ("", "")


def test_a_trained_head_is_loaded(trainable: Path, here: Path) -> None:
    run = mmer.train(trainable, fusion="audio", device="cpu", epochs=1)
    head = mmer.load(run.folder, fold="2")
    assert vars(head)["training"] is False
