"""A source of batches that lie in memory, without a cache."""

from collections.abc import Collection, Generator, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fusion.arrays import Indices
from fusion.data.views import ViewDraw
from fusion.head import Batch


class MemorySource:
    """A `fusion.data.features.BatchSource` over small tensors.

    Args:
        rows: role -> rows of every utterance, ``(rows, ...)`` each.
        labels: class of every utterance, int64 ``(n,)``.
    """

    def __init__(self, rows: Mapping[str, Sequence[Tensor]], labels: npt.NDArray[np.int64]) -> None:
        self.rows, self.labels, self.device = rows, labels, torch.device("cpu")
        self.ids = [f"u{index}" for index in range(len(labels))]

    def lengths(self, indices: Indices, roles: Collection[str]) -> Indices:
        """Returns the number of rows of each utterance, summed over roles."""
        return np.array([sum(len(self.rows[role][index]) for role in roles) for index in indices], dtype=np.int64)

    def batches(
        self, groups: Iterable[Indices], roles: Collection[str], draw: ViewDraw | None = None
    ) -> Generator[Batch]:
        """Yields a batch for each group of indices; every utterance has one view at most, so nothing is drawn."""
        for indices in groups:
            rows = {role: [self.rows[role][index] for index in indices] for role in self.rows if role in roles}
            lengths = {role: torch.tensor([len(one) for one in every]) for role, every in rows.items()}
            yield Batch(
                features={role: pad_sequence(every, batch_first=True) for role, every in rows.items()},
                masks={role: torch.arange(int(count.max()))[None] < count[:, None] for role, count in lengths.items()},
                labels=torch.from_numpy(self.labels[indices]),
                indices=torch.from_numpy(indices),
            )

    def describe(self) -> str:
        """Returns a text for the user that states where the data is."""
        return f"{len(self.ids)} utterances in memory"

    def identity(self, roles: Collection[str]) -> Mapping[str, str]:
        """Returns a text for each role that differs where its rows differ."""
        return {role: "memory" for role in self.rows if role in roles}

    def nonfinite_text(self, index: int, role: str) -> str:
        """Returns the error text for an utterance with features that are not finite."""
        return f"{role} of utterance {self.ids[index]} in memory is not finite"
