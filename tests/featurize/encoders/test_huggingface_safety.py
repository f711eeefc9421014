import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cache.errors import MmerError
from tests.support.checkpoints import altered, loaded, same, speech_digest_of


class Marker:
    """Object whose unpickling runs code, unless the loader prevents it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def save_by_torch(path: Path, weights: object) -> None:
    torch.save(weights, path)


def save_by_pickle(path: Path, weights: object) -> None:
    path.write_bytes(pickle.dumps(weights, protocol=2))  # the protocol of torch.save


@pytest.mark.parametrize("save", [save_by_torch, save_by_pickle])
def test_a_bin_that_would_run_code_is_refused_and_runs_nothing(
    wav2vec2: Path, tmp_path: Path, save: Callable[[Path, object], None]
) -> None:
    copy = altered(wav2vec2, tmp_path / "mini", same, as_bin=True)
    save(copy / "pytorch_model.bin", {"wav2vec2.encoder.layer_norm.bias": Marker(tmp_path / "ran")})
    with pytest.raises(MmerError, match="holds more than weights and is not loaded"):
        loaded(copy)
    assert not (tmp_path / "ran").exists()
    with (copy / "pytorch_model.bin").open("rb") as file:  # the test can fail: the file does run code
        torch.load(file, weights_only=False) if save is save_by_torch else pickle.load(file)
    assert (tmp_path / "ran").exists()


def test_safetensors_are_preferred_to_a_bin(wav2vec2: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(wav2vec2, tmp_path / "mini")
    save_by_torch(copy / "pytorch_model.bin", {"wav2vec2.encoder.layer_norm.bias": Marker(tmp_path / "ran")})
    assert speech_digest_of(copy) == speech_digest_of(wav2vec2)
    assert not (tmp_path / "ran").exists()


def test_code_in_a_checkpoint_never_runs(wav2vec2: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(wav2vec2, tmp_path / "mini")
    (copy / "remote.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})\n")
    config = json.loads((copy / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "remote.Config", "AutoModel": "remote.Model"}
    (copy / "config.json").write_text(json.dumps(config))
    assert speech_digest_of(copy) == speech_digest_of(wav2vec2)
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "remote"}))
    with pytest.raises(MmerError, match="needs code that lies next to its weights, which mmer never runs"):
        loaded(copy)
    assert not (tmp_path / "ran").exists()
