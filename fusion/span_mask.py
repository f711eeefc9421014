"""Hides spans of rows in training, as SpecAugment does along time (Park et al., 2019, arXiv:1904.08779).

On cached features a hidden row is 0. Which rows are hidden follows from (seed, step, site), as the masks of dropout do.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fusion.dropout import Dropout

SPAN = 10  # rows of a span, 0.2 s of wav2vec 2.0, as in its own fine-tuning (arXiv:2006.11477, appendix B)


class SpanMask(nn.Module):
    """Hides a share of the rows, in spans of ten that may overlap; eval mode passes everything.

    Args:
        share: of the rows that are hidden on average, in [0, 1).
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        if not 0 <= share < 1:
            raise ValueError(f"span_mask must lie in [0, 1), got {share}")
        self.starting = 1 - (1 - share) ** (1 / SPAN)  # a row is seen if no span began at it or at nine before it
        self.draws = Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``x`` with rows hidden, ``(batch, rows, ...)``."""
        if not self.training or not self.starting:
            return x
        room = functional.pad(x.flatten(2)[..., 0], (SPAN - 1, 0))  # spans may begin before the first row
        begun = (self.draws.uniform(room) < self.starting).cumsum(dim=1)
        hidden = begun[:, SPAN - 1 :] > functional.pad(begun, (1, 0))[:, : x.shape[1]]
        return torch.where(hidden.view(*hidden.shape, *[1] * (x.ndim - 2)), 0.0, x)
