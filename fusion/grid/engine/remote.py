"""Engine of a cluster: the models of one combination are one task of a worker.

All machines need mmer in the same version and the cache at the same path. Only the machine that runs the grid needs the
journal: it writes the outcomes that workers return.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol

import torch

from cache.errors import MmerError
from cache.joined import open_cache
from fusion.data.features import CachedFeatures
from fusion.experiment.experiment import Experiment
from fusion.experiment.plan import RunPlan, plan_run
from fusion.fingerprint import digest_of
from fusion.grid.combinations import Combination, Model, ModelOutcome, models_of
from fusion.grid.engine.local import GridProgress
from fusion.grid.engine.sources import Sources
from fusion.grid.engine.train import train_models
from fusion.grid.journal import Journal
from fusion.head_config import HeadConfig
from fusion.heads.catalog import config_for, head_spec
from fusion.training.checkpoint import EpochScores

LOADED = 2  # features that a worker keeps between tasks
_loaded: dict[tuple[str, float, str], CachedFeatures] = {}


@dataclass(frozen=True, kw_only=True)
class WorkerTask:
    """The models of one combination that a worker trains.

    Attributes:
        number: number of the combination in this run.
        cache: path or pattern of the cache.
        experiment: experiment of the combination without the configuration of its head, whose class a worker does not
            know until it imports the head.
        head: fields of the configuration of the head.
        source: digest of the file of a head that is named by its import path, else empty.
        models: name of the fold and seed of each model.
    """

    number: int
    cache: Path
    experiment: Experiment
    head: Mapping[str, object]
    source: str
    models: tuple[tuple[str, int], ...]


TrainTask = Callable[[WorkerTask, str], list[ModelOutcome]]  # trains a task on a device of that name


class TaskRunner(Protocol):
    """A function that runs tasks on workers, such as `featurize.runtime.cluster.Cluster.results`."""

    def __call__(self, task: TrainTask, items: Iterable[WorkerTask]) -> Iterator[tuple[WorkerTask, object]]:
        """Yields each task with its outcomes, or with the exception of a task that killed its workers."""
        ...


class GridCluster(Protocol):
    """Workers that train models, such as `featurize.runtime.cluster.Cluster`."""

    @property
    def results(self) -> TaskRunner:
        """Function that runs tasks on the workers."""
        ...

    @property
    def own_device(self) -> Callable[[str], torch.device]:
        """Function that returns the device of the worker that calls it, from its name on the command line."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class RemoteEngine:
    """Engine that trains the models of a grid on workers.

    Attributes:
        cluster: the workers.
        cache: path or pattern, the same on all machines.
        journal: keeps the models.
        progress: notified of models that start and end.
        resident_share: share of a device's memory that features may take, in [0, 1].
    """

    cluster: GridCluster
    cache: Path
    journal: Journal
    progress: GridProgress
    resident_share: float
    name: ClassVar[str] = "dask"

    def run(self, models: Sequence[Model], sources: Sources) -> Mapping[str, ModelOutcome]:
        """Trains the models that the journal lacks; workers read the features themselves.

        Returns:
            Outcomes of the models that killed their worker, by key; they are not in the journal.

        Raises:
            MmerError: if a worker cannot read the cache, or the scheduler is gone.
        """
        task = partial(train_task, self.cluster.own_device, self.resident_share)
        return run_on_workers(
            self.cluster.results, task, models, cache=self.cache, journal=self.journal, progress=self.progress
        )


