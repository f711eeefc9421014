"""Run plan: a run that can start, with streams, labels and folds selected and all checks passed before any training."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.errors import MmerError
from cache.joined import AnyCache
from fusion.arrays import Indices
from fusion.evaluation.catalog import loss_of, task_of, with_loss
from fusion.evaluation.task import Task
from fusion.experiment.experiment import Experiment
from fusion.experiment.featurize_commands import featurize_command, repair_command
from fusion.experiment.streams import StreamSelection, head_inputs, select_streams
from fusion.fingerprint import digest_of, without_defaults
from fusion.head_config import HeadInputs
from fusion.heads.catalog import head_spec
from fusion.protocols.dev import SPEAKERS
from fusion.protocols.split import Split, split_cache
from fusion.training.config import TUNING, TrainConfig

if TYPE_CHECKING:
    import torch

    from fusion.data.features import CachedFeatures
    from fusion.end_to_end.learning.start import Start
    from fusion.head import Head


OWN = "#"  # in the role of a stream that only some folds read
EARLIER_DEV = "dev is drawn as version 0.1 did, which began these models; another --out draws it by share of utterances"


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
        starts: role -> where the learning of its encoder starts; empty if all features are frozen.
    """

    experiment: Experiment
    cache: AnyCache
    selection: StreamSelection
    split: Split
    inputs: HeadInputs
    identity: dict[str, Any]
    starts: "Mapping[str, Start]" = field(default_factory=dict)

    @property
    def task(self) -> Task:
        """The task of the run, with the main loss of its training."""
        return with_loss(task_of(self.identity), self.experiment.training.loss, self.experiment.training.focal_gamma)

    def task_of(self, train: Indices, fold: str) -> Task:
        """Returns the task of a training, with the scale of its targets.

        Args:
            train: indices of the training subset, int64 ``(n,)``.
            fold: name of the fold, for messages.

        Raises:
            MmerError: if all training utterances have the same value of a dimension.
        """
        return self.task.scaled(self.split.scale(train, fold))

    def with_targets(self, source: "CachedFeatures", train: Indices, fold: str) -> "CachedFeatures":
        """Returns features with the targets of a training, rated values scaled; the same features for classes.

        Args:
            source: features of the plan.
            train: indices of the training subset, int64 ``(n,)``.
            fold: name of the fold, for messages.
        """
        values, scale = self.split.values, self.split.scale(train, fold)
        if values is None:
            return source
        return source.with_labels(values.astype(np.float32) if scale is None else scale.to_unit(values))

    @property
    def every_stream(self) -> dict[str, str]:
        """Role -> stream, with a role for each stream that only some folds read."""
        choices = self.selection.choices
        return {**self.selection.streams, **{_own(role, name): name for role in choices for name in choices[role]}}

    def features(
        self, streams: Mapping[str, str], *, device: "torch.device", chosen: Indices, resident_share: float
    ) -> "CachedFeatures":
        """Opens features for the run; an encoder that learns from waveforms gets the recordings.

        Args:
            streams: role -> stream; those of the run, and perhaps of others that share them.
            device: device of the batches.
            chosen: indices of the utterances that batches may contain.
            resident_share: share of the device's memory for features that are held there, in [0, 1].

        Raises:
            MmerError: if a recording is missing or has changed, or rows of the cache are damaged.
        """
        options: dict[str, Any] = {"device": device, "chosen": chosen, "resident_share": resident_share}
        options["repair"] = partial(repair_command, self.cache)
        role = next((role for role, start in self.starts.items() if start.tune.wave), "")
        if not role:
            from fusion.data.features import CachedFeatures

            return CachedFeatures(self.cache, streams, self.split.classes, **options)
        from fusion.end_to_end.learning.wave import WaveFeatures

        root = self.experiment.root
        return WaveFeatures(self.cache, streams, self.split.classes, role=role, root=root, **options)

    def of_fold(self, source: "CachedFeatures", fold: str) -> "CachedFeatures":
        """Returns features with the streams of a fold.

        Args:
            source: features of every stream of the plan.
            fold: name of the fold.
        """
        chosen = self.split.chosen.get(fold, {})
        return source.with_roles({role: _own(role, name) for role, name in chosen.items()}) if chosen else source

    @property
    def frozen(self) -> bool:
        """True if no encoder learns, and none was fine-tuned before its features were computed."""
        if self.starts:
            return False
        named = [*self.selection.required, *self.selection.training_only, *self.selection.indirect]
        return not any(self.cache.stream(name).spec.trained_on for name in named)

    @property
    def identity_without_defaults(self) -> dict[str, Any]:
        """The identity without fields that have their defaults; folder names contain its digest."""
        return without_defaults(self.identity, self.experiment.defaults)

    @property
    def notes(self) -> list[str]:
        """The lines to print with the scores: promise, features, notes on the split and on the experiment."""
        of_streams = [self.split.promise, self._features, *self._event_notes]
        return [*of_streams, *self.split.notes, *self.experiment.notes, *self._warmup_notes]

    @property
    def test_parts(self) -> dict[str, frozenset[str]]:
        """The ids of the utterances of each of several test subsets; empty if every fold has a single one."""
        parts: dict[str, set[str]] = {}
        for fold in self.split.folds:
            for name, indices in fold.test_parts.items():
                parts.setdefault(name, set()).update(self.cache.ids[index] for index in indices.tolist())
        return {name: frozenset(ids) for name, ids in parts.items()}

    @property
    def restrictions(self) -> list[str]:
        """The options that leave out utterances of the corpus and the label set."""
        only = [f"--only {column}={'+'.join(values)}" for column, values in self.experiment.only.items()]
        incomplete = any(len(fold.test) < self.split.totals[fold.name] for fold in self.split.folds)
        return [*only, *(["--allow-missing"] if incomplete and self.experiment.allow_missing else [])]

    @property
    def scoring_note(self) -> str:
        """The line to print on how ``mmer-train`` selects epochs, or the value of a fitted head, and scores test."""
        from fusion.head import FittedHead

        monitor, head = self.experiment.training.monitor, head_spec(self.experiment.fusion).head_class()
        if issubclass(head, FittedHead):
            values = ", ".join(f"{value:g}" for value in head.candidates)
            return (
                f"{head.candidate_name} is selected on dev by {monitor}, and column epoch is its place among {values}; "
                "each test subset is scored once, with the selected value"
            )
        return f"epochs are selected on dev by {monitor}; each test subset is scored once, with the selected epoch"

    @property
    def _event_notes(self) -> list[str]:
        """A note on streams of transcripts whose event tags are kept: annotators hear what a recognizer may not."""
        read = dict.fromkeys([*self.selection.required, *self.selection.training_only])
        kept = [name for name in read if self.cache.stream(name).spec.preprocessing.get("event_tags") == "keep"]
        return [f"event tags such as [LAUGHTER] are kept in the transcripts of {', '.join(kept)}"] if kept else []

    @property
    def _warmup_notes(self) -> list[str]:
        training = self.experiment.training
        most = max(len(fold.train) for fold in self.split.folds)
        steps = training.epochs * -(-most // training.batch_size)
        if training.warmup_steps <= steps:
            return []
        return [f"the warm-up has {training.warmup_steps} steps, the longest training {steps}: lr is not reached"]

    @property
    def _features(self) -> str:
        learned = {start.stream for start in self.starts.values()}
        names = [name for name in self.selection.required if name not in learned]
        tuned_before = [name for name in names if self.cache.stream(name).spec.trained_on]
        unchanged = [name for name in names if name not in tuned_before]
        parts = {
            "tuned encoders: ": [start.words for start in self.starts.values()],
            "features of fine-tuned encoders: ": tuned_before,
            "frozen features of ": unchanged,
        }
        return "; ".join(words + ", ".join(members) for words, members in parts.items() if members)


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
            "choices": selection.choices,
            "labels": experiment.labels,
            "target": experiment.target,
            "protocol": experiment.protocol,
            "only": dict(experiment.only),
            "data_seed": experiment.training.data_seed,
            "allow_missing": experiment.allow_missing,
            "allow_leak": experiment.allow_leak,
            "earlier_dev": experiment.earlier_dev,
        }
        folds = experiment.own_folds
        key = digest_of({**request, "own_folds": folds.digest if folds else ""})
        if key not in self._known:
            self._known[key] = split_cache(self.cache, **request, own_folds=folds)
        return self._known[key]


