"""Final models: trained once on all utterances of the protocol, for the median best epoch of the folds.

A final model is what predicts new utterances. It has seen every utterance of the protocol, so no score can be computed
for it: the scores of the run are those of the folds. 001 trains its last model in this way (docs/decisions.md#c-2).
"""

from dataclasses import dataclass, replace
from statistics import median_low
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from cache.errors import MmerError
from cache.json_text import is_count
from fusion.arrays import Indices
from fusion.data.features import RESIDENT_SHARE, CachedFeatures
from fusion.data.memory import memory_needed
from fusion.experiment.plan import RunPlan
from fusion.heads.build import count_parameters
from fusion.run.artifacts import read_scores, write_trained
from fusion.run.cross_validation import (
    TrainingProgress,
    build_and_prepare_head,
    keep_encoders,
    load_source,
    memory_remedy,
    utterances_of,
)
from fusion.run.folder import (
    CURVES,
    FINAL,
    FINAL_JSON,
    STATE,
    WEIGHTS,
    DamagedRun,
    ModelFolder,
    RunFolder,
    encoder_weights,
)
from fusion.training.checkpoint import EpochScores
from fusion.training.interrupt import StopRequested, never_stop
from fusion.training.loop import SAVE_EVERY_S, train_epochs


@dataclass(frozen=True, kw_only=True)
class FinalModel:
    """A final model of a finished run.

    Attributes:
        seed: random seed of the model.
        epochs: number of epochs that it was trained for.
        train: number of utterances that it was trained on.
        folder: its folder.
    """

    seed: int
    epochs: int
    train: int
    folder: ModelFolder

    @property
    def line(self) -> str:
        """A line to print."""
        return (
            f"final model of seed {self.seed}: trained on all {self.train} utterances for {self.epochs} epochs, the "
            f"median of the folds; not scored; {self.folder.path}"
        )

    @property
    def plain(self) -> dict[str, Any]:
        """The same as plain values."""
        return {"seed": self.seed, "epochs": self.epochs, "train": self.train, "folder": str(self.folder.path)}


def train_final_models(
    plan: RunPlan,
    folder: RunFolder,
    *,
    device: torch.device,
    progress: TrainingProgress,
    save_every_s: float = SAVE_EVERY_S,
    resident_share: float = RESIDENT_SHARE,
    stopping: StopRequested = never_stop,
) -> None:
    """Trains the final model of every seed that is not finished; an interrupted training is resumed.

    Args:
        plan: plan of the run.
        folder: run folder whose models are all scored; the caller holds its lock.
        device: device that trains the head.
        progress: receives notes, models and epochs.
        save_every_s: least time between two checkpoints of a model, in seconds.
        resident_share: share of the device's memory for features that are held there, in [0, 1].
        stopping: called after every batch; when it returns True, the checkpoint is written and the training stops.

    Raises:
        KeyboardInterrupt: if `stopping` returned True.
        MmerError: if a fold of the run is called like the final model, a loss is not finite, or memory runs out.
    """
    if any(fold.name == FINAL for fold in plan.split.folds):
        raise MmerError(f"--final needs the name {FINAL} for its model, and a fold has it; choose another --protocol")
    if plan.selection.choices:
        raise MmerError(
            f"--final trains on all utterances, and {', '.join(plan.selection.choices)} has a stream for each fold; "
            "choose a stream that all folds read"
        )
    held = {model.seed: model for model in read_final_models(plan, folder)}
    for model in held.values():
        model.folder.delete(STATE)  # left by a run that was killed between its last two steps
    missing = [seed for seed in plan.experiment.seeds if seed not in held]
    if not missing:
        return
    with memory_needed(device, f"lower --resident-share ({resident_share:g})"):
        source = load_source(plan, device, resident_share)
    train = utterances_of(plan)
    for seed in missing:
        if stopping():
            raise KeyboardInterrupt
        epochs = median_epoch(plan, folder, seed)
        progress.start(FINAL, seed, epochs)
        training = _FinalTraining(plan=plan, seed=seed, epochs=epochs, train=train, folder=folder.model(FINAL, seed))
        progress.end(training.run(source, progress, save_every_s=save_every_s, stopping=stopping))


