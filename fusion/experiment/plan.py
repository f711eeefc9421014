"""Run plan: a run that can start, with streams, labels and folds selected and all checks passed before any training."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cache.joined import AnyCache
from fusion.evaluation.task import Task, task_of
from fusion.experiment.experiment import Experiment
from fusion.experiment.streams import StreamSelection, head_inputs, select_streams
from fusion.fingerprint import digest_of, without_defaults
from fusion.head_config import HeadInputs
from fusion.protocols.split import Split, split_cache

if TYPE_CHECKING:
    from fusion.head import Head


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A run that can start.

    Attributes:
        experiment: requested experiment.
        cache: open cache that the run reads.
        selection: selected streams.
        split: label set and folds.
        inputs: inputs to build the head from.
        identity: identity of the run: all values that determine the results, as plain values by section.
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
        """True if no encoder was fine-tuned before its features were computed."""
        named = [*self.selection.required, *self.selection.training_only, *self.selection.indirect]
        return not any(self.cache.stream(name).spec.trained_on for name in named)

    @property
    def identity_without_defaults(self) -> dict[str, Any]:
        """The identity without fields that have their defaults; folder names contain its digest."""
        return without_defaults(self.identity, self.experiment.defaults)

    @property
    def notes(self) -> list[str]:
        """The lines to print with the scores: promise, features, notes on the split."""
        return [self.split.promise, self._features, *self.split.notes]

    @property
    def restrictions(self) -> list[str]:
        """The options that leave out utterances of the corpus and the label set."""
        only = [f"--only {column}={'+'.join(values)}" for column, values in self.experiment.only.items()]
        incomplete = any(len(fold.test) < self.split.totals[fold.name] for fold in self.split.folds)
        return [*only, *(["--allow-missing"] if incomplete and self.experiment.allow_missing else [])]

    @property
    def scoring_note(self) -> str:
        """The line to print on how ``mmer-train`` selects epochs and scores test subsets."""
        monitor = self.experiment.training.monitor
        return f"epochs are selected on dev by {monitor}; each test subset is scored once, with the selected epoch"

    @property
    def _features(self) -> str:
        names = ", ".join(self.selection.required)
        return f"frozen features of {names}" if self.frozen else f"features of fine-tuned encoders: {names}"


class Splits:
    """The splits of one cache that are known already, so that a grid does not split it for every combination."""

    def __init__(self, cache: AnyCache) -> None:
        self.cache = cache
        self._known: dict[str, Split] = {}

    def of(self, experiment: Experiment, selection: StreamSelection) -> Split:
        """Returns the split of an experiment over its streams.

        Raises:
            MmerError: if a promise does not hold, a stream leaks, or test utterances have no features.
        """
        request: dict[str, Any] = {
            "streams": selection.required,
            "training_streams": selection.training_only,
            "other_streams": selection.indirect,
            "labels": experiment.labels,
            "protocol": experiment.protocol,
            "only": dict(experiment.only),
            "data_seed": experiment.training.data_seed,
            "allow_missing": experiment.allow_missing,
            "allow_leak": experiment.allow_leak,
        }
        key = digest_of(request)
        if key not in self._known:
            self._known[key] = split_cache(self.cache, **request)
        return self._known[key]


def plan_run(experiment: Experiment, cache: AnyCache, splits: Splits | None = None) -> RunPlan:
    """Selects streams, labels and folds of an experiment, and checks them before any training.

    Args:
        experiment: requested experiment.
        cache: open cache.
        splits: splits of this cache that other plans have made; None if there are none.

    Raises:
        MmerError: if a stream is missing, a promise does not hold, or the head cannot be built from the streams.
    """
    selection = select_streams(cache, experiment.head, experiment.streams)
    split = (splits or Splits(cache)).of(experiment, selection)
    plan = RunPlan(
        experiment=experiment,
        cache=cache,
        selection=selection,
        split=split,
        inputs=head_inputs(cache, selection, split.labels.names),
        identity=experiment.identity(cache, selection, split),
    )
    build(plan, seed=0)  # raises the error before any training if head and streams do not fit
    return plan


def build(plan: RunPlan, *, seed: int) -> "Head":
    """Builds the head of a run.

    Args:
        plan: plan of the run.
        seed: random seed of the model.

    Raises:
        MmerError: if the configuration of the head does not fit the streams.
    """
    from fusion.heads.build import build_head  # imports torch, which nothing that is checked before needs

    return build_head(plan.experiment.fusion, plan.experiment.head, plan.inputs, seed=seed)
