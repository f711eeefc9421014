"""Cross-corpus scores: the models of a finished run on the utterances of another cache.

Streams are found by their keys, so equal keys mean equal computation, whatever the streams are called. Targets are
joined by `fusion.run.other_targets`. Guesses are among the classes that the other corpus has, and so are UA and macro
F1: a class that it does not annotate cannot be right.

Every model of the run (fold and seed) is scored on all utterances of the other corpus. None of them was seen in
training, unless the corpora share recordings, which is stated. Final models, which are trained on the whole corpus of
the run, are scored apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cache.errors import MmerError
from cache.joined import AnyCache, AnyStream
from cache.layout import COMMITTED
from cache.stream import SPEECH
from fusion.arrays import Indices
from fusion.data.features import RESIDENT_SHARE, CachedFeatures
from fusion.data.memory import memory_needed
from fusion.evaluation.catalog import task_of
from fusion.evaluation.statistics import bootstrap_interval, clusters_of, pooled_scores
from fusion.evaluation.task import Task
from fusion.experiment.featurize_commands import corpus_of, featurize_command
from fusion.experiment.plan import RunPlan
from fusion.heads.catalog import is_import_path
from fusion.protocols.folds import Fold
from fusion.protocols.leaks import check_encoders
from fusion.protocols.targets import Range
from fusion.run.final import read_final_models
from fusion.run.folder import FINAL, RunFolder
from fusion.run.load import load_model, load_scale
from fusion.run.other_targets import join_targets
from fusion.run.results import KINDS
from fusion.training.evaluate import predict_probabilities

HEADER = ("trained on", "tested on", "test")
FEWEST = 2  # classes that two corpora must have in common


@dataclass(frozen=True, kw_only=True, eq=False)
class OtherCorpus:
    """A cache that the models of a run can be scored on.

    Attributes:
        name: name of the cache in tables.
        cache: open cache.
        truth: class of each utterance among those of the run, int64 ``(n,)``; or shares of votes, or rated values,
            float64 ``(n, outputs)``. Utterances that are left out have -1, no share, or NaN.
        chosen: utterances that are scored, int64 ``(n,)``.
        streams: fold of the run -> role -> stream of the cache.
        labels: classes of the run that occur; all dimensions for rated values.
        notes: notes on what is left out.
        scales: dimension -> scale of the run's corpus and scale of the other, where they differ.
    """

    name: str
    cache: AnyCache
    truth: npt.NDArray[Any]
    chosen: Indices
    streams: Mapping[str, Mapping[str, str]]
    labels: tuple[str, ...]
    notes: tuple[str, ...]
    scales: Mapping[str, tuple[Range, Range]] = field(default_factory=dict)

    def guess(self, predictions: npt.NDArray[Any], task: Task, names: Sequence[str]) -> npt.NDArray[Any]:
        """Returns what a model guesses on this corpus.

        Args:
            predictions: probabilities or values on the scale of the run's corpus, ``(n, outputs)``.
            task: task of the run.
            names: names of the outputs.

        Returns:
            Classes, int64 ``(n,)``; or probabilities of the classes that occur, or values on the scale of this corpus,
            float64 ``(n, outputs)``.
        """
        if not task.has_classes:
            values = np.array(predictions, dtype=np.float64)
            for index, name in enumerate(names):
                if name in self.scales:
                    (low, high), (least, greatest) = self.scales[name]
                    values[:, index] = least + (values[:, index] - low) * (greatest - least) / (high - low)
            return values
        possible = np.array([name in self.labels for name in names])
        if task.is_classification:
            return task.decide(np.where(possible, predictions, -1))
        shares = np.where(possible, predictions, 0).astype(np.float64)
        return task.decide(shares / np.maximum(shares.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny))


def plan_other_corpus(plan: RunPlan, cache: AnyCache, *, labels: str | None = None) -> OtherCorpus:
    """Joins a run with another cache, before any training.

    Args:
        plan: plan of the run.
        cache: open cache of the other corpus.
        labels: label set of the other corpus; None for that of the run where the corpora have one name, else for the
            default. For rated values, scales as ``--target`` names them, such as ``valence=1:7``.

    Raises:
        MmerError: if the cache lacks a stream or has it with another key, fewer than two classes are common, or an
            encoder was trained on the utterances.
    """
    if any(start.tune.wave for start in plan.starts.values()):
        raise MmerError("--test-cache reads features, and an encoder of this run learns from recordings; leave it out")
    streams = {fold.name: _streams(plan, cache, fold.name) for fold in plan.split.folds}
    targets = join_targets(plan, cache, labels)
    notes = list(targets.notes)
    used = dict.fromkeys(name for held in streams.values() for name in held.values())
    complete = np.all([cache.stream(name).state == COMMITTED for name in used], axis=0)
    chosen = np.flatnonzero(targets.usable & complete)
    if missing := int((targets.usable & ~complete).sum()):
        notes.append(f"{missing} utterances have no features")
    present, absent = _present(plan, cache, targets.truth[chosen])
    notes += absent
    everyone = Fold(name="all", train=chosen[:0], dev=chosen[:0], test=chosen)
    specs = [plan.cache.stream(name).spec for name in plan.every_stream.values()]
    allowed = plan.experiment.allow_leak
    notes += check_encoders(everyone, cache.utterances, specs, corpus_of(cache), allow_leak=allowed)
    notes += _shared_recordings(plan, cache, chosen, [*used])
    name = Path(cache.path).stem
    return OtherCorpus(
        name=name,
        cache=cache,
        truth=targets.truth,
        chosen=chosen,
        streams=streams,
        labels=present,
        notes=tuple(f"on {name}: {note}" for note in notes),
        scales=targets.scales,
    )


def score_other_corpus(
    plan: RunPlan,
    folder: RunFolder,
    other: OtherCorpus,
    *,
    device: torch.device,
    resident_share: float = RESIDENT_SHARE,
) -> dict[str, Any]:
    """Scores every model of a finished run on another corpus.

    Args:
        plan: plan of the run.
        folder: folder of the run.
        other: result of `plan_other_corpus`.
        device: device of the models.
        resident_share: share of the device's memory for features that are held there, in [0, 1].

    Returns:
        Plain values for ``results.json``: scores of each model, their mean and spread, pooled scores with intervals;
        under ``final`` the same of the final models, if there are any.

    Raises:
        MmerError: if a model cannot be loaded, or memory runs out.
    """
    scorer = _Scorer(plan=plan, folder=folder, other=other, device=device, resident_share=resident_share)
    models = [(fold.name, seed) for seed in plan.experiment.seeds for fold in plan.split.folds]
    final = [(FINAL, model.seed) for model in read_final_models(plan, folder)]
    return {
        "name": other.name,
        "corpus": corpus_of(other.cache),
        "cache": str(other.cache.path),
        "labels": list(other.labels),
        "test": len(other.chosen),
        **scorer.scores_of(models),
        **({"final": scorer.scores_of(final)} if final else {}),
        "notes": list(other.notes),
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scorer:
    """Scores models of a run on another corpus; features are read once for each choice of streams."""

    plan: RunPlan
    folder: RunFolder
    other: OtherCorpus
    device: torch.device
    resident_share: float
    sources: dict[tuple[tuple[str, str], ...], CachedFeatures] = field(default_factory=dict)

    def scores_of(self, models: Sequence[tuple[str, int]]) -> dict[str, Any]:
        """Returns scores of models (fold and seed), their mean and spread, pooled scores and intervals."""
        other, task, names = self.other, self.plan.task, self.plan.inputs.classes
        truth = other.truth[other.chosen]
        guesses = [other.guess(self._predictions(fold, seed), task, names) for fold, seed in models]
        scores = [task.evaluate(truth, guess, len(names), complete=False) for guess in guesses]
        ids = np.array([other.cache.ids[index] for index in other.chosen.tolist()])
        clusters = clusters_of(other.cache.utterances, corpus_of(other.cache))[other.chosen]
        predictions = KINDS[task.name](
            ids=np.tile(ids, len(models)),
            truth=np.concatenate([truth] * len(models)),
            guess=np.concatenate(guesses),
            clusters=np.tile(clusters, len(models)),
            classes=len(names),
        )
        table = np.array([[held[name] for name in task.names] for held in scores])
        spread = table.std(axis=0, ddof=1).tolist() if len(models) > 1 else [None] * len(task.names)
        interval = bootstrap_interval(predictions)
        return {
            "models": [{"fold": fold, "seed": seed, **held} for (fold, seed), held in zip(models, scores, strict=True)],
            "mean": dict(zip(task.names, table.mean(axis=0).tolist(), strict=True)),
            "std": dict(zip(task.names, spread, strict=True)),
            "pooled": pooled_scores(predictions),
            "interval": {name: None if ends is None else list(ends) for name, ends in interval.items()},
        }

    def _predictions(self, fold: str, seed: int) -> npt.NDArray[Any]:
        """Returns probabilities, or values on the scale of the run's corpus, ``(n, outputs)``."""
        other, fusion, folder = self.other, self.plan.experiment.fusion, self.folder
        streams = next(iter(other.streams.values())) if fold == FINAL else other.streams[fold]
        key = tuple(streams.items())
        with memory_needed(self.device, f"lower --resident-share ({self.resident_share:g})"):
            if key not in self.sources:
                self.sources[key] = CachedFeatures(
                    other.cache,
                    streams,
                    np.zeros(len(other.cache), dtype=np.int64),  # targets are not read in eval mode
                    device=self.device,
                    chosen=other.chosen,
                    resident_share=self.resident_share,
                )
            head = load_model(folder, fold, seed, fusion if is_import_path(fusion) else None).to(self.device)
            task = self.plan.task.scaled(load_scale(folder.model(fold, seed), self.plan.task, final=fold == FINAL))
            predictions: npt.NDArray[Any] = predict_probabilities(head, self.sources[key], other.chosen, task=task)
            return predictions


