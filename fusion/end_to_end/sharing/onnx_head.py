"""Heads as ONNX files: features and masks in, probabilities out, for any number of utterances and rows.

Inputs are ``ROLE`` with ``(batch, ROLE_rows, ...)`` and ``ROLE_mask`` with bool ``(batch, ROLE_rows)`` for each role of
the head; the output is ``probabilities``, ``(batch, classes)``, or ``values`` on the scale of the corpus, ``(batch,
dimensions)``. Names of the classes or dimensions are in the metadata of the file.
"""

import copy
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch.nn import functional

from cache.errors import MmerError
from cache.files import replacing
from fusion.evaluation.dimensions import TargetScale
from fusion.head import Batch, Head
from fusion.heads.rescmfa import SlotGate, zero_padding
from fusion.nn.sequences import RaggedGRU, ragged

INTEGERS = frozenset({"codes", "tokens", "chars"})  # roles whose rows are not float32

TOLERANCE = 1e-4  # largest difference of a probability, or of a value of deviation 1, between onnxruntime and torch
EXPORTED = (3, 22)  # utterances and rows of the batch that is traced
SHAPES = ((1, 17), (5, 40), (2, 3))  # utterances and rows of the batches that are compared
PACKAGES = ("onnx", "onnxruntime", "onnxscript")


@dataclass(frozen=True, kw_only=True)
class OnnxFile:
    """An ONNX file that was compared with torch.

    Attributes:
        path: its path.
        difference: largest difference of an output from torch.
    """

    path: Path
    difference: float


class ModelOutput(nn.Module):
    """Last module of an exported model: turns outputs of the head into probabilities, or values on the corpus' scale.

    Args:
        scale: scale of the values; None for classes.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, scale: TargetScale | None) -> None:
        super().__init__()
        self.name = "probabilities" if scale is None else "values"
        self.tolerance = TOLERANCE * max((1.0, *(scale.std if scale else ())))
        self.scaled = scale is not None
        self.register_buffer("mean", torch.tensor(scale.mean if scale else ()))
        self.register_buffer("std", torch.tensor(scale.std if scale else ()))

    def forward(self, logits: Tensor) -> Tensor:
        """Returns probabilities or values, ``(batch, outputs)``."""
        return logits * self.std + self.mean if self.scaled else logits.softmax(dim=1)


def export_head(head: Head, path: Path, scale: TargetScale | None = None) -> OnnxFile:
    """Writes a trained head as an ONNX file and compares it with torch on padded batches.

    Args:
        head: trained head in eval mode, without encoders.
        path: file to write.
        scale: scale of the values of a head for dimensions; None for classes.

    Raises:
        MmerError: if a package is missing, or the head cannot be exported or computes something else as ONNX.
    """
    output = ModelOutput(scale)
    module, reference = _HeadOfTensors(exportable(head), output).eval(), _HeadOfTensors(head, output).eval()
    names = [*head.config.roles, *(f"{role}_mask" for role in head.config.roles)]
    axes = [_axes(role) for role in head.config.roles] * 2
    metadata = {"classes": json.dumps(list(head.inputs.classes)), "roles": json.dumps(list(head.config.roles))}
    return export_checked(
        module,
        path,
        output=output,
        reference=reference,
        make_inputs=lambda shape: _inputs(head, *shape),
        names=names,
        axes=axes,
        metadata=metadata,
    )


def export_checked(
    module: nn.Module,
    path: Path,
    *,
    output: ModelOutput,
    reference: nn.Module,
    make_inputs: Callable[[tuple[int, int]], Sequence[Tensor]],
    names: Sequence[str],
    axes: Sequence[Mapping[int, str]],
    metadata: Mapping[str, str],
) -> OnnxFile:
    """Writes a module that returns predictions as an ONNX file, if onnxruntime computes what torch computes.

    Args:
        module: module in eval mode.
        path: file to write.
        output: last part of the module, which names the output.
        reference: module with which the file is compared; the same, or that of which `module` is a copy for ONNX.
        make_inputs: returns the inputs of a padded batch, from its numbers of utterances and rows.
        names: names of the inputs.
        axes: for each input, axis -> name of its dynamic size.
        metadata: texts to keep in the file.

    Raises:
        MmerError: if a package is missing, or the module cannot be exported or computes something else as ONNX.
    """
    check_packages()
    program = _exported(module, tuple(make_inputs(EXPORTED)), names, axes, output=output.name)
    with replacing(path) as temporary:
        program.save(str(temporary))
        _add_metadata(temporary, metadata)
        difference = largest_difference(reference, temporary, names, [make_inputs(shape) for shape in SHAPES])
        if not difference <= output.tolerance:  # also for NaN
            raise MmerError(
                f"the ONNX file of {path.parent.name} differs from torch by {difference:.1e}, more than "
                f"{output.tolerance:g}; "
                "export without --onnx"
            )
    return OnnxFile(path=path, difference=difference)


def check_packages() -> None:
    """Checks that the packages of the extra ``onnx`` are installed.

    Raises:
        MmerError: if one is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MmerError(
            f"--onnx needs the packages {', '.join(PACKAGES)}; install them by pip install {' '.join(PACKAGES)}"
        ) from error