def check_data(experiment: Experiment, cache: AnyCache, splits: Splits | None = None) -> Splits:
    """Checks the streams, labels and folds of an experiment as `plan_run` does, before torch is imported.

    Of encoders that learn, only their roles and fields are checked: where they start to learn needs torch.

    Args:
        experiment: requested experiment.
        cache: open cache.
        splits: splits of this cache that other plans have made; None if there are none.

    Returns:
        The splits of the cache, for `plan_run`.

    Raises:
        MmerError: if a stream is missing or a promise does not hold.
    """
    _check_tunes(experiment)
    splits = splits or Splits(cache)
    if not experiment.tune:
        splits.of(*_selected(experiment, cache, {}))
    return splits


def plan_run(experiment: Experiment, cache: AnyCache, splits: Splits | None = None) -> RunPlan:
    """Selects streams, labels and folds of an experiment, and checks them before any training.

    Args:
        experiment: requested experiment.
        cache: open cache.
        splits: splits of this cache that other plans have made; None if there are none.

    Raises:
        MmerError: if a stream is missing, a promise does not hold, or the head cannot be built from the streams.
    """
    starts = _starts(experiment, cache)
    experiment, selection = _selected(experiment, cache, {role: start.stream for role, start in starts.items()})
    split = (splits or Splits(cache)).of(experiment, selection)
    identity = experiment.identity(cache, selection, split)
    loss = loss_of(task_of(identity), experiment.training.loss)
    plan = RunPlan(
        experiment=experiment,
        cache=cache,
        selection=selection,
        split=split,
        inputs=head_inputs(cache, selection, split.labels.names, starts, experiment.label_encoder, loss=loss),
        identity=identity,
        starts=starts,
    )
    build(plan, seed=0)  # raises the error before any training if head and streams do not fit
    return plan


