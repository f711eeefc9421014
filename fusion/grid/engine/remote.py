"""A grid on many machines: one combination is one task; what comes back is written by the one who asked.

The machines need mmer in the same version and the cache at the same path; the journal only the one who asks.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

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
from fusion.head import HeadConfig
from fusion.heads.catalog import config_for, head_spec
from fusion.training.loop import TrainedModel

HELD = 2  # sources that a worker keeps between tasks
_held: dict[tuple[str, float, str], CachedFeatures] = {}


@dataclass(frozen=True, kw_only=True)
class Task:
    """The models of one combination that are to be trained.

    Attributes:
        place: of the combination among those of the grid.
        cache: path or pattern.
        experiment: the run that it alone would be, with a configuration of no head in particular: the class of a head's
            own configuration may be unknown to a worker until it imports the head.
        head: fields of the configuration of the head.
        source: digest of the file of a head that is named by its import path, else empty.
        models: name of the fold and seed of each.
    """

    place: int
    cache: Path
    experiment: Experiment
    head: Mapping[str, object]
    source: str
    models: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sent:
    """What a worker sends back of one model."""

    trained: TrainedModel | None
    failure: str
    notes: tuple[str, ...]


class Results(Protocol):
    """Runs tasks on workers, as `featurize.runtime.cluster.Cluster.results` does."""

    def __call__(self, task: Callable[[Task, str], list[Sent]], items: Iterable[Task]) -> Iterator[tuple[Task, Any]]:
        """Gives each task with its result, or with what killed its worker."""
        ...


class GridCluster(Protocol):
    """Workers that train models, such as `featurize.runtime.cluster.Cluster`."""

    @property
    def results(self) -> Results:
        """Runs tasks on the workers."""
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
        watcher: notified of models and epochs.
        resident_share: share of a device's memory that features may take, in [0, 1].
    """

    cluster: GridCluster
    cache: Path
    journal: Journal
    watcher: GridProgress
    resident_share: float
    name: ClassVar[str] = "dask"

    def run(self, models: Sequence[Model], sources: Sources) -> Mapping[str, ModelOutcome]:
        """Trains all models that the journal does not hold; the workers read the features themselves.

        Returns:
            The failures that are not in the journal, by key.

        Raises:
            MmerError: if a worker cannot read the cache, or the scheduler is gone.
        """
        task = partial(train_task, self.cluster.own_device, self.resident_share)
        return run_on_workers(
            self.cluster.results, task, models, cache=self.cache, journal=self.journal, watcher=self.watcher
        )


def run_on_workers(
    results: Results,
    task: Callable[[Task, str], list[Sent]],
    models: Sequence[Model],
    *,
    cache: Path,
    journal: Journal,
    watcher: GridProgress,
) -> Mapping[str, ModelOutcome]:
    """Trains all models that the journal does not hold.

    Args:
        results: of a cluster.
        task: `train_task` with all but its last two arguments bound.
        models: of any combinations.
        cache: path or pattern, the same on all machines.
        journal: that keeps what came of them.
        watcher: told how far it is.

    Returns:
        What failed and is not in the journal, by key.

    Raises:
        MmerError: if a worker cannot read the cache, or the scheduler is gone.
    """
    asking = _Asking(models, cache, journal)
    watcher.start(asking.left)
    lost: dict[str, ModelOutcome] = {}
    for sent, came in results(task, asking.tasks()):
        for model, outcome in asking.outcomes(sent, came):
            if outcome.failure and not isinstance(came, list):
                lost[model.key] = outcome
            else:
                journal.write(outcome, torch.device("cpu"))
            watcher.done(outcome)
            asking.release(model)
    return lost


def train_task(own_device: Callable[[str], torch.device], resident_share: float, task: Task, device: str) -> list[Sent]:
    """Trains the models of a task, on a worker.

    Args:
        own_device: gives the device of the worker that asks, from its name on the command line.
        resident_share: share of the device's memory that the features of all that it holds may take.
        task: what to train.
        device: its name.

    Raises:
        MmerError: if the worker cannot import the head, or has another version of its file.
    """
    fusion = task.experiment.fusion
    if head_spec(fusion).source != task.source:
        raise MmerError(f"a worker has another version of the file of head {fusion}; copy the file and restart workers")
    plan = plan_run(replace(task.experiment, head=config_for(fusion, task.head)), open_cache(task.cache))
    source = _source(plan, own_device(device), resident_share / HELD)
    combination = Combination(fields={}, plan=plan)
    by_name = {(model.fold.name, model.seed): model for model in models_of(combination)}
    outcomes = [train_models([by_name[name]], source, _unwatched)[0] for name in task.models]
    return [Sent(trained=one.trained, failure=one.failure, notes=one.notes) for one in outcomes]


def _source(plan: RunPlan, device: torch.device, share: float) -> CachedFeatures:
    """Gives the features of a plan, those of an earlier task where they are the same in every bit."""
    key = str(device), share, digest_of([plan.identity[name] for name in ("streams", "features", "labels", "folds")])
    if key not in _held:
        while len(_held) >= HELD:
            _held.pop(next(iter(_held)))
        _held[key] = Sources([plan], device, share).at(0)
    return _held[key]


class _Asking:
    """The models under way, each claimed from when it is sent until it is written."""

    def __init__(self, models: Sequence[Model], cache: Path, journal: Journal) -> None:
        self._cache, self._journal = cache, journal
        self.left = list({model.key: model for model in models if not journal.holds(model)}.values())
        self._claims: dict[str, ExitStack] = {}
        self._sent: dict[int, list[Model]] = {}

    def tasks(self) -> Iterator[Task]:
        """Gives a task for each combination that has something left; claimed as it is sent."""
        groups: dict[int, list[Model]] = {}
        for model in self.left:
            groups.setdefault(id(model.combination), []).append(model)
        for place, group in enumerate(groups.values()):
            mine = [model for model in group if self._claim(model)]
            if mine:
                self._sent[place] = mine
                experiment = mine[0].combination.plan.experiment
                yield Task(
                    place=place,
                    cache=self._cache.absolute(),
                    experiment=replace(experiment, head=HeadConfig()),
                    head=asdict(experiment.head),
                    source=head_spec(experiment.fusion).source,
                    models=tuple((model.fold.name, model.seed) for model in mine),
                )

    def outcomes(self, task: Task, came: Any) -> list[tuple[Model, ModelOutcome]]:
        """Puts what came back beside what was sent."""
        models = self._sent.pop(task.place)
        if not isinstance(came, list):
            return [(model, ModelOutcome(model=model, failure=f"killed its worker: {came}")) for model in models]
        return [
            (model, ModelOutcome(model=model, trained=one.trained, failure=one.failure, notes=one.notes))
            for model, one in zip(models, came, strict=True)
        ]

    def release(self, model: Model) -> None:
        """Lets go of a model."""
        self._claims.pop(model.key).close()

    def _claim(self, model: Model) -> bool:
        claims = ExitStack()
        if not claims.enter_context(self._journal.claimed(model)) or self._journal.holds(model):
            claims.close()
            return False
        self._claims[model.key] = claims
        return True


def _unwatched(model: Model, scores: object) -> None:
    """A worker tells nobody of its epochs."""
