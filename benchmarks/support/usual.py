"""The usual practice of training on features: one HDF5 dataset per utterance, batches padded as they come."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from benchmarks.support.iemocap import STREAMS
from cache.joined import AnyCache
from fusion.head import Batch, Head
from fusion.nn.dropout import set_step
from fusion.training.steps import TOTAL, optimizer_step, total_loss

CLIP = 1.0  # of the trainer

Rows = Mapping[str, Tensor]  # of one utterance, by role


def write_datasets(path: Path, cache: AnyCache) -> None:
    """Writes the rows of a cache as one HDF5 dataset per utterance and role."""
    with h5py.File(path, "w") as file:
        for role, name in STREAMS.items():
            for index in range(len(cache)):
                file.create_dataset(f"{role}/{index}", data=cache.stream(name).read(index))


def read_rows(file: h5py.File, index: int) -> Rows:
    """Reads what `write_datasets` has written of an utterance."""
    return {role: torch.from_numpy(file[f"{role}/{index}"][()]) for role in STREAMS}


def padded(every: Sequence[Rows], labels: Tensor, indices: Sequence[int]) -> Batch:
    """Pads utterances to the longest of them.

    Args:
        every: their rows.
        labels: of all utterances there are.
        indices: their places among them.
    """
    features, masks = {}, {}
    for role in STREAMS:
        rows = [one[role] for one in every]
        lengths = torch.tensor([len(one) for one in rows])
        joined = pad_sequence(rows, batch_first=True)
        features[role] = joined.long() if role == "chars" else joined.float()
        masks[role] = torch.arange(joined.shape[1]) < lengths[:, None]
    chosen = torch.tensor(indices)
    return Batch(features=features, masks=masks, labels=labels[chosen], indices=chosen)


def train_epoch(head: Head, batches: Iterator[Batch], optimizer: Any) -> None:
    """Takes one step for each batch."""
    head.train()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for step, batch in enumerate(batches):
        set_step(head, step)
        loss = total_loss(head(batch), batch.labels, head.config.loss_weights)[TOTAL]
        optimizer_step(loss, head, optimizer, scaler, clip=CLIP)
