"""Cross-validation on workers: the models of a run are dealt to processes or machines, one fold and seed at a time.

A worker writes the folder of its model itself, checkpoints included, so a run that was killed is resumed. Workers on
other machines need cache and run folder at the same paths. With several GPUs, each worker has one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from cache.errors import MmerError
from cache.joined import open_cache
from fusion.experiment.experiment import Experiment
from fusion.experiment.plan import RunPlan, plan_run
from fusion.head_config import HeadConfig
from fusion.heads.catalog import config_for, head_spec
from fusion.run.cross_validation import RunModel, SilentProgress, TrainingProgress, begin_run, load_source
from fusion.run.folder import RunFolder
from fusion.run.refit import models_to_select, refit_epochs, refit_model, select_epoch
from fusion.training.checkpoint import EpochScores
from fusion.training.interrupt import never_stop
from fusion.training.loop import SAVE_EVERY_S


class WorkerCluster(Protocol):
    """Workers that train models, such as `featurize.runtime.cluster.Cluster`."""

    @property
    def results(self) -> Callable[[Callable[..., Any], Iterable[Any]], Iterator[tuple[Any, object]]]:
        """Function that runs a task for every item, and yields each item with its result."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """Lines for the user on the workers."""
        ...

    @property
    def own_device(self) -> Callable[[str], torch.device]:
        """Function that returns the device of the worker that calls it, from its name on the command line."""
        ...


@dataclass(frozen=True, kw_only=True)
class ModelTask:
    """One model that a worker trains.

    Attributes:
        cache: path or pattern of the cache.
        experiment: experiment of the run without the configuration of its head, whose class a worker does not know
            until it imports the head.
        head: fields of the configuration of the head.
        source: digest of the file of a head that is named by its import path, else empty.
        folder: run folder.
        fold: name of the fold.
        seed: seed of the model.
        refit: number of epochs of the second training of a run with refit; 0 for the first training.
    """

    cache: Path
    experiment: Experiment
    head: Mapping[str, object]
    source: str
    folder: Path
    fold: str
    seed: int
    refit: int = 0


def cross_validate_on(
    cluster: WorkerCluster,
    plan: RunPlan,
    folder: RunFolder,
    *,
    cache: Path,
    progress: TrainingProgress,
    resident_share: float,
) -> None:
    """Trains and scores all models of a run that are not finished, on workers.

    Args:
        cluster: the workers.
        plan: plan of the run.
        folder: run folder for all results; the caller holds its lock.
        cache: path or pattern of the cache, the same on all machines.
        progress: receives notes and finished models.
        resident_share: share of the device's memory for features that are held there, in [0, 1].

    Raises:
        MmerError: if the folder holds another run, a worker cannot read the cache or is killed, a loss is not finite,
            or memory runs out.
    """
    for note in cluster.notes:
        progress.note(note)
    unfinished = begin_run(plan, folder, progress)
    experiment = plan.experiment
    task = ModelTask(
        cache=cache.absolute(),
        experiment=replace(experiment, head=HeadConfig()),
        head=asdict(experiment.head),
        source=head_spec(experiment.fusion).source,
        folder=folder.path.absolute(),
        fold="",
        seed=0,
    )
    train = partial(train_model, cluster.own_device, resident_share)
    if not experiment.training.refit:
        _deal(cluster, train, [_of(task, model) for model in unfinished], progress)
        return
    _deal(cluster, train, [_of(task, model) for model in models_to_select(unfinished)], progress)
    epochs = {seed: refit_epochs(plan, folder, seed) for seed in {model.seed for model in unfinished}}
    _deal(cluster, train, [_of(task, model, refit=epochs[model.seed]) for model in unfinished], progress)


def _of(task: ModelTask, model: RunModel, refit: int = 0) -> ModelTask:
    return replace(task, fold=model.fold.name, seed=model.seed, refit=refit)


def _deal(
    cluster: WorkerCluster, train: Callable[..., EpochScores], tasks: Sequence[ModelTask], progress: TrainingProgress
) -> None:
    """Trains models on workers.

    Raises:
        MmerError: if a worker was killed.
    """
    for done, best in cluster.results(train, tasks) if tasks else ():
        if not isinstance(best, EpochScores):
            raise MmerError(
                f"the worker that trained fold {done.fold}, seed {done.seed} was killed ({best}); repeat the command "
                "to resume"
            )
        progress.start(done.fold, done.seed, done.refit or done.experiment.training.epochs)
        progress.end(best)


def train_model(
    own_device: Callable[[str], torch.device], resident_share: float, task: ModelTask, device: str
) -> EpochScores:
    """Trains, scores and writes one model on a worker; returns its chosen epoch.

    Args:
        own_device: returns the device of the worker that calls it, from its name on the command line.
        resident_share: share of the device's memory for features that are held there, in [0, 1].
        task: the model.
        device: name of the device on the command line.

    Raises:
        MmerError: if the worker cannot import the head or has another version of its file, a loss is not finite, or
            memory runs out.
    """
    fusion = task.experiment.fusion
    if head_spec(fusion).source != task.source:
        raise MmerError(
            f"a worker has another version of the file of head {fusion}; copy the file, restart the workers"
        )
    plan = plan_run(replace(task.experiment, head=config_for(fusion, task.head)), open_cache(task.cache))
    fold = next(fold for fold in plan.split.folds if fold.name == task.fold)
    model = RunModel(
        plan=plan,
        fold=fold,
        seed=task.seed,
        folder=RunFolder(task.folder).model(task.fold, task.seed),
        save_every_s=SAVE_EVERY_S,
        stopping=never_stop,
    )
    source = load_source(plan, own_device(device), resident_share)
    if task.refit:
        return refit_model(model, source, SilentProgress(), epochs=task.refit)
    if plan.experiment.training.refit:
        return select_epoch(model, source, SilentProgress())
    return model.run(source, SilentProgress())
