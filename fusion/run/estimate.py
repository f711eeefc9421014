"""Estimate of a run: members of every subset, parameters, memory, disk space, time; trains only a few batches."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from cache.joined import AnyCache
from fusion.arrays import Indices
from fusion.data.features import RESIDENT_SHARE, CachedFeatures
from fusion.data.memory import memory_needed, peak_memory, reset_peak
from fusion.data.pooled import pooled_once
from fusion.experiment.experiment import Experiment
from fusion.experiment.plan import RunPlan, Splits, plan_run
from fusion.experiment.request import ExperimentRequest
from fusion.head import FittedHead, Head
from fusion.heads.build import count_parameters
from fusion.protocols.folds import Fold
from fusion.run.cross_corpus import plan_other_corpus
from fusion.run.cross_validation import build_and_prepare_head, memory_remedy, utterances_of
from fusion.run.folder import RUN, RunFolder
from fusion.run.notes import arrange
from fusion.run.reference import PROBE, reference_folder, reference_of
from fusion.run.train import RunOptions, default_run
from fusion.training.loop import train_epochs, train_fold

STEPS = 4  # timed steps, after one that is not timed: the first sets up the optimizer and is slower
DEV_BATCHES = 2  # batches of dev that are timed
FLOAT_BYTES = 4
SPEAKERS = 6  # listed by name in a table; more than that only count
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Members:
    """The utterances of one subset of a fold.

    Attributes:
        fold: name of the fold.
        subset: ``train``, ``dev`` or ``test``.
        utterances: number of utterances.
        speakers: speakers, sorted; without unknown ones.
        classes: class -> number of utterances; empty for rated dimensions.
    """

    fold: str
    subset: str
    utterances: int
    speakers: tuple[str, ...]
    classes: dict[str, int]

    @property
    def who(self) -> str:
        """The speakers, or their number where they are many."""
        return ", ".join(self.speakers) if len(self.speakers) <= SPEAKERS else f"{len(self.speakers)} speakers"


@dataclass(frozen=True, kw_only=True)
class RunEstimate:
    """A run that has not started: who is trained on, selected on and tested on, and what it takes.

    Attributes:
        cache: path of the cache.
        folder: run folder that would be written.
        protocol: name of the protocol.
        promise: promise of the protocol, in words.
        members: subsets of every fold.
        classes: names of the classes; empty for rated dimensions.
        models: number of models of all folds and seeds, final models included.
        finished: number of them that the run folder holds.
        parameters: number of trained parameters of a model.
        features_bytes: size of the features of all utterances.
        peak_bytes: peak memory of the timed steps; of the whole process on a CPU.
        disk_bytes: size of the weights of the models to train.
        shortest_s: training time in seconds if every model stops as early as its patience allows.
        longest_s: training time in seconds if every model needs all its epochs.
        measured: description of the measurement.
        notes: notes of the split and the experiment.
        probe: the probe on the same streams and folds; None if it was not requested.
    """

    cache: str
    folder: str
    protocol: str
    promise: str
    members: tuple[Members, ...]
    classes: tuple[str, ...]
    models: int
    finished: int
    parameters: int
    features_bytes: int
    peak_bytes: int
    disk_bytes: int
    shortest_s: float
    longest_s: float
    measured: str
    notes: tuple[str, ...]
    probe: "RunEstimate | None" = None

    @property
    def table(self) -> tuple[Sequence[str], Sequence[Sequence[object]]]:
        """Header and rows of the subsets of every fold, with their speakers in the last column."""
        header = ("fold", "subset", "utterances", *self.classes, "speakers")
        rows = [
            (members.fold, members.subset, members.utterances, *members.classes.values(), members.who)
            for members in self.members
        ]
        return header, rows

    @property
    def files(self) -> str:
        """The files of the run folder, in words."""
        counts = f"{self.models} folders of models (weights, curves, predictions, scores)"
        return f"{counts}, run.json, config.toml, splits.csv, results.json, pictures"

    @property
    def plain(self) -> dict[str, Any]:
        """The estimate as plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """Measured steps of a model: seconds of a step, seconds to score an utterance, or of the fits of a fitted model.

    All features are pooled in `pool_s`, once for all models. A fitted model is fitted for each candidate, of which dev
    selects one, in `fit_s`; the second model of a run with refit and a final model for one candidate, in `once_s`.
    """

    parameters: int
    peak_bytes: int
    step_s: float = 0.0
    score_s: float = 0.0
    fit_s: float = 0.0
    once_s: float = 0.0
    pool_s: float = 0.0
    steps: int = 0


