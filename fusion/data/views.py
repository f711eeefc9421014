"""Augmented views of utterances: the draw of one of several views, and views appended to a batch of the originals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from fusion.arrays import Indices
from fusion.head import Batch
from fusion.head_config import numbered_view, view_role

VIEW_DRAW = 0x71E3  # part of the random seed: separates these draws from those of batches


@dataclass(frozen=True, kw_only=True)
class ViewDraw:
    """The draw of one of several views of each utterance in one epoch.

    It depends on nothing else, so that every engine and a resumed training read the same views.

    Attributes:
        data_seed: random seed of the data, independent of the seed of the model.
        epoch: number of the epoch, counted from 1.
    """

    data_seed: int
    epoch: int

    def choose(self, role: str, present: npt.NDArray[np.bool_]) -> Indices:
        """Draws one of the views that each utterance has.

        Args:
            role: role of the views.
            present: True where an utterance has a view, bool ``(views, n)``.

        Returns:
            Index of a view for each utterance, int64 ``(n,)``; 0 for an utterance without views.
        """
        random = np.random.default_rng([self.data_seed, self.epoch, VIEW_DRAW, crc32(role.encode())])
        counts = present.sum(axis=0)
        ranks = (random.random(present.shape[1]) * counts).astype(np.int64)  # among the views that exist
        drawn: Indices = (present.cumsum(axis=0) == ranks + 1).argmax(axis=0)
        return drawn


def alternatives(streams: Mapping[str, str]) -> dict[str, list[str]]:
    """Groups streams by the role under which a head reads them; several views of one role are alternatives.

    Example:
        >>> alternatives({"text": "a", "text.view.2": "a~2", "text.view": "a~1"})
        {'text': ['a'], 'text.view': ['a~1', 'a~2']}
    """
    grouped: dict[str, list[str]] = {}
    for role in sorted(streams, key=lambda role: numbered_view(role)[1]):  # stable: roles keep their order
        grouped.setdefault(numbered_view(role)[0], []).append(streams[role])
    return grouped


def with_views(batch: Batch, roles: Sequence[str]) -> tuple[Batch, Tensor]:
    """Appends the augmented view of each utterance after all originals.

    A role without a stream of views is repeated unchanged. A modality that an utterance lacks is absent in its view
    too.

    Args:
        batch: originals, and views under the roles of `view_role`.
        roles: roles of the originals.

    Returns:
        A batch of twice the size with these roles, and a mask that is True if an utterance has a view of each of its
        modalities that have views, bool ``(batch,)``.
    """
    features, masks = dict(batch.features), dict(batch.masks)
    complete = torch.ones_like(batch.indices, dtype=torch.bool)
    changed = torch.zeros_like(complete)
    for role in roles:
        source = view_role(role) if view_role(role) in batch.features else role
        present = batch.masks[role].any(dim=1)
        mask = batch.masks[source] & present[:, None]
        features[role] = _concatenate(batch.features[role], batch.features[source])
        masks[role] = _concatenate(batch.masks[role], mask)
        if source != role:
            complete, changed = complete & (mask.any(dim=1) | ~present), changed | mask.any(dim=1)
    twice = replace(
        batch, features=features, masks=masks, labels=torch.cat([batch.labels] * 2), indices=batch.indices.repeat(2)
    )
    return twice, complete & changed


def _concatenate(originals: Tensor, views: Tensor) -> Tensor:
    """Concatenates originals and views, both padded to the longer.

    Args:
        originals: ``(batch, rows, ...)``.
        views: ``(batch, other rows, ...)``.
    """
    rows = max(originals.shape[1], views.shape[1])
    padded = [functional.pad(x, (0, 0) * (x.ndim - 2) + (0, rows - x.shape[1])) for x in (originals, views)]
    return torch.cat(padded)
