"""Trainable label embeddings: one row per class, and how like each vector of an utterance is to it."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from cache.errors import MmerError
from fusion.head import AUDIO, TEXT, HeadInputs, Weights

OFF, RANDOM, FROM_TEXT, CODEBOOK = "off", "random", "text", "codebook"
TONAL_LABELS = (OFF, RANDOM, FROM_TEXT, CODEBOOK)
CONTRASTIVE, LIFT = "contrastive", "lift"
TONAL_SPACES = (CONTRASTIVE, LIFT)
QUANTIZER = ("codevectors", "project_q.weight", "project_q.bias", "project_hid.weight", "project_hid.bias")


class LabelEmbeddings(nn.Module):
    """One trainable row per class, compared with vectors by cosine.

    Args:
        classes: how many.
        width: of a row.
        lift: takes the rows to the space they are compared in; None where they lie there.
        project: takes the vectors to that space; None where they lie there.
    """

    def __init__(
        self, classes: int, width: int, *, lift: nn.Linear | None = None, project: nn.Linear | None = None
    ) -> None:
        super().__init__()
        # As large as a layer-normed vector: no cosine depends on it, but the pace of learning does
        self.rows = nn.Parameter(torch.randn(classes, width))
        self.lift = lift or nn.Identity()
        self.project = project or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Returns the cosine of each vector with each label, ``(batch, rows, classes)``."""
        return functional.normalize(self.project(x), dim=-1) @ functional.normalize(self.vectors(), dim=-1).T

    def vectors(self) -> Tensor:
        """Gives the label of each class where it is compared, ``(classes, dim)``."""
        lifted: Tensor = self.lift(self.rows)
        return lifted

    @torch.no_grad()
    def start(self, rows: Iterable[npt.NDArray[np.float64] | None]) -> None:
        """Sets the row of each class, ``(width,)``; None leaves it at random."""
        for place, row in enumerate(rows):
            if row is not None:
                self.rows[place] = torch.from_numpy(row).to(self.rows)


def tonal_embeddings(inputs: HeadInputs, *, source: str, space: str, trained: bool) -> LabelEmbeddings:
    """Builds the labels that frames are compared with.

    In the ``contrastive`` space frames pass `project_hid`, as in pre-training, where frames and codes are compared by
    their cosine; ``lift`` brings the labels to the space of the frames.

    Args:
        inputs: what the head is built from; `source` ``text`` needs the shape of text too.
        source: what the rows start from, ``random``, ``text`` or ``codebook``.
        space: ``contrastive`` or ``lift``.
        trained: whether `project_hid` is trained too.

    Raises:
        MmerError: if the weights of the quantizer are needed and not there, or not for frames of this width.
    """
    weights, dim = inputs.weights.get(AUDIO, {}), inputs.shapes[AUDIO][-1]
    if source == CODEBOOK or space == CONTRASTIVE:
        _check_quantizer(weights, dim)
    project = pretrained(weights, "project_hid").requires_grad_(trained) if space == CONTRASTIVE else None
    target = dim if project is None else project.out_features
    lift = None
    if source == FROM_TEXT:
        lift = nn.Linear(inputs.shapes[TEXT][-1], target, bias=False)
        nn.init.orthogonal_(lift.weight)  # keeps what the rows tell of each other, as far as the width allows
    elif source == CODEBOOK and project is None:
        inverse = np.linalg.pinv(weights["project_hid.weight"].astype(np.float64))
        lift = nn.Linear(inverse.shape[1], dim, bias=False)
        lift.weight.data.copy_(torch.from_numpy(inverse))
    width = target if lift is None else lift.in_features
    return LabelEmbeddings(len(inputs.classes), width, lift=lift, project=project)


def codebook_rows(vectors: npt.NDArray[np.float64], weights: Weights, space: str) -> npt.NDArray[np.float64]:
    """Takes mean codevectors ``(classes, codevector dim)`` to the rows that labels start from.

    Those are what `project_q` makes of them; to be lifted by the inverse of `project_hid`, they lose its bias.
    """
    projected = vectors @ weights["project_q.weight"].T + weights["project_q.bias"]
    rows: npt.NDArray[np.float64] = projected if space == CONTRASTIVE else projected - weights["project_hid.bias"]
    return rows


def pretrained(weights: Weights, name: str) -> nn.Linear:
    """Builds a linear layer of the weights in the cache."""
    weight = torch.from_numpy(np.asarray(weights[f"{name}.weight"], dtype=np.float32))
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.weight.data.copy_(weight)
    linear.bias.data.copy_(torch.from_numpy(np.asarray(weights[f"{name}.bias"], dtype=np.float32)))
    return linear


def _check_quantizer(weights: Weights, dim: int) -> None:
    missing = [name for name in QUANTIZER if name not in weights]
    if missing:
        raise MmerError(
            f"label-guided needs the quantizer of its audio encoder, and the cache lacks {missing[0]}; run "
            "`mmer-featurize CORPUS --encoder wav2vec2-base` or set tonal_labels=off"
        )
    width = weights["project_hid.weight"].shape[1]
    if width != dim:
        raise MmerError(
            f"frames are {dim} wide and the quantizer of their encoder takes {width}; run "
            "`mmer-featurize CORPUS --encoder wav2vec2-base` or set tonal_labels=off"
        )
