"""A finished run with its cache, as the parts of a report read it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.joined import AnyCache, open_cache
from cache.utterance import Utterance
from fusion.arrays import ClassIds
from fusion.evaluation.catalog import task_of
from fusion.evaluation.metrics import confusion
from fusion.evaluation.task import OUTPUT, Task
from fusion.fingerprint import Plain
from fusion.run.artifacts import Row, read_predictions
from fusion.run.folder import RESULTS, SPLITS, DamagedRun, RunFolder
from fusion.run.names import stream_names
from fusion.run.pictures import SHOWN_ROLES

NO_UTTERANCES: Mapping[str, Utterance] = {}


@dataclass(frozen=True, kw_only=True)
class ScoredRow:
    """A prediction of a test utterance: its model, its row of predictions.csv."""

    fold: str
    seed: int
    row: Row


@dataclass(frozen=True, kw_only=True, eq=False)
class FinishedRun:
    """A finished run.

    Attributes:
        folder: folder of the run.
        record: content of ``run.json``.
        results: content of ``results.json``.
        cache: open cache; None where it is not found.
        name: name of the run in the report.
    """

    folder: RunFolder
    record: Plain
    results: Plain
    cache: AnyCache | None
    name: str

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the results."""
        return dict(self.record["decides"])

    @property
    def labels(self) -> list[str]:
        """The classes, or the dimensions, by name."""
        return list(self.identity["labels"])

    @property
    def task(self) -> Task:
        """Task of the run."""
        return task_of(self.identity)

    @property
    def corpus(self) -> str:
        """Name of the corpus."""
        return str(self.record.get("corpus", {}).get("name", "")) or Path(str(self.results["cache"])).stem

    @property
    def streams(self) -> dict[str, str]:
        """Role -> name of the stream, of the roles that a reader knows."""
        return {role: name for role, name in stream_names(self.identity).items() if role in SHOWN_ROLES}

    @cached_property
    def rows(self) -> list[ScoredRow]:
        """Predictions of all models."""
        found = []
        for scores in self.results["folds"]:
            fold, seed = str(scores["fold"]), int(scores["seed"])
            rows = read_predictions(self.folder.model(fold, seed), self.labels, self.task)
            found += [ScoredRow(fold=fold, seed=seed, row=row) for row in rows]
        return found

    @cached_property
    def utterances(self) -> Mapping[str, Utterance]:
        """Id -> utterance of the cache; empty without the cache."""
        return {utterance.id: utterance for utterance in self.cache.utterances} if self.cache else NO_UTTERANCES

    @cached_property
    def subsets(self) -> list[dict[str, str]]:
        """Rows of splits.csv: id, label and the subset of each fold; empty where the file is missing."""
        try:
            return self.folder.read_rows(SPLITS)
        except DamagedRun:
            return []

    @cached_property
    def truth(self) -> ClassIds:
        """Class of each row of `rows`, int64 ``(n,)``; of soft labels the one with the most votes."""
        truth, _ = self.task.parse([row.row for row in self.rows], self.labels)
        return truth if truth.ndim == 1 else truth.argmax(axis=1)

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """Outputs of each row of `rows`, float64 ``(n, classes)``."""
        return np.array([[float(row.row[OUTPUT + name]) for name in self.labels] for row in self.rows])

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Confusion matrix over all folds and seeds, rows are the truth."""
        return confusion(self.truth, self.probabilities.argmax(axis=1), len(self.labels))


def open_runs(paths: Sequence[Path], cache: Path | None = None) -> tuple[list[FinishedRun], list[str]]:
    """Opens finished runs; returns them, and a note for each cache that is not found.

    Args:
        paths: run folders.
        cache: cache of all runs; by default the one that each run records.

    Raises:
        MmerError: if a folder is not that of a finished run, or `cache` is not found.
    """
    opened = {cache: open_cache(cache)} if cache else {}
    runs, notes = [], []
    for path in paths:
        folder = RunFolder(path)
        record = folder.record
        if not (path / RESULTS).exists():
            raise MmerError(f"{path} is not finished, it has no {RESULTS}; repeat the command of the run")
        results = folder.read(RESULTS)
        models = len(folder.models(record["decides"]))
        if len(results["folds"]) < models:  # a seed was added, and its training has not ended
            raise MmerError(
                f"{path} is not finished, its results have {len(results['folds'])} of {models} models; repeat the "
                "command of the run"
            )
        held = cache or Path(str(record.get("cache", "")))
        if held not in opened:
            try:
                opened[held] = open_cache(held)
            except MmerError:
                notes.append(
                    f"{held}, the cache of {path}, is not found: no transcripts, speakers and vectors; pass it as "
                    "--cache FILE"
                )
        name = path.name if len({other.name for other in paths}) == len(paths) else str(path)
        runs.append(FinishedRun(folder=folder, record=record, results=results, cache=opened.get(held), name=name))
    return runs, notes
