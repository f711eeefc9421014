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
import torch
from torch import nn

from benchmarks.support.arm import Peak
from benchmarks.support.grid_case import EPOCHS, HEAD, PROTOCOL, ROLES, Case, Taken
from benchmarks.support.iemocap import CLASSES
from benchmarks.support.usual import Rows, padded, read_rows, train_epoch
from fusion.experiment.fields import configure
from fusion.grid.combinations import FieldValues
from fusion.head import Batch
from fusion.head_config import HeadInputs
from fusion.heads.build import build_head
from fusion.run.folder import COST
from fusion.training.evaluate import dev_scores

SIDE_BY_SIDE = 2  # processes at a time
ROOT = Path(__file__).parents[2]

Groups = Sequence[Sequence[int]]


class Usual:
    """The usual practice: one model after another, utterances read anew from one dataset each, random batches.

    Args:
        folder: where the datasets are.
        case: what to train.
        groups: the batches of an epoch, as places of utterances.
        dev: places of those to choose the epoch on.
    """

    def __init__(self, folder: Path, case: Case, groups: Groups, dev: Sequence[int]) -> None:
        self.path, self.case, self.device = folder / "usual.h5", case, torch.device(case.device)
        self.groups, self.dev = groups, dev
        self.labels = torch.arange(1 + max(*itertools.chain(*groups), *dev)) % len(CLASSES)
        shapes = {"audio": (case.width,), "text": (case.width,), "chars": (1,)}
        self.inputs = HeadInputs(classes=tuple(CLASSES), shapes=shapes)

    def __call__(self) -> Taken:
        """Trains a model for one epoch."""
        began = time.perf_counter()
        config, training = configure(HEAD, self.case.fields[0])
        head: Any = build_head(HEAD, config, self.inputs, seed=0).to(self.device)
        optimizer = torch.optim.AdamW(head.parameters(), lr=training.lr, weight_decay=training.weight_decay)
        with h5py.File(self.path, "r") as file:
            rows = {index: read_rows(file, index) for index in {*itertools.chain(*self.groups), *self.dev}}
        ready = time.perf_counter()
        with Peak(self.device) as peak:
            train_epoch(head, (self._batch(rows, group) for group in self.groups), optimizer)
            self._score(head, rows)
        return Taken(
            models=1,
            start_s=ready - began,
            epoch_s=time.perf_counter() - ready,
            rows=sum(len(rows[index][role]) for index in itertools.chain(*self.groups) for role in ROLES),
            peak_mb=peak.size_mb,
        )

    def _batch(self, rows: Mapping[int, Rows], indices: Sequence[int]) -> Batch:
        return padded([rows[index] for index in indices], self.labels, indices).to(self.device)

    def _score(self, head: nn.Module, rows: Mapping[int, Rows]) -> None:
        head.eval()
        batch = self._batch(rows, self.dev)
        with torch.no_grad():
            dev_scores(head(batch).logits.cpu(), batch.labels.cpu().numpy())


def serve_usual(folder: Path, case: Case, groups: Groups, dev: Sequence[int], answers: Any) -> None:
    """Trains a model whenever it is asked to, until it is asked to end."""
    Usual(folder, case, groups[:1], dev)()  # the first steps of a process are slow; the trial is that of ours
    usual = Usual(folder, case, groups, dev)
    while answers.recv() != "end":
        answers.send(usual())


def train_apart(folder: Path, case: Case, rows: int) -> Taken:
    """Trains by `mmer-train`, a process for each combination, two at a time on half of the cores each.

    Args:
        folder: where the cache is.
        case: what to train.
        rows: of the batches of an epoch.
    """
    threads = max(1, torch.get_num_threads() // SIDE_BY_SIDE)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with TemporaryDirectory() as out:
        began = time.perf_counter()
        commands = [_command(folder, case, fields, Path(out) / str(place)) for place, fields in _numbered(case)]
        running = [
            subprocess.Popen(one, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for one in commands
        ]
        peaks = [_waited(one) for one in running]
        seconds = time.perf_counter() - began
        trained = mean(json.loads(path.read_text())["seconds"] for path in Path(out).rglob(COST))
    return Taken(
        models=len(running),
        start_s=(seconds - trained) / len(running),
        epoch_s=trained / EPOCHS / len(running),
        rows=rows,
        peak_mb=sum(peaks),
    )


def _numbered(case: Case) -> list[tuple[int, FieldValues]]:
    return list(enumerate(case.fields[:SIDE_BY_SIDE]))


def _command(folder: Path, case: Case, fields: FieldValues, out: Path) -> list[str]:
    command = [sys.executable, "-m", "cli.main", "train", "--fusion", HEAD, "--cache", str(folder / "cache.h5")]
    command += ["--protocol", PROTOCOL, "--device", case.device, "--out", str(out)]
    return [*command, *(part for name, value in fields.items() for part in ("--set", f"{name}={value}"))]


def _waited(process: subprocess.Popen[bytes]) -> float:
    """Gives the peak in MB of a process that has ended.

    Raises:
        RuntimeError: if it has failed.
    """
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
    return usage.ru_maxrss / 1024
