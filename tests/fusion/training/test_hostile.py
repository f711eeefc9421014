"""Checkpoints that somebody forged: every value is checked before a training goes on from it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cache.errors import MmerError
from fusion.training.checkpoint import METADATA, fitting, load_checkpoint, restore_optimizer
from fusion.training.optimizer import Adam

CURVE = {"epoch": 1, "losses": {"total": 1.0}, "dev": {"ua": 0.5}}
PROGRESS: dict[str, Any] = {
    "epoch": 1,
    "batch": 0,
    "step": 4,
    "best_epoch": 1,
    "sums": {"total": [1.0, 2]},
    "curves": [CURVE],
    "scaler": {},
    "seconds": 0.5,
    "finished": False,
    "stopped": "",
}


def forged(path: Path, text: str, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    save_file(tensors or {"head.weight": torch.zeros(2)}, path, metadata={METADATA: text})
    return path


def test_a_whole_checkpoint_is_read(tmp_path: Path) -> None:
    text = json.dumps({"config": {"training": {}}, "progress": PROGRESS})
    checkpoint = load_checkpoint(forged(tmp_path / "state", text))
    assert (checkpoint.progress.best_epoch, checkpoint.progress.curves[0].dev) == (1, {"ua": 0.5})


@pytest.mark.parametrize(
    "changed",
    [
        {"epoch": "1"},
        {"epoch": True},
        {"batch": -1},
        {"step": 10**400},
        {"best_epoch": 2},
        {"sums": []},
        {"sums": {"total": 1}},
        {"sums": {"total": ["a", 1]}},
        {"curves": [{"epoch": 1}]},
        {"curves": [{**CURVE, "dev": {"ua": None}}]},
        {"curves": [{**CURVE, "__class__": "x"}]},
        {"curves": 3},
        {"scaler": []},
        {"seconds": "long"},
        {"finished": 1},
        {"stopped": ["a"]},
        {"more": 1},
    ],
    ids=str,
)
def test_progress_of_other_types_is_one_line(tmp_path: Path, changed: dict[str, Any]) -> None:
    text = json.dumps({"config": {}, "progress": {**PROGRESS, **changed}})
    with pytest.raises(MmerError, match=r"is not a readable checkpoint .*; delete it to train again"):
        load_checkpoint(forged(tmp_path / "state", text))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[]",
        "{}",
        "NaN",
        json.dumps({"config": [], "progress": PROGRESS}),
        json.dumps({"config": {"training": 1}, "progress": PROGRESS}),
        json.dumps({"config": {}, "progress": []}),
        json.dumps({"config": {}, "progress": {**PROGRESS, "seconds": float("nan")}}),
    ],
    ids=lambda text: text[:20],
)
def test_json_that_is_no_state_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(MmerError, match="is not a readable checkpoint"):
        load_checkpoint(forged(tmp_path / "state", text))


def test_tensors_of_no_section_are_one_line(tmp_path: Path) -> None:
    text = json.dumps({"config": {}, "progress": PROGRESS})
    with pytest.raises(MmerError, match="is not a readable checkpoint"):
        load_checkpoint(forged(tmp_path / "state", text, {"other.weight": torch.zeros(1)}))


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "state")
    with pytest.raises(MmerError, match="not a regular file"):
        load_checkpoint(tmp_path / "state")


@pytest.mark.parametrize("key", ["9.exp_avg", "-1.exp_avg", "a.exp_avg", "0.exp_avg"])
def test_moments_of_other_parameters_are_one_line(key: str) -> None:
    optimizer = Adam([{"params": [torch.zeros(3, requires_grad=True)]}], name="adamw", lr=0.1, fused=True)
    with pytest.raises(MmerError, match="does not fit the model"), fitting(Path("state")):
        restore_optimizer(optimizer, {key: torch.zeros(7)})