def estimate_run(
    experiment: Experiment,
    cache: AnyCache,
    *,
    splits: Splits | None = None,
    out: Path | None = None,
    named_after: Path | None = None,
    device: torch.device = CPU,
    resident_share: float = RESIDENT_SHARE,
    replace: bool = False,
    final: bool = False,
    test_caches: Sequence[AnyCache] = (),
    test_labels: str | None = None,
    with_probe: bool = False,
) -> RunEstimate:
    """Checks a run as `fusion.run.train.train_run` does and estimates what it takes; writes nothing.

    The arguments are those of `train_run`.

    Raises:
        MmerError: if the experiment does not suit the cache, the folder holds another run, or memory runs out.
    """
    plan = plan_run(experiment, cache, splits)
    for other in test_caches:
        plan_other_corpus(plan, other, labels=test_labels)
    folder = RunFolder(out or default_run(plan, named_after or cache.path))
    finished = 0 if replace else _finished(plan, folder)
    folds, seeds = plan.split.folds, plan.experiment.seeds
    largest = max(folds, key=lambda fold: len(fold.train))
    with memory_needed(device, memory_remedy(plan)):
        trial = _measure(plan, largest, device, resident_share, once=final or plan.experiment.training.refit)
    models = len(folds) * len(seeds)
    share = 1 - finished / models
    times = [len(seeds) * share * sum(_seconds(plan, trial, fold, epochs) for fold in folds) for epochs in _ends(plan)]
    everything = Fold(name="final", train=utterances_of(plan), dev=largest.dev[:0], test=largest.test[:0])
    if final:
        models += len(seeds)
        added = [len(seeds) * _seconds(plan, trial, everything, epochs) for epochs in _ends(plan)]
        times = [time_s + more_s for time_s, more_s in zip(times, added, strict=True)]
    times = [time_s and time_s + trial.pool_s for time_s in times]
    features = plan.features(plan.every_stream, device=CPU, chosen=everything.train, resident_share=0)
    probe = None
    if with_probe and experiment.fusion != PROBE:
        shared: dict[str, Any] = {"named_after": named_after, "device": device, "replace": replace}
        shared["resident_share"] = resident_share
        probe = estimate_run(reference_of(plan), cache, out=reference_folder(out), **shared)
    return RunEstimate(
        cache=str(named_after or cache.path),
        folder=str(folder.path),
        protocol=plan.split.protocol,
        promise=plan.split.promise,
        members=tuple(_members(plan)),
        classes=() if plan.split.values is not None and not plan.task.has_classes else plan.split.labels.names,
        models=models,
        finished=finished,
        parameters=trial.parameters,
        features_bytes=features.size_bytes,
        peak_bytes=trial.peak_bytes,
        disk_bytes=(models - finished) * trial.parameters * FLOAT_BYTES,
        shortest_s=times[0],
        longest_s=times[1],
        measured=_described(plan, trial, largest),
        notes=tuple(arrange(plan.notes[1:])),
        probe=probe,
    )


def estimate_across(
    request: ExperimentRequest,
    caches: Sequence[tuple[Path, AnyCache]],
    *,
    out: Path | None = None,
    **options: Unpack[RunOptions],
) -> list[RunEstimate]:
    """Estimates the run on each of several corpora that are scored on each other; the arguments are of `train_across`.

    Raises:
        MmerError: if an experiment does not suit its cache or another one.
    """
    found = []
    for path, cache in caches:
        rest = [other for _, other in caches if other is not cache]
        experiment, folder = request.experiment(cache), out and out / path.stem
        found.append(estimate_run(experiment, cache, out=folder, named_after=path, test_caches=rest, **options))
    return found


def _finished(plan: RunPlan, folder: RunFolder) -> int:
    """Counts the finished models of a run folder.

    Raises:
        MmerError: if the folder holds another run.
    """
    if not (folder.path / RUN).exists():
        return 0
    folder.check(plan.identity, plan.experiment.defaults)
    return sum(folder.model(fold.name, seed).scored for seed in plan.experiment.seeds for fold in plan.split.folds)


def _members(plan: RunPlan) -> list[Members]:
    utterances, split = plan.cache.utterances, plan.split
    names = split.labels.names if plan.task.has_classes else ()
    found = []
    for fold in split.folds:
        for subset, indices in fold.subsets.items():
            counts = Counter(split.classes[indices].tolist())
            found.append(
                Members(
                    fold=fold.name,
                    subset=subset,
                    utterances=len(indices),
                    speakers=tuple(sorted({utterances[index].speaker for index in indices.tolist()} - {""})),
                    classes={name: counts[number] for number, name in enumerate(names)},
                )
            )
    return found


