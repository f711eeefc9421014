"""Trains a head on every fold and seed, opens each test part once, and leaves a run folder behind."""

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from cache.errors import MmerError
from cache.joined import AnyCache
from cache.version import mmer_version
from fusion.checkpoint import EpochScores
from fusion.experiment import Experiment
from fusion.features import FeatureSource, FoldRows
from fusion.heads.catalog import AnyHead, build_head, count_parameters
from fusion.inputs import HeadInputs
from fusion.members import Fold
from fusion.metrics import score as score_guesses
from fusion.run import CURVES, PREDICTIONS, SCORES, SPLITS, STATE, WEIGHTS, RunFolder
from fusion.scoring import score
from fusion.split import Split, split_cache
from fusion.streams import Chosen, choose_streams, head_inputs
from fusion.trainer import TrainedFold, train_fold

Probabilities: TypeAlias = npt.NDArray[np.float32]

RECORDED = ("torch", "numpy", "scikit-learn", "safetensors", "h5py")


class Watcher(Protocol):
    """Told how far a run is."""

    def note(self, note: str) -> None:
        """Something is to be printed beside the scores."""
        ...

    def start(self, fold: str, seed: int, epochs: int) -> None:
        """A fold is being trained, for so many epochs at most."""
        ...

    def epoch(self, scores: EpochScores) -> None:
        """An epoch is done."""
        ...

    def end(self) -> None:
        """The fold is done."""
        ...


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run that can start: everything is chosen and checked."""

    experiment: Experiment
    cache: AnyCache
    chosen: Chosen
    split: Split
    inputs: HeadInputs
    described: dict[str, Any]

    @property
    def notes(self) -> list[str]:
        """All that is to be printed beside the scores."""
        return [self.split.promise, *self.chosen.notes, *self.split.notes]


def plan_run(experiment: Experiment, cache: AnyCache) -> Plan:
    """Chooses streams, labels and folds, and checks every promise, before anything is trained.

    Raises:
        MmerError: if a stream is missing, a promise does not hold, or the head cannot be built of what there is.
    """
    chosen = choose_streams(cache, experiment.head, experiment.streams)
    split = split_cache(
        cache,
        streams=chosen.always,
        training_streams=chosen.training,
        labels=experiment.labels,
        protocol=experiment.protocol,
        data_seed=experiment.training.data_seed,
        allow_missing=experiment.allow_missing,
        allow_leak=experiment.allow_leak,
    )
    inputs = head_inputs(cache, experiment.head, chosen, split.labels.names)
    plan = Plan(
        experiment=experiment,
        cache=cache,
        chosen=chosen,
        split=split,
        inputs=inputs,
        described=experiment.described(cache, chosen, split),
    )
    build(plan, seed=0)  # what does not fit together shows now
    return plan


def cross_validate(plan: Plan, folder: RunFolder, *, device: torch.device, watcher: Watcher) -> None:
    """Trains what is not trained yet; a run that was killed goes on where it was.

    Args:
        plan: of the run.
        folder: where it leaves everything.
        device: where the head is trained.
        watcher: told how far it is.

    Raises:
        MmerError: if the folder holds another run, or a loss is not finite.
    """
    for note in plan.notes:
        watcher.note(note)
    folder.begin(plan.described, _recorded(plan))
    _write_splits(plan, folder)
    source = _source(plan, device)
    for seed in plan.experiment.seeds:
        for fold in plan.split.folds:
            part = folder.part(fold.name, seed)
            if not (part.path / SCORES).exists():
                watcher.start(fold.name, seed, plan.experiment.training.epochs)
                _Model(plan=plan, source=source, fold=fold, seed=seed, part=part).run(watcher)
                watcher.end()


def build(plan: Plan, *, seed: int) -> AnyHead:
    """Builds the head of a run.

    Raises:
        MmerError: if its configuration does not suit the streams.
    """
    try:
        return build_head(plan.experiment.fusion, plan.experiment.head, plan.inputs, seed=seed)
    except ValueError as error:
        raise MmerError(f"head {plan.experiment.fusion}: {error}; change it by --set FIELD=VALUE") from error


def _source(plan: Plan, device: torch.device) -> FeatureSource:
    chosen = np.unique(np.concatenate([part for fold in plan.split.folds for part in fold.parts.values()]))
    return FeatureSource(plan.cache, plan.chosen.streams, plan.split.classes, device=device, chosen=chosen)


@dataclass(frozen=True, kw_only=True)
class _Model:
    """One model of a run: its fold, its seed, its folder."""

    plan: Plan
    source: FeatureSource
    fold: Fold
    seed: int
    part: RunFolder

    def run(self, watcher: Watcher) -> None:
        """Trains it, chooses its epoch on dev, and scores it on test; the scores are written last."""
        head = build(self.plan, seed=self.seed)
        for note in head.prepare(FoldRows(self.source, self.fold.train)):
            watcher.note(f"fold {self.fold.name}: {note}")
        trained = self._train(head, watcher)
        with self.part.replacing(WEIGHTS) as path:
            save_file({name: tensor.contiguous() for name, tensor in trained.weights.items()}, path)
        _write_curves(self.part, trained)
        probabilities = score(head, self.source, self.fold.test)  # opened here, once, for the epoch that dev chose
        _write_predictions(self.plan, self.fold, self.part, probabilities)
        self.part.write(SCORES, self._scores(head, trained, probabilities))
        (self.part.path / STATE).unlink(missing_ok=True)

    def _train(self, head: AnyHead, watcher: Watcher) -> TrainedFold:
        self.part.path.mkdir(parents=True, exist_ok=True)
        return train_fold(
            head,
            self.source,
            self.fold.train,
            self.fold.dev,
            replace(self.plan.experiment.training, seed=self.seed),
            checkpoint=self.part.path / STATE,
            on_epoch=watcher.epoch,
        )

    def _scores(self, head: AnyHead, trained: TrainedFold, probabilities: Probabilities) -> dict[str, Any]:
        plan, fold = self.plan, self.fold
        scores = score_guesses(plan.split.classes[fold.test], probabilities.argmax(axis=1), len(plan.inputs.classes))
        read = {role: self.source.lengths[role][fold.test] for role in plan.experiment.head.roles}
        return {
            "fold": fold.name,
            "seed": self.seed,
            "epoch": trained.best_epoch,
            **{part: len(indices) for part, indices in fold.parts.items()},
            **scores.as_dict(),
            "dev_scores": dict(trained.dev),
            "test_of": plan.split.totals[fold.name],
            "over_limits": [plan.cache.ids[index] for index in fold.test[head.over_limits(read)].tolist()],
            "parameters": count_parameters(head),
            "seconds": round(trained.seconds, 3),
            "peak_bytes": trained.peak_bytes,
        }


def _write_curves(part: RunFolder, trained: TrainedFold) -> None:
    losses, dev = list(trained.curves[0].losses), list(trained.curves[0].dev)
    rows = [
        [one.epoch, *(one.losses[name] for name in losses), *(one.dev[name] for name in dev)] for one in trained.curves
    ]
    part.write_rows(CURVES, ["epoch", *losses, *(f"dev_{name}" for name in dev)], rows)


def _write_predictions(plan: Plan, fold: Fold, part: RunFolder, probabilities: Probabilities) -> None:
    names = plan.inputs.classes
    rows = [
        [plan.cache.ids[index], names[plan.split.classes[index]], names[int(row.argmax())], *map(float, row)]
        for index, row in zip(fold.test.tolist(), probabilities, strict=True)
    ]
    part.write_rows(PREDICTIONS, ["id", "label", "guess", *(f"p_{name}" for name in names)], rows)


def _write_splits(plan: Plan, folder: RunFolder) -> None:
    names = plan.inputs.classes
    rows = [
        [fold.name, part, plan.cache.ids[index], names[plan.split.classes[index]]]
        for fold in plan.split.folds
        for part, indices in fold.parts.items()
        for index in indices.tolist()
    ]
    folder.write_rows(SPLITS, ["fold", "part", "id", "label"], rows)


def _recorded(plan: Plan) -> Mapping[str, Any]:
    """Gives what is kept of a run beside what decides it."""
    specs = {role: json.loads(plan.cache.stream(name).spec.to_json()) for role, name in plan.chosen.streams.items()}
    return {
        "cache": str(plan.cache.path),
        "corpus": dict(plan.cache.header["corpus"]),
        "specs": specs,
        "notes": plan.notes,
        "versions": {"mmer": mmer_version(), "python": platform.python_version()}
        | {name: version(name) for name in RECORDED},
    }