def run_on_workers(
    run_tasks: TaskRunner,
    train: TrainTask,
    models: Sequence[Model],
    *,
    cache: Path,
    journal: Journal,
    progress: GridProgress,
) -> Mapping[str, ModelOutcome]:
    """Trains the models that the journal lacks, except those that another grid has claimed.

    Args:
        run_tasks: runs tasks on the workers of a cluster.
        train: `train_task` with all but its last two arguments bound.
        models: models of any combinations.
        cache: path or pattern, the same on all machines.
        journal: keeps the models.
        progress: notified of models that start and end.

    Returns:
        Outcomes of the models that killed their worker, by key; they are not in the journal.

    Raises:
        MmerError: if a worker cannot read the cache, or the scheduler is gone.
    """
    tasks = _TaskQueue(models, cache, journal)
    progress.start(tasks.missing)
    lost: dict[str, ModelOutcome] = {}
    for task, result in run_tasks(train, tasks):
        sent = tasks.finish(task)
        if isinstance(result, list):
            outcomes: list[ModelOutcome] = result
        else:
            outcomes = [ModelOutcome(failure=f"killed its worker: {result}")] * len(sent)
            lost |= {model.key: outcome for model, outcome in zip(sent, outcomes, strict=True)}
        for model, outcome in zip(sent, outcomes, strict=True):
            if model.key not in lost:
                journal.write(model, outcome, torch.device("cpu"))
            progress.done(model, outcome)
            tasks.release(model)
    return lost


def train_task(
    own_device: Callable[[str], torch.device], resident_share: float, task: WorkerTask, device: str
) -> list[ModelOutcome]:
    """Trains the models of a task on a worker.

    Args:
        own_device: returns the device of the worker that calls it, from its name on the command line.
        resident_share: share of the device's memory that all features of the worker may take, in [0, 1].
        task: the models to train.
        device: name of the device on the command line.

    Raises:
        MmerError: if the worker cannot import the head, or has another version of its file.
    """
    fusion = task.experiment.fusion
    if head_spec(fusion).source != task.source:
        raise MmerError(
            f"a worker has another version of the file of head {fusion}; copy the file, restart the workers"
        )
    plan = plan_run(replace(task.experiment, head=config_for(fusion, task.head)), open_cache(task.cache))
    source = load_features(plan, own_device(device), resident_share / LOADED)
    combination = Combination(fields={}, plan=plan)
    by_name = {(model.fold.name, model.seed): model for model in models_of(combination)}
    return [train_models([by_name[name]], source, _ignore_epoch)[0] for name in task.models]


def load_features(plan: RunPlan, device: torch.device, share: float) -> CachedFeatures:
    """Loads the features of a plan; those of an earlier task are used again if they are equal in every bit."""
    names = ("streams", "features", "labels", "folds", "tune", "by_fold")  # the last two only if the run has them
    key = str(device), share, digest_of([plan.identity.get(name) for name in names])
    if key not in _loaded:
        while len(_loaded) >= LOADED:
            _loaded.pop(next(iter(_loaded)))
        _loaded[key] = Sources([plan], device, share).at(0)
    return _loaded[key]


def _ignore_epoch(model: Model, scores: EpochScores) -> None:
    """Does nothing: a worker reports no epochs."""


class _TaskQueue:
    """The tasks of a grid; a model is claimed from when its task is taken until it is written."""

    def __init__(self, models: Sequence[Model], cache: Path, journal: Journal) -> None:
        self._cache, self._journal = cache, journal
        self.missing = list({model.key: model for model in models if not journal.holds(model)}.values())
        self._claims: dict[str, ExitStack] = {}
        self._sent: dict[int, list[Model]] = {}

    def __iter__(self) -> Iterator[WorkerTask]:
        """Yields a task for each combination with models to train."""
        groups: dict[int, list[Model]] = {}
        for model in self.missing:
            groups.setdefault(id(model.combination), []).append(model)
        for number, group in enumerate(groups.values()):
            claimed = [model for model in group if self._claim(model)]
            if claimed:
                self._sent[number] = claimed
                experiment = claimed[0].combination.plan.experiment
                yield WorkerTask(
                    number=number,
                    cache=self._cache.absolute(),
                    experiment=replace(experiment, head=HeadConfig()),
                    head=asdict(experiment.head),
                    source=head_spec(experiment.fusion).source,
                    models=tuple((model.fold.name, model.seed) for model in claimed),
                )

    def finish(self, task: WorkerTask) -> list[Model]:
        """Returns the models of a finished task, in its order."""
        return self._sent.pop(task.number)

    def release(self, model: Model) -> None:
        """Releases the claim on a model."""
        self._claims.pop(model.key).close()

    def _claim(self, model: Model) -> bool:
        claims = ExitStack()
        if not claims.enter_context(self._journal.claim(model)) or self._journal.holds(model):
            claims.close()
            return False
        self._claims[model.key] = claims
        return True
