"""Complexity of a head for one utterance: parameters, bytes of input, memory and time of forward and backward.

Source: the table of GCF2-Net (doi:10.3389/fnins.2023.1183132), one utterance of 245 frames and 22 tokens. As there,
MB are 2^20 bytes, and the memory of forward and backward counts the outputs of all layers, once for their values and
once for their gradients.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cache.joined import AnyCache
from fusion.head import Batch, Head
from fusion.head_config import AUDIO, TEXT
from fusion.heads.build import count_parameters

ROWS: Mapping[str, int] = {AUDIO: 245, TEXT: 22}  # of the utterance of the paper
INTEGER_ROLES = frozenset({"codes", "tokens", "chars"})
REPEATS = 5  # passes that are timed, after one that is not
MB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """Cost of one utterance.

    Attributes:
        parameters: number of parameters that learn.
        parameter_bytes: their size.
        shapes: role -> shape of its rows.
        input_bytes: size of all rows in float32.
        pass_bytes: size of the outputs of all layers and of their gradients.
        forward_s: median time of a forward pass in seconds.
        backward_s: median time of a backward pass in seconds.
    """

    parameters: int
    parameter_bytes: int
    shapes: Mapping[str, tuple[int, ...]]
    input_bytes: int
    pass_bytes: int
    forward_s: float
    backward_s: float

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Each measured quantity and its value with its unit."""
        inputs = " + ".join(f"{' x '.join(map(str, shape))} ({role})" for role, shape in self.shapes.items())
        return [
            ("parameters", f"{self.parameters:,} ({self.parameter_bytes / MB:.2f} MB)"),
            ("input of one utterance", f"{inputs}: {self.input_bytes / MB:.2f} MB"),
            ("forward and backward, memory", f"{self.pass_bytes / MB:.2f} MB"),
            ("forward, time", f"{1000 * self.forward_s:.1f} ms"),
            ("backward, time", f"{1000 * self.backward_s:.1f} ms"),
        ]


def measure(head: Head, lengths: Mapping[str, int] = ROWS) -> Complexity:
    """Measures a head on one utterance of random rows, on the device of its weights.

    Args:
        head: built head.
        lengths: role -> number of rows; roles that are not named have as many rows as audio.
    """
    batch = _utterance(head, lengths)
    sizes: list[int] = []
    leaves = [module for module in head.modules() if not any(True for _ in module.children())]

    def count(module: nn.Module, given: Any, output: Any) -> None:
        tensors = output if isinstance(output, tuple) else (output,)
        sizes.extend(tensor.numel() * 4 for tensor in tensors if isinstance(tensor, Tensor))

    was_training = head.training
    head.eval()
    hooks = [leaf.register_forward_hook(count) for leaf in leaves]
    with torch.no_grad():
        head(batch)
    for hook in hooks:
        hook.remove()
    forward_s, backward_s = _timed(head, batch)
    head.train(was_training)
    parameters = [parameter for parameter in head.parameters() if parameter.requires_grad]
    shapes = {role: tuple(batch.features[role].shape[1:]) for role in head.config.roles}
    return Complexity(
        parameters=count_parameters(head),
        parameter_bytes=sum(parameter.numel() * parameter.element_size() for parameter in parameters),
        shapes=shapes,
        input_bytes=4 * sum(batch.features[role].numel() for role in head.config.roles),
        pass_bytes=2 * sum(sizes),
        forward_s=forward_s,
        backward_s=backward_s,
    )


def median_lengths(cache: AnyCache | None, streams: Mapping[str, str]) -> dict[str, int]:
    """Returns role -> rows of the measured utterance: those of the paper, of other roles the median in the cache."""
    lengths = dict(ROWS)
    for role, name in streams.items():
        if role not in lengths and cache is not None and name in cache.streams:
            lengths[role] = max(1, int(median(cache.stream(name).lengths)))
    return lengths


def _utterance(head: Head, lengths: Mapping[str, int]) -> Batch:
    device = next(head.parameters()).device
    random = torch.Generator().manual_seed(0)
    features, masks = {}, {}
    for role in head.config.roles:
        shape = (1, lengths.get(role, lengths[AUDIO]), *head.inputs.shapes[role])
        values = torch.randn(shape, generator=random)
        features[role] = torch.zeros(shape, dtype=torch.int64) if role in INTEGER_ROLES else values
        masks[role] = torch.ones(shape[:2], dtype=torch.bool)
    zero = torch.zeros(1, dtype=torch.int64)
    return Batch(features=features, masks=masks, labels=zero, indices=zero).to(device)


def _timed(head: Head, batch: Batch) -> tuple[float, float]:
    """Returns the median seconds of a forward and of a backward pass of the cross entropy."""
    forward, backward = [], []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        logits = head(batch).logits
        _wait(logits)
        middle = time.perf_counter()
        functional.cross_entropy(logits, batch.labels).backward()  # type: ignore[no-untyped-call]
        _wait(logits)
        forward.append(middle - start)
        backward.append(time.perf_counter() - middle)
        head.zero_grad(set_to_none=True)
    return median(forward[1:]), median(backward[1:])


def _wait(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