def cross_table(results: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[object]]]:
    """Returns header and rows of a table corpus by corpus, each score with its standard deviation.

    A run on its own corpus has its mean over folds and seeds, on another corpus the mean over its models. Final models
    have rows of their own.

    Args:
        results: results of one or several runs of the same task with the key ``cross``.
    """
    rows: list[list[object]] = []
    scores = task_of(results[0]).scores
    for run in results:
        trained_on = Path(run["cache"]).stem
        itself = {"name": trained_on, "test": sum(fold["test"] for fold in run["folds"]) // _seeds(run)}
        rated = [(trained_on, {**itself, "mean": run["mean"], "std": run["std"]})]
        for other in run["cross"]:
            rated.append((trained_on, other))
            if "final" in other:
                rated.append((f"{trained_on}, final", {**other, **other["final"]}))
        for name, held in rated:
            texts = [score.text(held["mean"][score.name]) for score in scores]
            spreads = [held["std"][score.name] for score in scores]
            cells = [
                text if spread is None else f"{text} ± {score.text(spread)}"
                for score, text, spread in zip(scores, texts, spreads, strict=True)
            ]
            rows.append([name, held["name"], held["test"], *cells])
    return [*HEADER, *(score.title for score in scores)], rows


def _seeds(run: Mapping[str, Any]) -> int:
    return len({fold["seed"] for fold in run["folds"]})


def _streams(plan: RunPlan, cache: AnyCache, fold: str) -> dict[str, str]:
    """Returns role -> stream of another cache with the key of the run's stream."""
    names = {**plan.selection.streams, **plan.split.chosen.get(fold, {})}
    roles = [role for role in plan.experiment.head.roles if role in names]
    return {role: _same_key(plan.cache.stream(names[role]), cache) for role in roles}


def _same_key(stream: AnyStream, cache: AnyCache) -> str:
    """Returns the name of the stream of a cache with the key of another stream; of several, that of the same name."""
    name = stream.spec.name
    alike = [held for held, other in cache.streams.items() if other.key == stream.key]
    if alike:
        return name if name in alike else alike[0]
    if name in cache.streams:
        changed = "; ".join(cache.stream(name).spec.differences(stream.spec)) or "its key differs"
        raise MmerError(
            f"{cache.path}: {name} was computed differently than in the run ({changed}); compute it there with the "
            "same encoder and options"
        )
    command = featurize_command(cache, f"--encoder {name.partition('.')[0]}")
    raise MmerError(f"{cache.path} has no stream {name} with the key of the run ({stream.key}); compute it: {command}")


def _present(plan: RunPlan, cache: AnyCache, truth: npt.NDArray[Any]) -> tuple[tuple[str, ...], list[str]]:
    """Returns the classes of the run that occur in the truth of the scored utterances, and a note on the others."""
    names = plan.inputs.classes
    if not plan.task.has_classes:
        if not len(truth):
            raise MmerError(f"{cache.path} has no utterance with features and {' and '.join(names)}")
        return names, []
    classes = truth if truth.ndim == 1 else truth.argmax(axis=1)
    present = tuple(name for index, name in enumerate(names) if (classes == index).any())
    if len(present) < FEWEST:
        raise MmerError(
            f"{cache.path} has utterances of {len(present)} classes of the run ({', '.join(names)}), expected at least "
            f"{FEWEST}; name its classes alike with --test-labels, such as {names[0]}=raw+raw,{names[1]}=raw"
        )
    absent = [name for name in names if name not in present]
    if not absent:
        return present, []
    return present, [f"no utterance of class {', '.join(absent)}: guesses, UA and M-F1 are over {', '.join(present)}"]


def _shared_recordings(plan: RunPlan, cache: AnyCache, chosen: Indices, names: Sequence[str]) -> list[str]:
    """Returns a note on recordings that the run's corpus has too, by the input digests of the first speech stream."""
    stream = next((cache.stream(name) for name in names if cache.stream(name).spec.consumes == SPEECH), None)
    if stream is None:
        return []
    seen = next((held for held in plan.cache.streams.values() if held.key == stream.key), None)
    if seen is None:
        return []
    used = np.unique(np.concatenate([held for fold in plan.split.folds for held in fold.subsets.values()]))
    known = {bytes(seen.input_digest[index]) for index in used.tolist()}
    shared = sum(bytes(stream.input_digest[index]) in known for index in chosen.tolist())
    text = f"{shared} of {len(chosen)} recordings are in the run's corpus too, so models may have been trained on them"
    return [text] if shared else []