def largest_difference(
    module: nn.Module, path: Path, names: Sequence[str], batches: Sequence[Sequence[Tensor]]
) -> float:
    """Computes the largest difference between the outputs of onnxruntime and of torch.

    Args:
        module: module in eval mode.
        path: ONNX file.
        names: names of the inputs.
        batches: inputs of each batch.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    read = [given.name for given in session.get_inputs()]
    worst = 0.0
    for inputs in batches:
        with torch.no_grad():
            expected = module(*inputs).numpy()
        named = dict(zip(names, (tensor.numpy() for tensor in inputs), strict=True))
        (found,) = session.run(None, {name: named[name] for name in read})
        worst = max(worst, float(np.abs(found - expected).max()))
    return worst


class ExportableGRU(nn.Module):
    """A `RaggedGRU` without packed sequences, which ONNX lacks: the backward direction reads reversed rows.

    It is for tracing only.

    Args:
        trained: its weights.
    """

    def __init__(self, trained: RaggedGRU) -> None:
        super().__init__()
        self.gru = trained.gru

    def forward(self, streams: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Computes what `RaggedGRU.forward` computes."""
        rows, mask = ragged(streams)
        lengths = mask.sum(dim=1, keepdim=True).clamp(min=1)
        position = torch.arange(rows.shape[1], device=rows.device)[None]
        valid = position < lengths  # (batch, rows of all)
        reverse = torch.where(valid, lengths - 1 - position, position)
        forward = self._states(rows, "")
        backward = _taken(self._states(_taken(rows, reverse), "_reverse"), reverse)
        return torch.cat([forward, backward], dim=-1) * valid[..., None], mask

    def _states(self, rows: Tensor, direction: str) -> Tensor:
        """Computes the states of a direction, ``(batch, rows, hidden)`` (Cho et al., 2014, arXiv:1406.1078)."""
        weights: Any = self.gru
        inner, inner_bias = getattr(weights, f"weight_hh_l0{direction}"), getattr(weights, f"bias_hh_l0{direction}")
        outer, outer_bias = getattr(weights, f"weight_ih_l0{direction}"), getattr(weights, f"bias_ih_l0{direction}")
        steps = functional.linear(rows, outer, outer_bias).transpose(0, 1)  # (rows, batch, 3 * hidden)

        def step(state: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
            reset_x, update_x, new_x = given.chunk(3, dim=-1)
            reset_h, update_h, new_h = functional.linear(state, inner, inner_bias).chunk(3, dim=-1)
            update = torch.sigmoid(update_x + update_h)
            new = torch.tanh(new_x + torch.sigmoid(reset_x + reset_h) * new_h)
            following = new + update * (state - new)
            return following, following.clone()

        start = rows.new_zeros(rows.shape[0], weights.hidden_size)
        states: Tensor = scan(step, start, steps)[1]
        return states.transpose(0, 1)


class ExportableSlotGate(nn.Module):
    """A `SlotGate` that has one computation for all numbers of rows, without a branch that tracing would fix.

    Args:
        trained: its weights.
    """

    def __init__(self, trained: SlotGate) -> None:
        super().__init__()
        self.slots, self.offsets, self.activation = trained.slots, trained.offsets, trained.activation
        self.weight, self.bias = trained.weight, trained.bias

    def forward(self, x: Tensor, masks: Sequence[Tensor]) -> Tensor:
        """Computes what `SlotGate.forward` computes."""
        positions = [torch.arange(mask.shape[1], device=mask.device) for mask in masks]
        held = list(zip(positions, self.slots, self.offsets, strict=True))
        index = torch.cat([offset + position.clamp(max=slots - 1) for position, slots, offset in held])
        within = torch.cat([position < slots for position, slots, _ in held])
        weight = self.weight[index][:, index] * within  # (rows, rows); rows beyond the slots are not read
        gate = self.activation(self.bias[index][:, None] + weight @ zero_padding(x, masks))
        return torch.where(within[:, None], gate, torch.ones_like(gate))


class _HeadOfTensors(nn.Module):
    """A head with tensors as inputs: the features of all roles, then their masks."""

    def __init__(self, head: Head, output: ModelOutput) -> None:
        super().__init__()
        self.head, self.output = head, output

    def forward(self, *tensors: Tensor) -> Tensor:
        """Returns probabilities or values, ``(batch, outputs)``."""
        roles = self.head.config.roles
        features, masks = tensors[: len(roles)], tensors[len(roles) :]
        index = torch.zeros(tensors[0].shape[0], dtype=torch.int64)  # labels and indices are not read in eval mode
        batch = Batch(
            features=dict(zip(roles, features, strict=True)),
            masks=dict(zip(roles, masks, strict=True)),
            labels=index,
            indices=index,
        )
        predictions: Tensor = self.output(self.head(batch).logits)
        return predictions


# Module that ONNX cannot express -> module with its weights that computes the same.
EXPORTABLE: Mapping[type[nn.Module], Callable[[Any], nn.Module]] = {
    RaggedGRU: ExportableGRU,
    SlotGate: ExportableSlotGate,
}


def exportable(head: Head) -> Head:
    """Returns a copy of a head whose modules ONNX can express; the copy computes the same."""
    copied = copy.deepcopy(head)
    for name, module in list(copied.named_modules()):
        for kind, replacement in EXPORTABLE.items():
            if isinstance(module, kind):
                copied.set_submodule(name, replacement(module))
    return copied.eval()


def _inputs(head: Head, count: int, rows: int) -> list[Tensor]:
    """Draws the features of a padded batch and their masks; each role has another number of rows."""
    random = torch.Generator().manual_seed(count)
    features, masks = [], []
    for number, role in enumerate(head.config.roles):
        length = rows + 3 * number
        shape = (count, length, *head.inputs.shapes[role])
        drawn = torch.randn(shape, generator=random)
        lengths = torch.randint(1, length + 1, (count,), generator=random)
        lengths[0] = length
        if number and count > 1 and head.config.modality_dropout:
            lengths[-1] = 0
        features.append(drawn.abs().long() if role in INTEGERS else drawn)
        masks.append(torch.arange(length) < lengths[:, None])
    return [*features, *masks]


def _axes(role: str) -> dict[int, str]:
    return {0: "batch", 1: f"{role}_rows"}


def _exported(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    names: Sequence[str],
    axes: Sequence[Mapping[int, str]],
    *,
    output: str,
) -> Any:
    """Traces a module with dynamic sizes."""
    shapes = tuple(dict.fromkeys(held, torch.export.Dim.DYNAMIC) for held in axes)
    try:
        with _quiet(), torch.no_grad():
            return torch.onnx.export(
                module,
                inputs,
                input_names=list(names),
                output_names=[output],
                dynamic_shapes=(shapes,),
                dynamo=True,
                optimize=False,
                verbose=False,
            )
    except (RuntimeError, TypeError, ValueError, AssertionError, AttributeError, LookupError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise MmerError(f"this model cannot be written as ONNX ({reason}); export without --onnx") from error


def _add_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _taken(rows: Tensor, index: Tensor) -> Tensor:
    """Returns rows ``(batch, rows, dim)`` in the order of an index, int64 ``(batch, rows)``."""
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[-1]))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter of torch from logging and warning about packages and shapes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
