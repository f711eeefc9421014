"""The matmul floor: how long bare matrix products of an encoder's own shapes take for as many operations."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import Wav2Vec2Config, Wav2Vec2Model

from featurize.encoders.padding import conv_lengths


def count_flops(samples: Sequence[int]) -> int:
    """Counts the floating point operations of a base-size wav2vec 2.0 on utterances of these lengths."""
    with torch.device("meta"):  # shapes alone are counted, nothing is computed
        model = Wav2Vec2Model(Wav2Vec2Config())
        model.set_attn_implementation("eager")  # fused attention is not counted on this device
        inputs = [torch.empty(1, count) for count in samples]
    model.train(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for values in inputs:
            model(values)
    return int(counter.get_total_flops())


class MatrixProducts:
    """The products of an encoder's dense layers and convolutions, with its own weights and row counts.

    Attention, the grouped positional convolution and the first convolution are left out, some 6% of all operations:
    their products are too narrow to run at the machine's full speed.

    Args:
        model: base model.
        samples: length of each utterance.
    """

    def __init__(self, model: Wav2Vec2Model, samples: Sequence[int]) -> None:
        stack: Any = model.feature_extractor.conv_layers
        convolutions = [layer.conv for layer in stack]
        self._after = [_unfolded(one) for one in convolutions[1:]]  # (inner, outer) each
        dense = [module for module in model.encoder.layers.modules() if isinstance(module, nn.Linear)]
        self._dense = [one.weight.detach().t() for one in (model.feature_projection.projection, *dense)]
        config = model.config
        self._rows = [conv_lengths(count, config.conv_kernel, config.conv_stride) for count in samples]
        most = max(rows[1] for rows in self._rows)
        weights = [*self._after, *self._dense]
        self._inputs = {inner: torch.randn(most, inner) for inner in {weight.shape[0] for weight in weights}}
        self._outputs = {outer: torch.empty(most, outer) for outer in {weight.shape[1] for weight in weights}}

    @property
    def flops(self) -> int:
        """Operations of one run, a multiplication and an addition counted apart."""
        return sum(2 * rows * weight.shape[0] * weight.shape[1] for rows, weight in self._products())

    def run(self) -> None:
        """Multiplies everything once."""
        with torch.inference_mode():
            for rows, weight in self._products():
                inner, outer = weight.shape
                torch.mm(self._inputs[inner][:rows], weight, out=self._outputs[outer][:rows])

    def _products(self) -> list[tuple[int, Tensor]]:
        return [
            pair
            for rows in self._rows
            for pair in (*zip(rows[1:], self._after, strict=True), *((rows[-1], weight) for weight in self._dense))
        ]


def _unfolded(convolution: nn.Conv1d) -> Tensor:
    return convolution.weight.detach().flatten(1).t()
