"""What `bench_grid` compares our engines with: the usual practice, and a process for each combination."""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import torch

class Usual:
    """The usual practice: one model after another, all utterances read anew from one dataset each, random batches.

    Args:
        folder: where the datasets are.
        case: what to train.
        groups: the batches, as places among the utterances.
        dev: places of the utterances to choose the epoch on.
        plan: of a run over utterances with the same streams.
    """

    def __init__(
        self, folder: Path, case: Case, groups: Sequence[Sequence[int]], dev: Sequence[int], plan: Plan
    ) -> None:
        self.path, self.case, self.device = folder / "usual.h5", case, torch.device(case.device)
        self.groups, self.dev, self.inputs = groups, dev, plan.inputs
        count = 1 + max(*itertools.chain(*groups), *dev)
        self.labels = torch.arange(count) % len(plan.inputs.classes)

    def __call__(self, *, longest: bool = False) -> Taken:
        """Trains some models; their batches come in another order in every epoch."""
        every = [self._train(fields, self.groups[-1:] if longest else self.groups) for fields in self._chosen]
        return replace(
            every[0],
            models=len(every),
            start_s=float(np.mean([one.start_s for one in every])),
            train_s=float(np.mean([one.train_s for one in every])),
        )

    @property
    def _chosen(self) -> list[Fields]:
        return self.case.fields[: self.case.alone]

    def _train(self, fields: Fields, groups: Sequence[Sequence[int]]) -> Taken:
        began = time.perf_counter()
        config, training = configure(HEAD, fields)
        head = build_head(HEAD, config, self.inputs, seed=0).to(self.device)
        optimizer = torch.optim.AdamW(head.parameters(), lr=training.lr, weight_decay=training.weight_decay)
        with h5py.File(self.path, "r") as file:
            rows = {index: read_rows(file, index) for index in {*itertools.chain(*groups), *self.dev}}
        ready = time.perf_counter()
        for epoch in range(training.epochs):
            order = np.random.default_rng(epoch).permutation(len(groups)).tolist()
            train_epoch(head, (self._batch(rows, groups[place]) for place in order), optimizer)
            self._score(head, rows)
        seconds = time.perf_counter() - ready
        read = sum(len(rows[index][role]) for group in groups for index in group for role in ROWS)
        return Taken(models=1, start_s=ready - began, train_s=seconds, rows=training.epochs * read)

    def _batch(self, rows: Mapping[int, Rows], indices: Sequence[int]) -> Any:
        return padded([rows[index] for index in indices], self.labels, indices).to(self.device)

    def _score(self, head: Any, rows: Mapping[int, Rows]) -> None:
        head.eval()
        with torch.no_grad():
            dev_scores(head(self._batch(rows, self.dev)).logits.cpu(), self.labels[list(self.dev)].numpy())