def _measure(plan: RunPlan, fold: Fold, device: torch.device, resident_share: float, *, once: bool) -> _Trial:
    """Trains a few batches of a fold and times them; a fitted head is fitted, if `once` also for one candidate."""
    training = replaced(plan.experiment.training, seed=plan.experiment.seeds[0], epochs=1)
    where: dict[str, Any] = {"device": device, "resident_share": resident_share}
    task = plan.task_of(fold.train, fold.name)
    train, dev = _sampled(plan, fold.train, fold.dev)
    head, source = _prepared(plan, fold, train, dev, **where)
    if isinstance(head, FittedHead):  # its time is not that of steps: the whole fold is fitted
        train_epochs(head, source, train, training, epochs=1, task=task)  # not timed: it imports the solver
        train, dev = fold.train, fold.dev
        head, source = _prepared(plan, fold, train, dev, **where)
    ends: list[float] = []

    def after_batch() -> bool:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        ends.append(time.monotonic())
        return False

    reset_peak(device)
    pool_s = _pooling_seconds(plan, head, source, np.union1d(train, dev)) if isinstance(head, FittedHead) else 0.0
    started = time.monotonic()
    trained = train_fold(head, source, train, dev, training, task=task, stopping=after_batch)
    ended = time.monotonic()
    if isinstance(head, FittedHead) and once:
        train_epochs(head, source, np.union1d(train, dev), training, epochs=trained.best_epoch, task=task)
    once_s = time.monotonic() - ended
    found = _Trial(parameters=count_parameters(head), peak_bytes=peak_memory(device))
    if isinstance(head, FittedHead):
        return replaced(found, fit_s=ended - started, once_s=once_s if once else 0.0, pool_s=pool_s)
    steps = np.diff(ends) if len(ends) > 1 else np.array([ends[0] - started])
    score_s = (ended - ends[-1]) / max(1, len(dev))
    return replaced(found, step_s=float(steps.mean()), score_s=score_s, steps=len(steps))


def _pooling_seconds(plan: RunPlan, head: FittedHead, source: CachedFeatures, indices: Indices) -> float:
    """Pools some utterances, which the source keeps; returns the time for all utterances of the run."""
    started = time.monotonic()
    pooled_once([head.to(source.device)], source, indices, precision="float32")
    return (time.monotonic() - started) * len(utterances_of(plan)) / len(indices)


def _sampled(plan: RunPlan, train: Indices, dev: Indices) -> tuple[Indices, Indices]:
    """Draws utterances for a few batches; those of training have every class that the subset has."""
    draw, batch = np.random.default_rng(0), plan.experiment.training.batch_size
    first = np.unique(plan.split.classes[train], return_index=True)[1]
    drawn = draw.choice(len(train), min(len(train), (STEPS + 1) * batch), replace=False)
    rest = drawn[~np.isin(drawn, first)][: max(0, len(drawn) - len(first))]
    scored = draw.choice(dev, min(len(dev), DEV_BATCHES * batch), replace=False)
    return np.sort(train[np.concatenate([first, rest])]), np.sort(scored)


def _prepared(
    plan: RunPlan, fold: Fold, train: Indices, dev: Indices, *, device: torch.device, resident_share: float
) -> tuple[Head, CachedFeatures]:
    """Opens the features of a trial, and builds its head."""
    chosen = np.union1d(train, dev)
    source = plan.features(plan.every_stream, device=device, chosen=chosen, resident_share=resident_share)
    source = plan.with_targets(plan.of_fold(source, fold.name), fold.train, fold.name)
    return build_and_prepare_head(plan, source, train, seed=plan.experiment.seeds[0])[0], source


def _ends(plan: RunPlan) -> tuple[int, int]:
    """Returns the least and the greatest number of epochs of a model."""
    training = plan.experiment.training
    return min(training.epochs, training.patience + 1), training.epochs


def _seconds(plan: RunPlan, trial: _Trial, fold: Fold, epochs: int) -> float:
    """Returns the time of a model that is trained for some epochs, and scored once."""
    if trial.fit_s:
        selects, refits = len(fold.dev) > 0, plan.experiment.training.refit or not len(fold.dev)
        return selects * trial.fit_s + refits * trial.once_s
    training = plan.experiment.training
    seen = len(fold.train) + (len(fold.train) + len(fold.dev) if training.refit and len(fold.dev) else 0)
    batches = -(-seen // training.batch_size)
    return epochs * (batches * trial.step_s + len(fold.dev) * trial.score_s) + len(fold.test) * trial.score_s


def _described(plan: RunPlan, trial: _Trial, fold: Fold) -> str:
    if trial.fit_s:
        return f"by one fit of fold {fold.name}{', and one on its train and dev' if trial.once_s else ''}"
    least, most = _ends(plan)
    batch = min(plan.experiment.training.batch_size, len(fold.train))
    steps = f"{trial.steps} step{'s' if trial.steps > 1 else ''} of {batch} utterances took {trial.step_s:.3g} s each"
    return f"{steps}; a model needs {f'{least} to {most}' if least < most else most} epochs"
