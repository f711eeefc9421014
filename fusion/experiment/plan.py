"""A run that can start: streams, labels and folds are chosen, and everything that can be checked beforehand is."""

from dataclasses import dataclass
from typing import Any

from cache.joined import AnyCache
from fusion.evaluation.task import Task, task_of
from fusion.experiment.experiment import Experiment
from fusion.experiment.streams import StreamSelection, head_inputs, select_streams
from fusion.fingerprint import without_defaults
from fusion.head import Head, HeadInputs
from fusion.heads.catalog import build_head
from fusion.protocols.split import Split, split_cache


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A run that can start.

    Attributes:
        experiment: what was asked for.
        cache: what it reads.
        selection: the streams.
        split: label set and folds.
        inputs: what the head is built from.
        identity: what decides the results, as plain values.
    """

    experiment: Experiment
    cache: AnyCache
    selection: StreamSelection
    split: Split
    inputs: HeadInputs
    identity: dict[str, Any]

    @property
    def task(self) -> Task:
        """The task of the run."""
        return task_of(self.identity)

    @property
    def frozen(self) -> bool:
        """Whether no encoder was fine-tuned before its features were computed."""
        named = [*self.selection.required, *self.selection.training_only, *self.selection.indirect]
        return not any(self.cache.stream(name).spec.trained_on for name in named)

    @property
    def identity_without_defaults(self) -> dict[str, Any]:
        """What decides the results, without the fields that have their defaults; names are made of its digest."""
        return without_defaults(self.identity, self.experiment.defaults)

    @property
    def notes(self) -> list[str]:
        """All that is to be printed beside the scores."""
        return [self.split.promise, self._features, *self.split.notes]

    @property
    def narrowing(self) -> list[str]:
        """The options that leave utterances of its corpus and labels out."""
        only = [f"--only {column}={'+'.join(values)}" for column, values in self.experiment.only.items()]
        lacking = any(len(fold.test) < self.split.totals[fold.name] for fold in self.split.folds)
        return [*only, *(["--allow-missing"] if lacking and self.experiment.allow_missing else [])]

    @property
    def opening(self) -> str:
        """How epochs are chosen and tests opened by ``mmer-train``, to print."""
        monitor = self.experiment.training.monitor
        return f"epochs are chosen on dev, by {monitor}; each test part is opened once, for the epoch that was chosen"

    @property
    def _features(self) -> str:
        names = ", ".join(self.selection.required)
        return f"frozen features of {names}" if self.frozen else f"features of fine-tuned encoders: {names}"


def plan_run(experiment: Experiment, cache: AnyCache) -> RunPlan:
    """Chooses streams, labels and folds, and checks every promise, before anything is trained.

    Raises:
        MmerError: if a stream is missing, a promise does not hold, or the head cannot be built of what there is.
    """
    chosen = select_streams(cache, experiment.head, experiment.streams)
    split = split_cache(
        cache,
        streams=chosen.required,
        training_streams=chosen.training_only,
        other_streams=chosen.indirect,
        labels=experiment.labels,
        protocol=experiment.protocol,
        only=experiment.only,
        data_seed=experiment.training.data_seed,
        allow_missing=experiment.allow_missing,
        allow_leak=experiment.allow_leak,
    )
    plan = RunPlan(
        experiment=experiment,
        cache=cache,
        selection=chosen,
        split=split,
        inputs=head_inputs(cache, chosen, split.labels.names),
        identity=experiment.identity(cache, chosen, split),
    )
    build(plan, seed=0)  # what does not fit together shows now
    return plan


def build(plan: RunPlan, *, seed: int) -> Head:
    """Builds the head of a run.

    Raises:
        MmerError: if its configuration does not suit the streams.
    """
    return build_head(plan.experiment.fusion, plan.experiment.head, plan.inputs, seed=seed)
