"""Augmented views of utterances, read beside the originals."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from fusion.head import Batch


def view_role(role: str) -> str:
    """Names the role of the augmented view of a role."""
    return f"{role}.view"


def with_views(batch: Batch, roles: Sequence[str]) -> tuple[Batch, Tensor]:
    """Puts the augmented view of each utterance after all originals.

    A role without a stream of views stands in its view as it is; a modality that an utterance lacks is lacking in its
    view as well.

    Returns:
        A batch of twice the size with these roles, and where an utterance has a view of every modality that it has
        (of those that have views), bool ``(batch,)``.
    """
    features, masks = dict(batch.features), dict(batch.masks)
    whole, changed = torch.ones_like(batch.labels, dtype=torch.bool), torch.zeros_like(batch.labels, dtype=torch.bool)
    for role in roles:
        source = view_role(role) if view_role(role) in batch.features else role
        present = batch.masks[role].any(dim=1)
        mask = batch.masks[source] & present[:, None]
        features[role] = _stacked(batch.features[role], batch.features[source])
        masks[role] = _stacked(batch.masks[role], mask)
        if source != role:
            whole, changed = whole & (mask.any(dim=1) | ~present), changed | mask.any(dim=1)
    twice = replace(
        batch, features=features, masks=masks, labels=batch.labels.repeat(2), indices=batch.indices.repeat(2)
    )
    return twice, whole & changed


def _stacked(originals: Tensor, views: Tensor) -> Tensor:
    """Stacks ``(batch, rows, ...)`` upon ``(batch, other rows, ...)``, both padded to the longer."""
    rows = max(originals.shape[1], views.shape[1])
    return torch.cat([_padded(originals, rows), _padded(views, rows)])


def _padded(x: Tensor, rows: int) -> Tensor:
    return functional.pad(x, (0, 0) * (x.ndim - 2) + (0, rows - x.shape[1]))
