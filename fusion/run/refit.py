"""Refit: after the folds' best epochs are known, each fold is trained once more on its train and dev.

Every fold first selects its best epoch on dev, as without refit, but is not scored. The number of epochs of the second
training is the median of the best epochs of all folds of the same seed (the lower of two), so that no fold's own dev
decides alone. The second training has no dev; its model is the one that is scored on the test subset, once. No test
subset is read before. The temperature is that of the first model on its dev: of the second, dev is training data
(docs/decisions.md#refit).
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from statistics import median_low
from typing import Any

import numpy as np

from cache.errors import MmerError
from cache.json_text import is_count, is_number
from fusion.arrays import Indices
from fusion.data.features import CachedFeatures
from fusion.data.memory import memory_needed
from fusion.evaluation.calibration import fit_temperature
from fusion.experiment.plan import RunPlan
from fusion.run.artifacts import read_scores, write_trained
from fusion.run.cross_validation import (
    RunModel,
    TrainingProgress,
    build_and_prepare_head,
    keep_encoders,
    memory_remedy,
    score_test_subset,
)
from fusion.run.folder import REFIT_STATE, SCORES, SELECTED, STATE, DamagedRun, ModelFolder, RunFolder
from fusion.training.checkpoint import EpochScores, epoch_scores
from fusion.training.evaluate import predict_logits
from fusion.training.interrupt import StopRequested
from fusion.training.loop import train_epochs
from fusion.training.model import TrainedModel


def train_and_refit(
    folder: RunFolder,
    unfinished: Sequence[RunModel],
    source: CachedFeatures,
    progress: TrainingProgress,
    stopping: StopRequested,
) -> None:
    """Trains models twice: all of them to select their epochs, then each on train and dev, and scores these.

    A model whose training was interrupted is resumed, in the first training as in the second.

    Args:
        folder: folder of the run, with the epochs that finished models selected.
        unfinished: models of the run.
        source: features of all utterances.
        progress: receives notes, models and epochs.
        stopping: called before every training.

    Raises:
        KeyboardInterrupt: if `stopping` returned True.
        MmerError: if a loss is not finite, or memory runs out.
    """
    for model in models_to_select(unfinished):
        if stopping():
            raise KeyboardInterrupt
        progress.start(model.fold.name, model.seed, model.plan.experiment.training.epochs)
        progress.end(select_epoch(model, source, progress))
    for model in unfinished:
        if stopping():
            raise KeyboardInterrupt
        epochs = refit_epochs(model.plan, folder, model.seed)
        progress.start(model.fold.name, model.seed, epochs)
        progress.end(refit_model(model, source, progress, epochs=epochs))


def models_to_select(unfinished: Sequence[RunModel]) -> list[RunModel]:
    """Returns the models that have not selected their epoch."""
    return [model for model in unfinished if _selected(model.folder) is None]


def refit_epochs(plan: RunPlan, folder: RunFolder, seed: int) -> int:
    """Returns the number of epochs of the second trainings of a seed: the median best epoch of its folds.

    Raises:
        DamagedRun: if a fold has selected no epoch.
    """
    return median_low(_best_epoch(plan, folder.model(fold.name, seed)) for fold in plan.split.folds)


def select_epoch(model: RunModel, source: CachedFeatures, progress: TrainingProgress) -> EpochScores:
    """Trains a model with early stopping on dev, and writes its best epoch and its temperature.

    Returns:
        The best epoch.
    """
    plan, fold = model.plan, model.fold
    source = plan.with_targets(plan.of_fold(source, fold.name), fold.train, fold.name)
    with memory_needed(source.device, memory_remedy(plan)):
        head, _ = build_and_prepare_head(plan, source, fold.train, seed=model.seed)
    trained = model.train(head, source, progress)
    record: dict[str, Any] = {
        "epoch": trained.best_epoch,
        "curves": [asdict(scores) for scores in trained.curves],
        "seconds": trained.seconds,
        "peak_bytes": trained.peak_bytes,
    }
    if plan.task.has_classes:
        record["temperature"] = fit_temperature(
            predict_logits(head, source, fold.dev).numpy(), plan.split.classes[fold.dev]
        )
    model.folder.write(SELECTED, record)
    model.folder.delete(STATE)
    return trained.curves[trained.best_epoch - 1]


def refit_model(model: RunModel, source: CachedFeatures, progress: TrainingProgress, *, epochs: int) -> EpochScores:
    """Trains a model on train and dev for a number of epochs, and scores it on the test subset.

    Returns:
        The losses of its last epoch, with the dev scores of the epoch that the first training selected.

    Raises:
        DamagedRun: if the model has selected no epoch.
    """
    plan, fold = model.plan, model.fold
    selected = _selected(model.folder)
    if selected is None:
        raise _not_selected(model.folder)
    both: Indices = np.sort(np.concatenate([fold.train, fold.dev]))
    source = plan.with_targets(plan.of_fold(source, fold.name), both, fold.name)
    with memory_needed(source.device, memory_remedy(plan)):
        head, notes = build_and_prepare_head(plan, source, both, seed=model.seed)
    model.folder.delete(STATE)  # left by a run that was killed between the two trainings
    with memory_needed(source.device, memory_remedy(plan)):
        trained = train_epochs(
            head,
            source,
            both,
            replace(plan.experiment.training, seed=model.seed),
            epochs=epochs,
            task=plan.task_of(both, fold.name),
            checkpoint=model.folder.path / REFIT_STATE,
            save_every_s=model.save_every_s,
            on_epoch=progress.epoch,
            stopping=model.stopping,
        )
    model.folder.delete(SCORES)  # of a damaged model: they belong to other weights
    trained = keep_encoders(model.folder, plan, fold.name, both, model=head, trained=trained)
    whole = TrainedModel(
        best_epoch=selected["epoch"],
        curves=tuple(map(epoch_scores, selected["curves"])),
        weights=trained.weights,
        seconds=selected["seconds"] + trained.seconds,
        peak_bytes=max(selected["peak_bytes"], trained.peak_bytes),
        refit=epochs,
    )
    write_trained(model.folder, whole, source.device)
    with memory_needed(source.device, "a single test utterance needs more memory than there is"):
        score_test_subset(
            model.folder,
            plan,
            fold,
            head=head,
            trained=whole,
            source=source,
            seed=model.seed,
            notes=notes,
            train=both,
            temperature=selected.get("temperature"),
        )
    model.folder.delete(REFIT_STATE)
    return EpochScores(epoch=epochs, losses=trained.curves[-1].losses, dev=whole.dev)


def _best_epoch(plan: RunPlan, model: ModelFolder) -> int:
    if (record := _selected(model)) is not None:
        return int(record["epoch"])
    if model.scored:
        return int(read_scores(model, plan.task)["epoch"])
    raise _not_selected(model)


def _selected(model: ModelFolder) -> dict[str, Any] | None:
    """Reads what the first training of a model selected; None if it is not finished or cannot be read."""
    try:
        record = model.read(SELECTED)
        curves = [epoch_scores(scores) for scores in record["curves"]]
    except (DamagedRun, ValueError, LookupError, TypeError):
        return None
    numbers = [record.get("seconds"), record.get("temperature", 1.0)]
    whole = is_count(record.get("epoch")) and is_count(record.get("peak_bytes")) and all(map(is_number, numbers))
    return dict(record) if whole and 0 < record["epoch"] <= len(curves) else None


def _not_selected(model: ModelFolder) -> MmerError:
    return DamagedRun(f"{model.path} has no {SELECTED}; repeat the command of the run to train the model again")
