"""Bundles of a hub, from a hub cache as huggingface_hub lays it out."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from cache.errors import MmerError
from fusion.end_to_end.prediction.predictor import load_predictor
from fusion.end_to_end.prediction.source import find_run
from fusion.run.folder import RunFolder
from tests.support.bundles import REVISION, bundle_of, hub_cache_with
from tests.support.predicted import utterances


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_bundle_of_the_hub_cache_predicts(spoken: Path, concat: RunFolder, hub: Path, tmp_path: Path) -> None:
    snapshot = hub_cache_with(bundle_of(concat.path, tmp_path / "bundle"), hub, "somebody/demo")
    assert (snapshot / "run.json").is_symlink()
    recording = spoken.parent / utterances(spoken)[0].audio
    expected = load_predictor(concat.path, device="cpu").predict(recording, text="i hate this")
    for name in ("hf:somebody/demo", f"hf:somebody/demo@{REVISION}", "hf:somebody/demo@main"):
        predictor = load_predictor(Path(name), device="cpu")
        assert predictor.predict(recording, text="i hate this") == expected
        assert (
            predictor.source
            == "final model of seed 0, trained on all utterances, of somebody/demo at revision " + (REVISION[:8])
        )


def test_a_link_to_another_repository_is_refused(concat: RunFolder, hub: Path, tmp_path: Path) -> None:
    bundle = bundle_of(concat.path, tmp_path / "bundle")
    snapshot = hub_cache_with(bundle, hub, "somebody/demo")
    other = hub_cache_with(bundle, hub, "somebody/other")
    (snapshot / "run.json").unlink()
    (snapshot / "run.json").symlink_to(other / "run.json")
    with pytest.raises(MmerError, match=r"run.json leads out of the run folder"):
        load_predictor(Path("hf:somebody/demo"), device="cpu")
    with pytest.raises(MmerError, match=r"leads out of the run folder"):
        load_predictor(snapshot, device="cpu")  # as a folder, it may not have links to blobs


@pytest.mark.parametrize(
    "name", ["hf:", "hf:demo", "hf:a/b/c", "hf:../x", "hf:a/..", "hf:a/b@", "hf:a/b@../x", "hf:a/b c"]
)
def test_a_name_of_another_form_is_one_line(hub: Path, name: str) -> None:
    with pytest.raises(MmerError, match=r"invalid bundle of a hub .*; expected hf:OWNER/NAME|neither in the hub cache"):
        find_run(Path(name))


def test_a_repository_that_is_not_there_or_no_bundle_is_one_line(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(
        MmerError, match=r"somebody/gone is neither in the hub cache nor reachable .*; run `hf download"
    ):
        find_run(Path("hf:somebody/gone"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    hub_cache_with(tmp_path / "model", hub, "somebody/model")
    with pytest.raises(MmerError, match=r"somebody/model is not a bundle: it has no bundle.json"):
        find_run(Path("hf:somebody/model"))
