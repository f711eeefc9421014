"""Bundles predict what their runs predict, elsewhere too, and hold nothing else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fusion.end_to_end.sharing.export as exporting
from cache.errors import MmerError
from fusion.end_to_end.prediction.predictor import Predictor, load_predictor
from fusion.end_to_end.sharing.bundle import new_bundle
from fusion.run.folder import RunFolder
from tests.support.bundles import bundle_of
from tests.support.predicted import run_of, utterances, wanted
from tests.support.processes import ROOT
from tests.support.tuned import ONE_FOLD
from tests.support.voices import featurized


def recording(spoken: Path, number: int = 0) -> Path:
    return spoken.parent / utterances(spoken)[number].audio


def probabilities(predictor: Predictor, spoken: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    rows = [predictor.predict(recording(spoken, number), text="i hate this") for number in range(2)]
    return np.array([list(row.probabilities.values()) for row in rows])


@pytest.mark.parametrize(("name", "made"), [("concat", "exported"), ("audio", ""), ("tuned", "learned")])
def test_a_bundle_predicts_what_its_run_predicts(
    spoken: Path, tmp_path: Path, name: str, made: str, request: pytest.FixtureRequest
) -> None:
    run: RunFolder = request.getfixturevalue(name)
    bundle: Path = request.getfixturevalue(made) if made else bundle_of(run.path, tmp_path / "bundle")
    expected, found = (load_predictor(path, device="cpu") for path in (run.path, bundle))
    assert expected.source == found.source
    np.testing.assert_array_equal(probabilities(found, spoken), probabilities(expected, spoken))


def test_a_bundle_of_ratings_predicts_values_on_their_scale(spoken: Path, rated: RunFolder, tmp_path: Path) -> None:
    bundle = bundle_of(rated.path, tmp_path / "bundle")
    expected, found = (load_predictor(path, device="cpu").predict(recording(spoken)) for path in (rated.path, bundle))
    assert found.probabilities == expected.probabilities
    assert 1 < found.probabilities["valence"] < 5
    assert found.label == ""
    card = (bundle / "README.md").read_text()
    assert "| dimensions | valence |" in card
    assert "| target | valence=1:5 |" in card
    assert "| CCC (concordance correlation coefficient) |" in card
    assert "type: concordance_correlation" in card
    assert "calibrated" not in card


def test_a_bundle_predicts_on_another_machine(spoken: Path, concat: RunFolder, tmp_path: Path) -> None:
    """Another folder, another home, no run, no cache."""
    run = Path(shutil.copytree(concat.path, tmp_path / "run"))
    expected = load_predictor(run, device="cpu").predict(recording(spoken), text="i hate this")
    shutil.copytree(bundle_of(run, tmp_path / "bundle"), tmp_path / "there" / "given")
    shutil.copy(recording(spoken), tmp_path / "there" / "call.wav")
    for gone in (run, tmp_path / "bundle"):
        shutil.rmtree(gone)
    (tmp_path / "home").mkdir()
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "cli.predict", "given", "call.wav", "--text", "i hate this", "--json"]
    done = subprocess.run(
        [*command, "--device", "cpu"],
        cwd=tmp_path / "there",
        env={**environment, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)


def test_a_frozen_encoder_of_a_folder_becomes_part_of_the_bundle(
    spoken: Path, tuned: RunFolder, tmp_path: Path
) -> None:
    encoder = tuned.model("0", 0).path / "audio"
    corpus = Path(shutil.copytree(spoken.parent, tmp_path / "corpus"))
    featurized(corpus / "corpus.csv", corpus / "own.h5", encoders=(f"own={encoder}",), audio_only=True, mel=False)
    run = run_of(
        corpus / "own.h5", tmp_path / "run", wanted("audio", {"audio": "own"}, own_folds=ONE_FOLD, allow_leak=True)
    )
    with pytest.raises(MmerError, match="it came from a folder named audio; pass --encoder own=FOLDER"):
        bundle_of(run.path, tmp_path / "bundle")
    assert not list(tmp_path.glob("*bundle*"))
    with pytest.raises(MmerError, match=r"is not the encoder that the run was trained with .*weights"):
        bundle_of(run.path, tmp_path / "bundle", encoders={"own": tuned.model("1", 0).path / "audio"})
    bundle = bundle_of(run.path, tmp_path / "bundle", encoders={"own": encoder})
    expected = load_predictor(run.path, device="cpu", encoders={"own": encoder})
    np.testing.assert_array_equal(
        probabilities(load_predictor(bundle, device="cpu"), spoken), probabilities(expected, spoken)
    )


def test_a_bundle_names_no_utterance_and_no_path(spoken: Path, concat: RunFolder, exported: Path) -> None:
    names = {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()}
    model = {f"final-seed0/{name}" for name in ("weights.safetensors", "final.json", "curves.csv")}
    assert names == {"README.md", "bundle.json", "run.json", *model}
    text = "".join(path.read_text() for path in exported.rglob("*") if path.suffix in {".md", ".json", ".csv"})
    assert str(spoken.parent) not in text
    assert str(concat.path) not in text
    assert str(exported.parent) not in text
    assert not [utterance.id for utterance in utterances(spoken) if f'"{utterance.id}"' in text]
    with pytest.raises(MmerError, match="is a bundle without the models of fold 0; predict without --fold"):
        load_predictor(exported, fold="0", device="cpu")


def test_a_bundle_is_replaced_and_nothing_else_is(concat: RunFolder, exported: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(exported, tmp_path / "bundle"))
    before = (bundle / "README.md").read_text()
    bundle_of(concat.path, bundle, license="mit")
    assert "license: mit" in (bundle / "README.md").read_text() != before
    (bundle / "thesis.txt").write_text("years of work")
    with pytest.raises(MmerError, match=r"holds 'thesis.txt', which is not part of the bundle; choose another folder"):
        bundle_of(concat.path, bundle)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    with pytest.raises(MmerError, match=r"other holds files and is not a bundle \(no bundle.json\)"):
        bundle_of(concat.path, tmp_path / "other")
    with pytest.raises(MmerError, match="lies in the run folder; choose a folder outside of it"):
        bundle_of(concat.path, concat.path / "bundle")
    assert (tmp_path / "other" / "thesis.txt").read_text() == "years of work"


def test_a_stop_leaves_the_old_bundle_or_none(
    concat: RunFolder, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(facts: object) -> str:
        raise KeyboardInterrupt

    bundle = Path(shutil.copytree(exported, tmp_path / "bundle"))
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    monkeypatch.setattr(exporting, "model_card", stop)
    with pytest.raises(KeyboardInterrupt):
        bundle_of(concat.path, bundle)
    assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_what_a_kill_leaves_is_cleared_by_the_next_call(exported: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(exported, tmp_path / "bundle"))
    bundle.rename(tmp_path / ".bundle.old")  # killed between the two renames
    (tmp_path / ".bundle.part").mkdir()
    (tmp_path / ".bundle.part" / "half").touch()
    with pytest.raises(RuntimeError), new_bundle(bundle):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (bundle / "bundle.json").exists()


def test_a_run_that_is_not_finished_or_has_no_weights_is_one_line(concat: RunFolder, tmp_path: Path) -> None:
    run = Path(shutil.copytree(concat.path, tmp_path / "run"))
    (run / "results.json").unlink()
    with pytest.raises(MmerError, match=r"is not finished: it has no results.json; repeat the command of the run"):
        bundle_of(run, tmp_path / "bundle")
    with pytest.raises(MmerError, match="gone is not a run folder"):
        bundle_of(tmp_path / "gone", tmp_path / "bundle")
    shutil.copy(concat.path / "results.json", run)
    (run / "final-seed0" / "weights.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(MmerError, match="final-seed0"):
        bundle_of(run, tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
