"""Heads as ONNX files: onnxruntime computes what torch computes, on padded batches of several sizes."""

import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from cache.errors import MmerError
from fusion.end_to_end.sharing import onnx_head
from fusion.end_to_end.sharing.onnx_head import (
    TOLERANCE,
    ExportableGRU,
    ExportableSlotGate,
    ModelOutput,
    export_checked,
    export_head,
)
from fusion.evaluation.dimensions import TargetScale
from fusion.head import Head
from fusion.heads.catalog import HEADS
from fusion.heads.rescmfa import SlotGate
from fusion.nn.sequences import RaggedGRU
from tests.support.every_head import SINGLE, made, predicted
from tests.support.heads import batch_of

QUICK = "score"  # the others take 5 to 30 seconds each to trace
NAMES = [pytest.param(name, marks=[] if name == QUICK else [pytest.mark.slow]) for name in HEADS]


@pytest.fixture(autouse=True, scope="module")
def registered_once() -> Iterator[None]:
    """Fills torch's table of ONNX operators for the first export alone, which takes longer than an export."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        yield


def small(name: str) -> Head:
    dropout = 0.0 if name in {*SINGLE, "probe"} else 0.2
    return made(name, SINGLE.get(name, "both"), modality_dropout=dropout).eval()


@pytest.mark.parametrize("name", NAMES)
def test_every_head_is_an_onnx_file(tmp_path: Path, name: str) -> None:
    head = small(name)
    file = export_head(head, tmp_path / "model.onnx")
    assert file.difference <= TOLERANCE
    session = onnxruntime.InferenceSession(str(file.path))
    batch = batch_of(4, seed=5)  # a batch that the export has not seen
    inputs = {role: batch.features[role].numpy() for role in head.config.roles}
    masks = {f"{role}_mask": batch.masks[role].numpy() for role in head.config.roles}
    (found,) = session.run(["probabilities"], {**inputs, **masks})
    torch.testing.assert_close(torch.from_numpy(found), predicted(head, batch).softmax(dim=1), atol=TOLERANCE, rtol=0)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(head.inputs.classes)
    assert {given.name for given in session.get_inputs()} == {*inputs, *masks}
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    onnx.checker.check_model(file.path, full_check=True)


def test_the_output_of_a_model_is_its_probabilities_or_its_values() -> None:
    logits = torch.randn(3, 2, generator=torch.Generator().manual_seed(1))
    scale = TargetScale(mean=(1.0, 20.0), std=(0.5, 100.0))
    torch.testing.assert_close(ModelOutput(None)(logits), logits.softmax(dim=1))
    np.testing.assert_allclose(ModelOutput(scale)(logits), scale.to_corpus(logits.numpy()), rtol=1e-5)
    assert (ModelOutput(None).tolerance, ModelOutput(scale).tolerance) == (TOLERANCE, 100 * TOLERANCE)


@pytest.mark.slow  # takes 5 to 15 seconds to trace
def test_values_are_on_the_scale_of_the_corpus(tmp_path: Path) -> None:
    head = small(QUICK)
    scale = TargetScale(mean=(1.0, 20.0, -3.0, 0.5), std=(0.5, 100.0, 1.0, 2.0))
    session = onnxruntime.InferenceSession(str(export_head(head, tmp_path / "model.onnx", scale).path))
    batch = batch_of(4, seed=5)
    inputs = {role: batch.features[role].numpy() for role in head.config.roles}
    masks = {f"{role}_mask": batch.masks[role].numpy() for role in head.config.roles}
    (found,) = session.run(["values"], {**inputs, **masks})
    np.testing.assert_allclose(found, scale.to_corpus(predicted(head, batch).numpy()), atol=0.01)


def test_a_gate_for_onnx_is_the_gate() -> None:
    gate = SlotGate((5, 7), activation="tanh")
    nn.init.normal_(gate.weight)
    for rows in ((3, 7), (5, 4), (9, 11)):
        x = torch.randn(3, sum(rows), 4)
        masks = [torch.arange(count) < torch.tensor([count, 1, 2])[:, None] for count in rows]
        torch.testing.assert_close(ExportableSlotGate(gate)(x, masks), gate(x, masks))


class Loud(nn.Module):
    """A module whose ONNX file differs from its reference."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, *tensors: Tensor) -> Tensor:
        """Returns the input times the factor."""
        return self.factor * tensors[0]


def test_a_file_that_differs_from_torch_is_not_kept(tmp_path: Path) -> None:
    def make(shape: tuple[int, int]) -> Sequence[Tensor]:
        return [torch.ones(shape)]

    with pytest.raises(MmerError, match=r"differs from torch by 5.0e-01, more than 0.0001; export without --onnx"):
        export_checked(
            Loud(1.5),
            tmp_path / "model.onnx",
            output=ModelOutput(None),
            reference=Loud(1.0),
            make_inputs=make,
            names=["x"],
            axes=[{0: "batch", 1: "rows"}],
            metadata={},
        )
    assert not list(tmp_path.iterdir())


class Unknown(nn.Module):
    """A module that cannot be traced."""

    def forward(self, *tensors: Tensor) -> Tensor:
        """Returns one of two values by the value of the input."""
        (x,) = tensors
        return x if bool(x.sum() > 3) else 2 * x


def test_a_module_that_cannot_be_exported_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MmerError, match="this model cannot be written as ONNX") as caught:
        export_checked(
            Unknown(),
            tmp_path / "model.onnx",
            output=ModelOutput(None),
            reference=Unknown(),
            make_inputs=lambda shape: [torch.ones(shape)],
            names=["x"],
            axes=[{0: "batch", 1: "rows"}],
            metadata={},
        )
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(MmerError, match=r"--onnx needs the packages onnx, .*pip install onnx onnxruntime onnxscript$"):
        onnx_head.check_packages()


def test_replacements_are_for_modules_of_heads() -> None:
    assert {RaggedGRU: ExportableGRU, SlotGate: ExportableSlotGate} == onnx_head.EXPORTABLE
