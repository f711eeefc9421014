import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cache.errors import MmerError
from tests.support.checkpoints import WEIGHTS, altered, loaded, without


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("wav2vec2.encoder.layers.1.attention.k_proj.weight", r"lacks 1 weights \(first: wav2vec2\.encoder\.layers\.1"),
        ("wav2vec2.encoder.pos_conv_embed", "lacks 3 weights"),
        ("wav2vec2", r"lacks \d\d weights"),
        ("quantizer.weight_proj", r"lacks 2 weights \(first: quantizer\.weight_proj\.bias\)"),
        ("project_hid.bias", r"lacks 1 weights \(first: project_hid\.bias\)"),
        (("quantizer", "project_q"), r"lacks 5 weights \(first: project_q\.bias\)"),
    ],
)
def test_a_checkpoint_that_lacks_weights_is_refused(
    wav2vec2: Path, tmp_path: Path, lost: str | tuple[str, ...], message: str
) -> None:
    parts = (lost,) if isinstance(lost, str) else lost
    with pytest.raises(MmerError, match=message):
        loaded(altered(wav2vec2, tmp_path / "mini", without(*parts)))


def no_files(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def no_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def damaged_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def unknown_type(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "something"}')


def truncated_weights(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:5000])


def truncated_bin(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes((folder / "pytorch_model.bin").read_bytes()[:5000])


def other_shapes(folder: Path) -> None:
    weights = {**load_file(folder / WEIGHTS), "project_q.bias": torch.zeros(3)}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "damage",
    [
        no_files,
        no_weights,
        no_config,
        damaged_config,
        unknown_type,
        truncated_weights,
        truncated_bin,
        other_shapes,
    ],
)
def test_a_folder_that_cannot_be_loaded_gives_one_line(
    wav2vec2: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    copy = shutil.copytree(wav2vec2, tmp_path / "mini")
    damage(copy)
    with pytest.raises(MmerError, match=f"^{copy} holds no checkpoint that can be loaded: [^\n]+$"):
        loaded(copy)


@pytest.mark.parametrize("family", ["whisper", "sew-d", "resnet", "gpt2"])
def test_a_family_without_its_files_is_one_line(tmp_path: Path, family: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    with pytest.raises(MmerError) as caught:
        loaded(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_checkpoint_with_an_adapter_is_refused(wav2vec2: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(wav2vec2, tmp_path / "mini")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "add_adapter": True}))
    with pytest.raises(MmerError, match="adapter"):
        loaded(copy)
