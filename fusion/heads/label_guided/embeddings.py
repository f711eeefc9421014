"""Trainable label embeddings of LE-MER: one row per class, compared with each row of an utterance by cosine.

Source: LE-MER (Wang et al., 2023, arXiv:2309.02106), section 2.2. Deviations (docs/decisions.md#le-mer): label
embeddings are parameters that are trained (L-2); frames and labels of speech are compared in the space of the
quantizer's contrastive pre-training, or labels are mapped to the width of the frames (L-5).
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from cache.errors import MmerError
from fusion.head_config import AUDIO, TEXT, HeadInputs, Weights
from fusion.heads.configs.label_guided import CODEBOOK, CONTRASTIVE, FROM_TEXT

QUANTIZER = ("codevectors", "project_q.weight", "project_q.bias", "project_hid.weight", "project_hid.bias")


class LabelEmbeddings(nn.Module):
    """One trainable row per class, compared with the rows of an utterance by cosine.

    Args:
        classes: number of classes.
        width: width of the row of a class.
        lift: map of these rows to the space of comparison; None if they are in that space.
        project: map of the rows of an utterance to that space; None if they are in that space.
    """

    def __init__(
        self, classes: int, width: int, *, lift: nn.Linear | None = None, project: nn.Linear | None = None
    ) -> None:
        super().__init__()
        # The length is that of a layer-normed vector: it does not change the cosine, but the speed of learning
        self.rows = nn.Parameter(torch.randn(classes, width))
        self.lift = lift or nn.Identity()
        self.project = project or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Computes the cosine of each row ``(batch, rows, dim)`` with each label, ``(batch, rows, classes)``."""
        return functional.normalize(self.project(x), dim=-1) @ functional.normalize(self.vectors(), dim=-1).T

    def vectors(self) -> Tensor:
        """Returns the label of each class in the space of comparison, ``(classes, dim)``."""
        lifted: Tensor = self.lift(self.rows)
        return lifted

    @torch.no_grad()
    def initialize(self, rows: Iterable[npt.NDArray[np.float64] | None]) -> None:
        """Sets the row of each class, float64 ``(width,)``; None keeps its random values."""
        for index, row in enumerate(rows):
            if row is not None:
                self.rows[index] = torch.from_numpy(row).to(self.rows)


def tonal_embeddings(inputs: HeadInputs, *, source: str, space: str, trained: bool) -> LabelEmbeddings:
    """Builds the label embeddings of speech (L-5).

    In the ``contrastive`` space frames pass `project_hid`, as in pre-training, which compares frames and codes by their
    cosine; ``lift`` maps the labels to the space of the frames.

    Args:
        inputs: description of the data; `source` ``text`` needs the shape of text too.
        source: start of the rows, ``random``, ``text`` or ``codebook``.
        space: space of comparison, ``contrastive`` or ``lift``.
        trained: whether `project_hid` is trained too.

    Raises:
        MmerError: if the weights of the quantizer are needed but missing, or are for frames of another width.
    """
    weights, dim = inputs.weights.get(AUDIO, {}), inputs.shapes[AUDIO][-1]
    if source == CODEBOOK or space == CONTRASTIVE:
        _check_quantizer(weights, dim)
    project = pretrained_linear(weights, "project_hid").requires_grad_(trained) if space == CONTRASTIVE else None
    target = dim if project is None else project.out_features
    lift = None
    if source == FROM_TEXT:
        lift = nn.Linear(inputs.shapes[TEXT][-1], target, bias=False)
        nn.init.orthogonal_(lift.weight)  # keeps the cosines between rows, as far as the width allows
    elif source == CODEBOOK and project is None:
        inverse = np.linalg.pinv(weights["project_hid.weight"].astype(np.float64))
        lift = nn.Linear(inverse.shape[1], dim, bias=False)
        lift.weight.data.copy_(torch.from_numpy(inverse))
    width = target if lift is None else lift.in_features
    return LabelEmbeddings(len(inputs.classes), width, lift=lift, project=project)


def codebook_rows(vectors: npt.NDArray[np.float64], weights: Weights, space: str) -> npt.NDArray[np.float64]:
    """Computes the rows from which labels of speech start.

    Args:
        vectors: mean codevector of each class, float64 ``(classes, codevector dim)``.
        weights: weights of the quantizer.
        space: ``contrastive`` or ``lift``.

    Returns:
        Output of `project_q`, float64 ``(classes, dim)``. For ``lift``, which applies the inverse of `project_hid`, the
        bias of `project_hid` is subtracted.
    """
    projected = vectors @ weights["project_q.weight"].T + weights["project_q.bias"]
    rows: npt.NDArray[np.float64] = projected if space == CONTRASTIVE else projected - weights["project_hid.bias"]
    return rows


def pretrained_linear(weights: Weights, name: str) -> nn.Linear:
    """Builds a linear layer from weights in the cache."""
    weight = torch.from_numpy(np.asarray(weights[f"{name}.weight"], dtype=np.float32))
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.weight.data.copy_(weight)
    linear.bias.data.copy_(torch.from_numpy(np.asarray(weights[f"{name}.bias"], dtype=np.float32)))
    return linear


def _check_quantizer(weights: Weights, dim: int) -> None:
    missing = [name for name in QUANTIZER if name not in weights]
    if missing:
        raise MmerError(
            f"label-guided needs the quantizer of its audio encoder, but the cache lacks {missing[0]}; run "
            "mmer-featurize for this cache with --encoder wav2vec2-base, or pass --set tonal_labels=off"
        )
    width = weights["project_hid.weight"].shape[1]
    if width != dim:
        raise MmerError(
            f"frames are {dim} wide, but the quantizer of their encoder expects {width}; run "
            "mmer-featurize for this cache with --encoder wav2vec2-base, or pass --set tonal_labels=off"
        )
