"""The journal of a grid: the outcome of every model on disk, shared by all grids that use the folder.

models/KEY/            one folder for each model; KEY is `Model.key`
    weights.safetensors    weights of the best epoch
    curves.csv, cost.json  as in a run folder
    entry.json             written last: identity of the model, dev scores, or the reason of a failure
    predictions.csv, scores.json   written when the test subset is opened

Test subsets are opened after training, from the stored weights, and only for selected models.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout

from cache.errors import MmerError
from cache.files import check_unused, lock_of, writable
from fusion.data.features import CachedFeatures
from fusion.evaluation.task import Task
from fusion.experiment.plan import RunPlan, build_model
from fusion.fingerprint import digest_of, with_defaults
from fusion.grid.combinations import Model, ModelOutcome, ModelScores
from fusion.head import Head
from fusion.run.artifacts import read_cost, read_probabilities, read_scores, write_trained
from fusion.run.cross_validation import score_test_subset
from fusion.run.folder import SECTIONS, WEIGHTS, DamagedRun, ModelFolder
from fusion.run.load import read_weights
from fusion.training.checkpoint import epoch_scores
from fusion.training.model import TrainedModel

FORMAT_VERSION = 1
ENTRY, MODELS = "entry.json", "models"
ENTRY_FIELDS: Mapping[str, type] = {"decides": dict, "epoch": int, "curves": list, "failure": str, "notes": list}
DIGEST = "digest"  # in entry.json: digest of its other values; entries of older versions have none


class Journal:
    """The trained and failed models of a folder, whichever grid trained them.

    Args:
        path: folder of the journal; created by the first write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def folder(self, model: Model) -> ModelFolder:
        """Returns the folder of a model."""
        return ModelFolder(self.path / MODELS / model.key)

    def check_free(self) -> None:
        """Checks that the folder holds a journal, or nothing.

        Raises:
            MmerError: if it holds anything else.
        """
        if not (self.path / MODELS).exists():
            check_unused(self.path)

    @property
    def held(self) -> dict[str, Any]:
        """The identity of one model of the journal; empty if there is none, or it cannot be read."""
        for path in sorted(self.path.glob(f"{MODELS}/*/{ENTRY}")):
            entry = ModelFolder(path.parent).read(ENTRY)
            if _is_entry(entry):
                return dict(entry["decides"])
        return {}

    @property
    def has_models(self) -> bool:
        """True if a model was ever trained for the journal."""
        return (self.path / MODELS).exists()

    def holds(self, model: Model) -> bool:
        """Checks whether a model was trained or has failed permanently."""
        return (self.folder(model).path / ENTRY).exists()

    def notes(self, model: Model) -> list[str]:
        """Returns the notes of the head of a model, made before the first step."""
        notes: list[str] = self._entry(model)["notes"]
        return notes

    def trained(self, model: Model) -> bool:
        """Checks whether a model was trained without a failure."""
        return self.holds(model) and not self._entry(model)["failure"]

    def write(self, model: Model, outcome: ModelOutcome, device: torch.device) -> None:
        """Writes the outcome of a model.

        Args:
            model: the model.
            outcome: weights, curves and cost, or the reason of a failure.
            device: where the model was trained.

        Raises:
            MmerError: if the journal cannot be written.
        """
        trained, folder = outcome.trained, self.folder(model)
        if trained is not None:
            write_trained(folder, trained, device)
        entry = {
            "format_version": FORMAT_VERSION,
            "fold": model.fold.name,
            "seed": model.seed,
            "decides": model.combination.plan.identity,
            "epoch": trained.best_epoch if trained else 0,
            "curves": [asdict(scores) for scores in trained.curves] if trained else [],
            "failure": outcome.failure,
            "notes": list(outcome.notes),
            "weights": folder.digest(WEIGHTS) if trained else "",
        }
        folder.write(ENTRY, entry | {DIGEST: _digest_of(entry)})

    def scores(self, model: Model, combination: int) -> ModelScores:
        """Reads the scores of a model.

        Args:
            model: a model of the journal.
            combination: index of its combination in the grid.

        Raises:
            MmerError: if the entry cannot be read.
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

    def open_test(self, model: Model, source: CachedFeatures) -> None:
        """Scores a trained model on the test subset of its fold, unless readable predictions exist.

        Raises:
            MmerError: if the weights cannot be read or the logits are not finite.
        """
        folder, plan, fold = self.folder(model), model.combination.plan, model.fold
        if folder.scored:
            with suppress(DamagedRun):
                read_probabilities(folder, plan.inputs.classes, plan.task)
                return
        head, trained, notes = self.load_model(model), self.trained_model(model), self.notes(model)
        head.to(source.device)
        features = plan.of_fold(source, fold.name)
        score_test_subset(folder, plan, fold, head=head, trained=trained, source=features, seed=model.seed, notes=notes)

    def load_model(self, model: Model) -> Head:
        """Loads the trained head of a model, on the CPU and in eval mode.

        Raises:
            DamagedRun: if the weights cannot be read or differ from those that were written.
            MmerError: if the weights do not fit the head.
        """
        folder, entry = self.folder(model), self._entry(model)
        head = build_model(model.combination.plan, seed=model.seed)
        way_out = f"delete {folder.path} to train the model again"
        head.load_state_dict(read_weights(folder, head, digest=entry.get("weights"), way_out=way_out))
        return head.eval()

    def trained_model(self, model: Model) -> TrainedModel:
        """Returns epochs and cost of a finished training, without its weights.

        Raises:
            MmerError: if the entry cannot be read.
        """
        entry, cost = self._entry(model), (0.0, 0)
        with suppress(DamagedRun):  # no score depends on the cost
            cost = read_cost(self.folder(model))
        curves = tuple(map(epoch_scores, entry["curves"]))
        return TrainedModel(best_epoch=entry["epoch"], curves=curves, weights={}, seconds=cost[0], peak_bytes=cost[1])

    @contextmanager
    def claim(self, model: Model, *, wait: bool = False) -> Iterator[bool]:
        """Holds the right to train a model; yields False if another grid holds it.

        Args:
            model: the model to train.
            wait: wait until the other grid has finished the model.
        """
        folder = self.folder(model)
        folder.make()
        lock = lock_of(folder.path / ".lock", wait=wait)
        try:
            with writable(folder.path):
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
        way_out = f"delete {folder.path} to train the model again"
        if not _is_entry(entry):
            raise MmerError(f"{folder.path / ENTRY} is not an entry of this version; {way_out}")
        if entry.get(DIGEST) not in (None, _digest_of(entry)):  # a tuple: any JSON value may be there
            raise MmerError(f"{folder.path / ENTRY} has changed since it was written; {way_out}")
        _check_same(entry, model.combination.plan, folder.path)
        return entry  # type: ignore[no-any-return]


def _is_entry(entry: Any) -> bool:
    """Returns True for the plain values of an entry of this version: all types, and the epochs of a trained model."""
    if not isinstance(entry, dict) or entry.get("format_version") != FORMAT_VERSION:
        return False
    if not all(isinstance(entry.get(name), kind) for name, kind in ENTRY_FIELDS.items()):
        return False
    try:
        curves = [epoch_scores(scores) for scores in entry["curves"]]
    except ValueError:
        return False
    texts = [*entry["notes"], entry.get("weights", "")]
    sections = [entry["decides"].get(section, {}) for section in SECTIONS]
    trained = bool(entry["failure"]) or 0 < entry["epoch"] <= len(curves)
    return trained and all(isinstance(text, str) for text in texts) and all(isinstance(held, dict) for held in sections)


def _digest_of(entry: Mapping[str, Any]) -> str:
    return digest_of({name: value for name, value in entry.items() if name != DIGEST})


def _check_same(entry: Mapping[str, Any], plan: RunPlan, path: Path) -> None:
    """Raises if an entry has the key of the model but another identity.

    A key leaves out fields with default values, so it does not change when a new version has another default.
    """
    identity = with_defaults(entry["decides"], plan.experiment.defaults)
    changed = [name for name in plan.experiment.defaults if identity[name] != plan.identity[name]]
    if changed:
        raise MmerError(
            f"{path} holds a model with a different {' and '.join(changed)}; delete it, or choose another --out"
        )


def _best(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    best: Mapping[str, Any] = entry["curves"][entry["epoch"] - 1]
    return best


def _seconds(folder: ModelFolder) -> float:
    with suppress(DamagedRun):  # no score depends on the cost
        return read_cost(folder)[0]
    return 0.0


def _test_scores(folder: ModelFolder, task: Task) -> dict[str, float] | None:
    if not folder.scored:
        return None
    with suppress(DamagedRun):  # damaged scores count as closed until they are computed again
        scores = read_scores(folder, task)
        return {name: scores[name] for name in task.names}
    return None
