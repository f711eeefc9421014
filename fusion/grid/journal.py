"""The journal of a grid: what came of every model, on disk as soon as it is known, and found again by any grid.

models/KEY/            one folder for each model; the key is that of `Model.key`
    weights.safetensors    of the best epoch
    curves.csv, cost.json  as in a run folder
    entry.json             written last: what was trained, dev scores, or why it failed
    predictions.csv, scores.json   once its test part was opened

Test parts are opened later than anything is trained, from the weights that are kept, and only for chosen models.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from cache.errors import MmerError
from fusion.data.features import BatchSource
from fusion.evaluation.task import Task
from fusion.experiment.plan import RunPlan, build
from fusion.fingerprint import filled
from fusion.grid.combinations import Model, ModelOutcome, ModelScores
from fusion.head import Head
from fusion.run.artifacts import read_cost, read_probabilities, read_scores, read_weights, write_trained
from fusion.run.cross_validation import score_test_subset
from fusion.run.folder import WEIGHTS, DamagedRun, ModelFolder
from fusion.training.checkpoint import EpochScores
from fusion.training.loop import TrainedModel

FORMAT_VERSION = 1
ENTRY, MODELS = "entry.json", "models"
FIELDS: Mapping[str, type] = {"decides": dict, "epoch": int, "curves": list, "failure": str, "notes": list}


class Journal:
    """What is known of models, whichever grid trained them.

    Args:
        path: folder of the journal; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def folder(self, model: Model) -> ModelFolder:
        """Gives the folder of a model."""
        return ModelFolder(self.path / MODELS / model.key)

    def holds(self, model: Model) -> bool:
        """Tells whether a model was trained, or failed for good."""
        return (self.folder(model).path / ENTRY).exists()

    def notes(self, model: Model) -> list[str]:
        """Gives what the head of a model noted before step 0."""
        noted: list[str] = self._entry(model)["notes"]
        return noted

    def trained(self, model: Model) -> bool:
        """Tells whether a model was trained and did not fail."""
        return self.holds(model) and not self._entry(model)["failure"]

    def write(self, outcome: ModelOutcome, device: torch.device) -> None:
        """Keeps what came of a model; of one that failed, why.

        Raises:
            MmerError: if the journal cannot be written.
        """
        model, trained, folder = outcome.model, outcome.trained, self.folder(outcome.model)
        if trained is not None:
            write_trained(folder, trained, device)
        entry = {
            "format_version": FORMAT_VERSION,
            "fold": model.fold.name,
            "seed": model.seed,
            "decides": model.combination.plan.identity,
            "epoch": trained.best_epoch if trained else 0,
            "curves": [asdict(one) for one in trained.curves] if trained else [],
            "failure": outcome.failure,
            "notes": list(outcome.notes),
            "weights": folder.digest(WEIGHTS) if trained else "",
        }
        folder.write(ENTRY, entry)

    def result(self, model: Model, combination: int) -> ModelScores:
        """Gives what is known of a model.

        Args:
            model: that the journal holds.
            combination: its place among those of the grid.

        Raises:
            MmerError: if it cannot be read.
        """
        folder, entry = self.folder(model), self._entry(model)
        failed = bool(entry["failure"])
        return ModelScores(
            combination=combination,
            fold=model.fold.name,
            seed=model.seed,
            dev={} if failed else _best(entry)["dev"],
            epoch=entry["epoch"],
            seconds=0.0 if failed else _seconds(folder),
            failure=entry["failure"],
            test=_test_scores(folder, model.combination.plan.task),
        )

    def open_test(self, model: Model, source: BatchSource) -> None:
        """Scores a trained model on the test part of its fold, unless that was done before and can be read.

        Raises:
            MmerError: if its weights cannot be read or its logits are not finite.
        """
        folder, plan, fold = self.folder(model), model.combination.plan, model.fold
        if folder.scored:
            with suppress(DamagedRun):
                read_probabilities(folder, plan.inputs.classes, plan.task)
                return
        head, trained, notes = self.load_model(model), self._trained(model), self.notes(model)
        head.to(source.device)
        score_test_subset(folder, plan, fold, head=head, trained=trained, source=source, seed=model.seed, notes=notes)

    def load_model(self, model: Model) -> Head:
        """Loads the trained head of a model, on the CPU and in eval mode.

        Raises:
            Damaged: if its weights cannot be read or are not those that were written.
            MmerError: if they do not fit the head.
        """
        folder, entry = self.folder(model), self._entry(model)
        head = build(model.combination.plan, seed=model.seed)
        way_out = f"delete {folder.path} to train the model anew"
        head.load_state_dict(read_weights(folder, head, digest=entry.get("weights"), way_out=way_out))
        return head.eval()

    @contextmanager
    def claimed(self, model: Model, *, wait: bool = False) -> Iterator[bool]:
        """Holds the right to train a model; gives False where another grid has it.

        Args:
            model: to be trained.
            wait: until the other one is done.
        """
        folder = self.folder(model)
        folder.make()
        lock = FileLock(folder.path / ".lock", timeout=-1 if wait else 0)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _entry(self, model: Model) -> dict[str, Any]:
        folder = self.folder(model)
        entry: Any = None
        with suppress(DamagedRun):
            entry = folder.read(ENTRY)
        whole = isinstance(entry, dict) and entry.get("format_version") == FORMAT_VERSION
        if not whole or not all(isinstance(entry.get(name), kind) for name, kind in FIELDS.items()):
            raise MmerError(f"{folder.path / ENTRY} is no entry of this version; delete {folder.path} to train anew")
        _check_same(entry, model.combination.plan, folder.path)
        return entry  # type: ignore[no-any-return]

    def _trained(self, model: Model) -> TrainedModel:
        """Gives what scoring must know of a training that is over."""
        entry = self._entry(model)
        curves = tuple(EpochScores(**one) for one in entry["curves"])
        return TrainedModel(best_epoch=entry["epoch"], curves=curves, weights={}, seconds=0.0, peak_bytes=0)


def _check_same(entry: Mapping[str, Any], plan: RunPlan, path: Path) -> None:
    """Refuses the entry of another model: a field that was left out of its key has another default by now."""
    held = filled(entry["decides"], plan.experiment.defaults)
    changed = [name for name in plan.experiment.defaults if held[name] != plan.identity[name]]
    if changed:
        raise MmerError(f"{path} holds a model of another {' and '.join(changed)}; delete it, or name another --out")


def _best(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    best: Mapping[str, Any] = entry["curves"][entry["epoch"] - 1]
    return best


def _seconds(folder: ModelFolder) -> float:
    with suppress(DamagedRun):  # no score depends on it
        return read_cost(folder)[0]
    return 0.0


def _test_scores(folder: ModelFolder, task: Task) -> dict[str, float] | None:
    if not folder.scored:
        return None
    with suppress(DamagedRun):  # then they are as good as closed, until they are made anew
        scores = read_scores(folder, task)
        return {name: scores[name] for name in task.names}
    return None
