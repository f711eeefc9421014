"""Pooled rows of a modality: from the rows of a batch, or from vectors that were pooled before training.

Where nothing random or learned changes the rows of an utterance before they are pooled, training pools them once and
reads vectors in every epoch.
"""

from collections.abc import Callable, Mapping
from hashlib import blake2b

import torch
from torch import Tensor

from fusion.head import Batch
from fusion.head_config import OWN, TEXT, TOKENS
from fusion.nn.layers import POOLING, InputProjection, Pool, Standardize

Change = Callable[[Tensor, Tensor], Tensor]  # rows and mask -> rows, before the scaling


class RolePooling:
    """The pooling of one role of a head, over the head's own modules.

    Args:
        role: the role.
        front: path from cached rows to the width of the head.
        pool: pooling of the rows.
        history_pool: ``own`` if text is pooled over the tokens of the current turn, ``all`` otherwise.
        change: function of rows and mask that is applied first, such as a normalization; None for none.
    """

    def __init__(
        self, role: str, front: InputProjection, pool: Pool, *, history_pool: str, change: Change | None = None
    ) -> None:
        self.role, self.front, self.pool, self.change = role, front, pool, change
        self.history_pool = history_pool

    def mask(self, batch: Batch) -> Tensor:
        """Returns True for each row that is pooled, bool ``(batch, rows)``."""
        return pooled_mask(batch, self.role, self.history_pool)

    def vectors(self, batch: Batch) -> Tensor:
        """Computes ``(batch, width)`` from the rows of a batch, or from its vectors if it is pooled."""
        x = batch.features[self.role]
        if batch.pooled:
            return self.pool.filled(x[:, 0], batch.masks[self.role][:, 0])
        mask = self.mask(batch)
        vectors: Tensor = self.pool(self.front(self.change(x, mask) if self.change else x), mask)
        return vectors

    @property
    def key(self) -> str:
        """Text that decides the pooled vectors; empty if rows pass a learned layer first."""
        if self.pool.scores is not None or self.front.learns:
            return ""
        scaling = self.front.scaling
        scales = _digest(scaling.mean, scaling.scale) if isinstance(scaling, Standardize) else ""
        changed = self.change.__name__ if self.change else ""
        tokens = self.history_pool if self.role == TEXT else ""
        return " ".join([self.pool.kind, "changed", changed, "scaled", scales, "over", tokens])

    def pooled(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Pools rows before training: ``(batch, width)`` and bool ``(batch,)``; see `Head.pool_role`."""
        x, mask = batch.features[self.role], self.mask(batch)
        scaled = self.front.scaling(self.change(x, mask) if self.change else x)
        return POOLING[self.pool.kind](scaled, mask), mask.any(dim=1)


def pooled_mask(batch: Batch, role: str, history_pool: str) -> Tensor:
    """Returns True for each row of a role that is pooled, bool ``(batch, rows)``.

    Of a text stream with history these are the tokens of the current turn, whose spans in its ``.tokens`` are not
    empty; special tokens have empty spans too. An utterance whose turn has no words has no row to pool.
    """
    mask = batch.masks[role]
    if role != TEXT or history_pool != OWN:
        return mask
    spans = batch.features[TOKENS]
    return mask & batch.masks[TOKENS] & (spans[..., 2] > spans[..., 1])


def united_keys(poolings: Mapping[str, RolePooling]) -> dict[str, str]:
    """Returns role -> key; empty if one of the roles cannot be pooled before training."""
    keys = {role: pooling.key for role, pooling in poolings.items()}
    return keys if all(keys.values()) else {}


def _digest(*tensors: Tensor) -> str:
    digest = blake2b(digest_size=8)
    for tensor in tensors:
        digest.update(tensor.detach().to(torch.float32).cpu().numpy().tobytes())
    return digest.hexdigest()