def plan_earlier(plan: RunPlan) -> RunPlan | None:
    """Plans the same run with dev drawn as version 0.1 did; returns None if that changes no fold.

    What that version began is continued with the folds that it recorded.

    Args:
        plan: plan of the run.
    """
    if all(fold.dev_of != SPEAKERS for fold in plan.split.folds) or plan.experiment.earlier_dev:
        return None
    notes = (*plan.experiment.notes, EARLIER_DEV)
    earlier = plan_run(replace(plan.experiment, earlier_dev=True, notes=notes), plan.cache)
    return None if earlier.identity["folds"] == plan.identity["folds"] else earlier


def _own(role: str, stream: str) -> str:
    """Returns the role of a stream that only some folds read."""
    return f"{role}{OWN}{stream}"


def build(plan: RunPlan, *, seed: int) -> "Head":
    """Builds the head of a run.

    Args:
        plan: plan of the run.
        seed: random seed of the model.

    Raises:
        MmerError: if the configuration of the head does not fit the streams.
    """
    from fusion.head import FittedHead
    from fusion.heads.build import build_head  # imports torch, which nothing that is checked before needs

    head = build_head(plan.experiment.fusion, plan.experiment.head, plan.inputs, seed=seed)
    if isinstance(head, FittedHead) and not plan.task.is_classification:
        fusion, target = plan.experiment.fusion, plan.experiment.target
        raise MmerError(
            f"head {fusion} is fitted to one class of each utterance, not to --target {target}; choose another"
        )
    return head


def build_model(plan: RunPlan, *, seed: int) -> "Head":
    """Builds the model of a run: its head, with the encoders that learn in front of it.

    Args:
        plan: plan of the run.
        seed: random seed of the model.

    Raises:
        MmerError: if the configuration of the head does not fit the streams, or an encoder is not available or has
            other weights.
    """
    head = build(plan, seed=seed)
    if not plan.starts:
        return head
    from fusion.end_to_end.learning.build import build_tuned

    training = replace(plan.experiment.training, seed=seed)
    return build_tuned(head, plan.starts, training, folders=plan.experiment.encoders)


def _selected(
    experiment: Experiment, cache: AnyCache, learned: Mapping[str, str]
) -> tuple[Experiment, StreamSelection]:
    """Selects the streams of an experiment, and binds its head to them.

    Args:
        experiment: requested experiment.
        cache: open cache.
        learned: role -> stream that an encoder starts to learn from.
    """
    selection = select_streams(cache, experiment.head, experiment.streams, learned)
    head = experiment.head.bound_to(selection.streams)
    if head == experiment.head:
        return experiment, selection
    experiment = replace(experiment, head=head)  # which streams it reads may follow from what the cache has
    return experiment, select_streams(cache, head, experiment.streams, learned)


def _check_tunes(experiment: Experiment) -> None:
    """Checks the roles of the encoders that learn, and the fields that only these have."""
    if not experiment.tune:
        defaults = TrainConfig()
        given = [name for name in TUNING if getattr(experiment.training, name) != getattr(defaults, name)]
        if given:
            raise MmerError(f"{', '.join(given)}: only tuned encoders have this; name one with --tune ROLE")
    for role in experiment.tune:
        if role not in experiment.head.roles:
            reads = ", ".join(experiment.head.roles)
            raise MmerError(f"--tune {role}: head {experiment.fusion} does not read {role}; it reads {reads}")


def _starts(experiment: Experiment, cache: AnyCache) -> "dict[str, Start]":
    """Finds where the encoders of a run start to learn."""
    _check_tunes(experiment)
    if not experiment.tune:
        return {}
    from fusion.end_to_end.learning.start import find_start  # imports torch and transformers

    command = partial(featurize_command, cache)
    return {
        role: find_start(cache, tune, experiment.streams.get(role), command, experiment.encoders)
        for role, tune in experiment.tune.items()
    }
