"""Bundles of strangers: no path leaves the folder, no memory is taken for what is not there, everything is one line."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cache.errors import MmerError
from fusion.end_to_end.prediction import trust
from fusion.end_to_end.prediction.predictor import load_predictor


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


def refused(bundle: Path) -> str:
    """The one line with which a bundle is refused."""
    with pytest.raises(MmerError) as caught:
        load_predictor(bundle, device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


FILES = (
    "README.md",
    "bundle.json",
    "run.json",
    "final-seed0/final.json",
    "final-seed0/curves.csv",
    "final-seed0/weights.safetensors",
)


@pytest.mark.parametrize("name", FILES)
def test_a_link_out_of_the_bundle_is_refused(copy: Path, tmp_path: Path, name: str) -> None:
    outside = (copy / name).rename(tmp_path / "outside")
    (copy / name).symlink_to(outside)
    assert "leads out of the run folder" in refused(copy)


@pytest.mark.parametrize("kind", ["pipe", "device", "loop", "gone"])
@pytest.mark.parametrize("name", FILES[1:3])
def test_an_entry_that_is_not_a_file_is_one_line(copy: Path, name: str, kind: str) -> None:
    (copy / name).unlink()
    if kind == "pipe":
        os.mkfifo(copy / name)
    elif kind == "device":
        (copy / name).symlink_to("/dev/zero")
    elif kind == "loop":
        (copy / name).symlink_to(Path(name).name)
    if kind == "gone" and name == "bundle.json":
        load_predictor(copy, device="cpu")  # a run folder, with the checks of one
    else:
        refused(copy)


def test_a_folder_that_is_a_link_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "final-seed0").rename(tmp_path / "outside")
    (copy / "final-seed0").symlink_to(tmp_path / "outside")
    assert "is a link to a folder" in refused(copy)


@pytest.mark.parametrize(
    "content", ["[]", "null", "{", "[" * 100_000, '{"format_version": true}', '{"format_version": 1, "models": [3]}']
)
def test_a_record_that_is_malformed_is_one_line(copy: Path, content: str) -> None:
    (copy / "bundle.json").write_text(content)
    assert "bundle.json" in refused(copy)


def test_a_newer_bundle_says_so(copy: Path) -> None:
    (copy / "bundle.json").write_text('{"format_version": 2, "models": []}')
    assert "was written by a newer mmer (format 2); upgrade mmer" in refused(copy)


def test_large_texts_and_many_entries_are_not_read(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(trust, "MOST_TEXT_BYTES", 1000)
        assert "bytes, more than 1000; it is not part of a bundle" in refused(copy)
    monkeypatch.setattr(trust, "MOST_ENTRIES", 3)
    assert "has more than 3 entries" in refused(copy)


def test_no_pickle_and_no_code_of_a_bundle_is_loaded(copy: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"weight": Evil()}, copy / "final-seed0" / "pytorch_model.bin")
    (copy / "final-seed0" / "head.py").write_text("raise SystemExit")
    (copy / "final-seed0" / "weights.safetensors").write_bytes((copy / "final-seed0/pytorch_model.bin").read_bytes())
    assert "final-seed0" in refused(copy)
    assert not (tmp_path / "owned").exists()


def rewritten(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def test_a_head_that_is_larger_than_its_weights_takes_no_memory(copy: Path) -> None:
    rewritten(copy / "run.json", lambda record: record["decides"]["head"].update(dim=10**6))
    assert "does not fit the head" in refused(copy)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 64_000},
        {"intermediate_size": 10**12},
        {"num_hidden_layers": 10**9},
        {"num_feat_extract_layers": 10**9},
        {"conv_dim": [32] * 10_000},
        {"hidden_size": -1},
        {"hidden_size": "many"},
        {"model_type": "resnet"},
        {"auto_map": {"AutoModel": "evil.Model"}, "model_type": "evil"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_encoder_that_its_weights_do_not_fit_takes_no_memory(
    learned: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    bundle = Path(shutil.copytree(learned, tmp_path / "bundle"))
    rewritten(bundle / "0-seed0" / "audio" / "config.json", lambda config: config.update(change))
    refused(bundle)


def test_an_encoder_with_other_files_or_weights_is_refused(learned: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(learned, tmp_path / "bundle"))
    encoder = bundle / "0-seed0" / "audio"
    (encoder / "adapter_config.json").write_text('{"base_model_name_or_path": "/etc"}')
    assert "holds 'adapter_config.json', which is not part of a tuned encoder" in refused(bundle)
    (encoder / "adapter_config.json").unlink()
    weights = load_file(encoder / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, encoder / "model.safetensors")
    assert "is not the encoder that was written" in refused(bundle)
    (encoder / "model.safetensors").write_bytes(b"\xff" * 64)
    assert "cannot be read" in refused(bundle)


@pytest.mark.parametrize("name", ["..", "%2e%2e", "%2fetc", "x"])
def test_an_encoder_that_the_run_does_not_name_is_not_loaded(copy: Path, name: str) -> None:
    folder = copy / "encoders" / (name if name != ".." else "...")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert "cannot be read" in refused(copy)
