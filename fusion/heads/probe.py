"""Linear probe: logistic regression of scikit-learn over pooled rows; what every other head must beat.

The rows of each modality are pooled to mean and standard deviation, and each dimension of the pooled vectors is scaled
to mean 0 and variance 1 over the training subset. The inverse strength of the L2 penalty, C, is chosen on the
development subset. Nothing is random.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fusion.arrays import ClassIds
from fusion.head import Batch, FittedHead, HeadOutput
from fusion.head_config import HeadInputs
from fusion.heads.configs.baselines import ProbeConfig
from fusion.heads.pooling import pooled_mask
from fusion.nn.layers import Pool, pooled_width

MOST_ITERATIONS = 1000
LEAST_SCALE = 1e-12  # a dimension that is constant over the training subset stays 0


class Probe(FittedHead):
    """Logistic regression over the pooled rows of one modality or of both; layers of a stacked stream are averaged."""

    config_class = ProbeConfig
    config: ProbeConfig
    candidates = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    candidate_name = "C"

    def __init__(self, config: ProbeConfig, inputs: HeadInputs) -> None:
        super().__init__(config, inputs)
        self.pools = nn.ModuleDict(
            {role: Pool(inputs.shapes[role][-1], kind=config.pooling, learned=False) for role in config.branches}
        )
        width = sum(pooled_width(inputs.shapes[role][-1], config.pooling) for role in config.branches)
        self.center = nn.Buffer(torch.zeros(width))
        self.scale = nn.Buffer(torch.ones(width))
        self.classifier = nn.Linear(width, len(inputs.classes))

    def forward(self, batch: Batch) -> HeadOutput:
        """Computes logits ``(batch, classes)``."""
        vectors = (self.vectors(batch) - self.center) * self.scale
        return HeadOutput(self.classifier(vectors), embedding=vectors)

    def vectors(self, batch: Batch) -> Tensor:
        """Pools the rows of each modality, ``(batch, width)``."""
        if batch.pooled:
            return torch.cat([batch.features[role][:, 0] for role in self.pools], dim=-1)
        return torch.cat([self.pool_role(role, batch)[0] for role in self.pools], dim=-1)

    @property
    def early_pooling(self) -> dict[str, str]:
        """The pooling of every modality: nothing is learned before it."""
        pooling, tokens = self.config.pooling, self.config.history_pool
        return dict.fromkeys(self.pools, f"{pooling} of averaged layers, 0 without rows, over {tokens}")

    def pool_role(self, role: str, batch: Batch) -> tuple[Tensor, Tensor]:
        """Pools the rows of a modality, ``(batch, width)``; 0 for an utterance without a row to pool."""
        rows, mask = batch.features[role], pooled_mask(batch, role, self.config.history_pool)
        pooled: Tensor = self.pools[role](rows.mean(dim=2) if rows.dim() == 4 else rows, mask)
        return pooled, mask.any(dim=1)

    def fit(self, vectors: npt.NDArray[np.float64], labels: ClassIds, candidate: float, *, balanced: bool) -> None:
        """Fits the classifier to the vectors of the training subset, for one value of C."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        center, deviation = vectors.mean(axis=0), vectors.std(axis=0)
        scale = np.where(deviation > LEAST_SCALE, 1 / np.maximum(deviation, LEAST_SCALE), 0.0)
        weights = "balanced" if balanced else None
        regression: Any = LogisticRegression(C=candidate, max_iter=MOST_ITERATIONS, class_weight=weights)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a weak penalty on separable classes has no optimum
            regression.fit((vectors - center) * scale, labels)
        self._set({"center": center, "scale": scale}, regression)

    def _set(self, scaling: Mapping[str, npt.NDArray[np.float64]], regression: Any) -> None:
        weight = np.zeros(tuple(self.classifier.weight.shape))
        bias = np.full(len(weight), -np.inf if len(regression.classes_) < len(weight) else 0.0)
        coefficients, intercepts = regression.coef_, regression.intercept_
        if len(regression.classes_) == 2:  # scikit-learn keeps one row, the difference of the two
            coefficients = np.concatenate([-coefficients, coefficients]) / 2
            intercepts = np.concatenate([-intercepts, intercepts]) / 2
        weight[regression.classes_], bias[regression.classes_] = coefficients, intercepts
        with torch.no_grad():
            for name, values in scaling.items():
                self.get_buffer(name).copy_(torch.from_numpy(values))
            self.classifier.weight.copy_(torch.from_numpy(weight))
            self.classifier.bias.copy_(torch.from_numpy(np.maximum(bias, -1e4)))  # a class without training data