def median_epoch(plan: RunPlan, folder: RunFolder, seed: int) -> int:
    """Returns the median of the best epochs of all folds of a seed, the lower of two.

    Raises:
        DamagedRun: if a model of the seed is not scored.
    """
    return median_low(int(read_scores(folder.model(fold.name, seed), plan.task)["epoch"]) for fold in plan.split.folds)


def read_final_models(plan: RunPlan, folder: RunFolder) -> list[FinalModel]:
    """Reads the final models that are finished, intact, and trained for the median epoch of the present folds."""
    models = []
    for seed in plan.experiment.seeds:
        model = folder.model(FINAL, seed)
        try:
            record = read_final(model)
            with safe_open(model.path / WEIGHTS, framework="np"):
                pass
        except (DamagedRun, OSError, SafetensorError):
            continue
        if record["epoch"] == median_epoch(plan, folder, seed):
            models.append(FinalModel(seed=seed, epochs=record["epoch"], train=record["train"], folder=model))
    return models


def read_final(model: ModelFolder) -> dict[str, Any]:
    """Reads the record of a final model.

    Raises:
        DamagedRun: if it is missing, incomplete, or does not belong to the weights and curves in the folder.
    """
    record = model.read(FINAL_JSON)
    numbers = ("seed", "epoch", "train", "parameters")
    complete = isinstance(record, dict) and all(is_count(record.get(name)) for name in numbers)
    digests = record.get("digests") if complete else None
    digests = digests if isinstance(digests, dict) else {}
    if any(digests.get(name) != model.digest(name) for name in {WEIGHTS, CURVES, *digests}):
        raise DamagedRun(f"{model.path} is damaged; repeat the command of the run with --final to train it again")
    return dict(record)


@dataclass(frozen=True, kw_only=True)
class _FinalTraining:
    """The training of the final model of a seed."""

    plan: RunPlan
    seed: int
    epochs: int
    train: Indices
    folder: ModelFolder

    def run(
        self,
        source: CachedFeatures,
        progress: TrainingProgress,
        *,
        save_every_s: float,
        stopping: StopRequested,
    ) -> EpochScores:
        """Trains the model and writes its folder; returns the losses of its last epoch."""
        remedy = memory_remedy(self.plan)
        source = self.plan.with_targets(source, self.train, FINAL)
        with memory_needed(source.device, remedy):
            head, notes = build_and_prepare_head(self.plan, source, self.train, seed=self.seed)
        for note in notes:
            progress.note(f"final model: {note}")
        self.folder.make()
        self.folder.delete(FINAL_JSON)  # of a damaged model: it belongs to other weights
        training = self.plan.experiment.training
        with memory_needed(source.device, remedy):
            trained = train_epochs(
                head,
                source,
                self.train,
                replace(training, seed=self.seed),
                epochs=self.epochs,
                task=self.plan.task_of(self.train, FINAL),
                checkpoint=self.folder.path / STATE,
                save_every_s=save_every_s,
                on_epoch=progress.epoch,
                stopping=stopping,
            )
        trained = keep_encoders(self.folder, self.plan, FINAL, self.train, model=head, trained=trained)
        write_trained(self.folder, trained, source.device)
        counts = {"epoch": self.epochs, "train": len(self.train), "parameters": count_parameters(head)}
        written = (WEIGHTS, CURVES, *map(encoder_weights, self.plan.starts))
        digests = {name: self.folder.digest(name) for name in written}
        scale = self.plan.split.scale(self.train, FINAL)
        scaled = {} if scale is None else {"scale": scale.plain}
        self.folder.write(FINAL_JSON, {"seed": self.seed, **counts, **scaled, "notes": notes, "digests": digests})
        self.folder.delete(STATE)
        return trained.curves[-1]
