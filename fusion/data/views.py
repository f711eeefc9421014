"""Augmented views of utterances, appended to a batch of the originals."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from fusion.head import Batch
from fusion.head_config import view_role


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
    complete = torch.ones_like(batch.labels, dtype=torch.bool)
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
        batch, features=features, masks=masks, labels=batch.labels.repeat(2), indices=batch.indices.repeat(2)
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
