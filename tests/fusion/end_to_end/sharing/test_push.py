"""Bundles on a hub of this machine: pushed, pushed again, downloaded, and refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants, file_download

from cache.errors import MmerError
from fusion.end_to_end.prediction.predictor import load_predictor
from fusion.end_to_end.sharing.export import ExportRequest, export_run
from fusion.run.folder import RunFolder
from tests.support.hub import COMMIT, LocalHub, local_hub
from tests.support.predicted import utterances


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    with local_hub() as served:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(
            file_download, "HUGGINGFACE_CO_URL_TEMPLATE", constants.HUGGINGFACE_CO_URL_TEMPLATE, raising=False
        )
        (tmp_path / "token").write_text("hf_token")
        yield served


def files_of(bundle: Path) -> dict[str, bytes]:
    return {str(path.relative_to(bundle)): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}


def test_a_bundle_is_pushed_and_predicts_from_the_hub(
    spoken: Path, concat: RunFolder, exported: Path, hub: LocalHub, tmp_path: Path
) -> None:
    report = export_run(ExportRequest(run=concat.path, push="somebody/demo", private=True))
    assert report.out is None
    assert report.url == f"{hub.url}/somebody/demo"
    assert hub.private == {"somebody/demo"}
    held = hub.repositories["somebody/demo"]
    expected = files_of(exported)
    assert {name: held[name] for name in expected if name != "README.md"} == {
        name: content for name, content in expected.items() if name != "README.md"
    }
    assert b"mmer-predict hf:somebody/demo call.wav" in held["README.md"]
    recording = spoken.parent / utterances(spoken)[0].audio
    found = load_predictor(Path("hf:somebody/demo"), device="cpu")
    assert found.source.endswith(f"of somebody/demo at revision {COMMIT[:8]}")
    assert found.predict(recording, text="i hate this") == load_predictor(concat.path, device="cpu").predict(
        recording, text="i hate this"
    )
    assert not list((tmp_path / "hub").rglob("README.md"))  # not needed to predict


def test_a_bundle_replaces_an_earlier_one(exported: Path, audio: RunFolder, hub: LocalHub) -> None:
    export_run(ExportRequest(run=audio.path, push="somebody/demo"))
    held = hub.repositories["somebody/demo"]
    assert "0-seed0/weights.safetensors" in held
    report = export_run(ExportRequest(run=exported, push="somebody/demo"))  # a bundle as it is
    assert report.out == exported
    assert set(held) == {".gitattributes", *files_of(exported)}


def test_another_repository_is_not_overwritten(concat: RunFolder, hub: LocalHub) -> None:
    hub.repositories["somebody/thesis"] = {"thesis.txt": b"years of work"}
    with pytest.raises(MmerError, match=r"somebody/thesis holds 'thesis.txt' and is not a bundle; choose another"):
        export_run(ExportRequest(run=concat.path, push="somebody/thesis"))
    assert hub.repositories["somebody/thesis"] == {"thesis.txt": b"years of work"}


def test_a_name_or_a_hub_that_is_not_there_is_one_line(concat: RunFolder, exported: Path) -> None:
    with pytest.raises(MmerError, match="--push demo: expected OWNER/NAME, such as somebody/demo-emotions"):
        export_run(ExportRequest(run=concat.path, push="demo"))
    with pytest.raises(
        MmerError, match=r"somebody/demo cannot be written \(.*\); log in with `hf auth login`"
    ) as caught:
        export_run(ExportRequest(run=concat.path, push="somebody/demo"))
    assert "\n" not in str(caught.value)
    with pytest.raises(MmerError, match="is a bundle, which is put on a hub as it is; export the run"):
        export_run(ExportRequest(run=exported, push="somebody/demo", license="mit"))
    with pytest.raises(MmerError, match="nothing to do: pass a folder for the bundle, or --push OWNER/NAME"):
        export_run(ExportRequest(run=concat.path))
