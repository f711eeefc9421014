"""Cross-corpus scores: the models of a finished run on the utterances of another cache.

Streams are found by their keys, so equal keys mean equal computation, whatever the streams are called. Label sets are
joined by the names of the classes; names that papers exchange (ang, angry, anger) count as one. Utterances of other
classes are left out. Guesses are among the classes that the other corpus has, and so are UA and macro F1: a class that
it does not annotate cannot be right.

Every model of the run (fold and seed) is scored on all utterances of the other corpus. None of them was seen in
training, unless the corpora share recordings, which is stated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cache.errors import MmerError
from cache.joined import AnyCache, AnyStream
from cache.layout import COMMITTED
from cache.stream import SPEECH
from fusion.arrays import ClassIds, Indices
from fusion.data.features import RESIDENT_SHARE, CachedFeatures
from fusion.data.memory import memory_needed
from fusion.evaluation.metrics import METRICS, compute_scores
from fusion.evaluation.statistics import Predictions, bootstrap_interval, clusters_of, pooled_scores
from fusion.evaluation.task import CLASSIFICATION
from fusion.experiment.plan import RunPlan
from fusion.experiment.streams import MANIFEST, corpus_of, featurize_command
from fusion.heads.catalog import is_import_path
from fusion.protocols.folds import Fold
from fusion.protocols.labels import LEFT_OUT, choose_labels, classes_of
from fusion.protocols.leaks import check_encoders
from fusion.run.folder import RunFolder
from fusion.run.load import load_model
from fusion.training.evaluate import predict_probabilities

HEADER = ("trained on", "tested on", "test")
FEWEST = 2  # classes that two corpora must have in common

# Other names of a class in published corpora -> the name under which label sets are joined.
ALIASES: Mapping[str, str] = {
    "ang": "angry",
    "anger": "angry",
    "hap": "happy",
    "happiness": "happy",
    "joy": "happy",
    "neu": "neutral",
    "sadness": "sad",
    "exc": "excited",
    "excitement": "excited",
    "fru": "frustrated",
    "frustration": "frustrated",
    "fea": "fearful",
    "fear": "fearful",
    "dis": "disgust",
    "disgusted": "disgust",
    "sur": "surprised",
    "surprise": "surprised",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class OtherCorpus:
    """A cache that the models of a run can be scored on.

    Attributes:
        name: name of the cache in tables.
        cache: open cache.
        classes: class of each utterance among those of the run, int64 ``(n,)``; -1 for utterances that are left out.
        chosen: utterances that are scored, int64 ``(n,)``.
        streams: fold of the run -> role -> stream of the cache.
        labels: classes of the run that occur.
        notes: notes on what is left out.
    """

    name: str
    cache: AnyCache
    classes: ClassIds
    chosen: Indices
    streams: Mapping[str, Mapping[str, str]]
    labels: tuple[str, ...]
    notes: tuple[str, ...]


def plan_other_corpus(plan: RunPlan, cache: AnyCache, *, labels: str | None = None) -> OtherCorpus:
    """Joins a run with another cache, before any training.

    Args:
        plan: plan of the run.
        cache: open cache of the other corpus.
        labels: label set of the other corpus; None for that of the run where the corpora have one name, else for the
            default.

    Raises:
        MmerError: if the cache lacks a stream or has it with another key, fewer than two classes are common, or an
            encoder was trained on the utterances.
    """
    if plan.task is not CLASSIFICATION:
        raise MmerError(f"{cache.path}: another corpus can be scored by classes only, not by {plan.task.name}")
    if any(start.tune.wave for start in plan.starts.values()):
        raise MmerError("--test-cache reads features, and an encoder of this run learns from recordings; leave it out")
    streams = {fold.name: _streams(plan, cache, fold.name) for fold in plan.split.folds}
    classes, notes = _joined_classes(plan, cache, labels)
    used = dict.fromkeys(name for held in streams.values() for name in held.values())
    complete = np.all([cache.stream(name).state == COMMITTED for name in used], axis=0)
    chosen = np.flatnonzero((classes >= 0) & complete)
    if missing := int(((classes >= 0) & ~complete).sum()):
        notes.append(f"{missing} utterances have no features")
    names = plan.inputs.classes
    present = tuple(name for index, name in enumerate(names) if (classes[chosen] == index).any())
    if len(present) < FEWEST:
        raise MmerError(
            f"{cache.path} has utterances of {len(present)} classes of the run ({', '.join(names)}), expected at least "
            f"{FEWEST}; name its classes alike with --test-labels, such as {names[0]}=raw+raw,{names[1]}=raw"
        )
    if absent := [name for name in names if name not in present]:
        notes.append(f"no utterance of class {', '.join(absent)}: guesses, UA and M-F1 are over {', '.join(present)}")
    everyone = Fold(name="all", train=chosen[:0], dev=chosen[:0], test=chosen)
    specs = [plan.cache.stream(name).spec for name in plan.every_stream.values()]
    allowed = plan.experiment.allow_leak
    notes += check_encoders(everyone, cache.utterances, specs, corpus_of(cache), allow_leak=allowed)
    notes += _shared_recordings(plan, cache, chosen, [*used])
    name = Path(cache.path).stem
    return OtherCorpus(
        name=name,
        cache=cache,
        classes=classes,
        chosen=chosen,
        streams=streams,
        labels=present,
        notes=tuple(f"on {name}: {note}" for note in notes),
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
        Plain values for ``results.json``: scores of each model, their mean and spread, pooled scores with intervals.

    Raises:
        MmerError: if a model cannot be loaded, or memory runs out.
    """
    fusion, count = plan.experiment.fusion, len(plan.inputs.classes)
    truth = other.classes[other.chosen]
    possible = np.array([name in other.labels for name in plan.inputs.classes])
    sources: dict[tuple[tuple[str, str], ...], CachedFeatures] = {}
    models, guesses = [], []
    for seed in plan.experiment.seeds:
        for fold in plan.split.folds:
            streams = other.streams[fold.name]
            key = tuple(streams.items())
            with memory_needed(device, f"lower --resident-share ({resident_share:g})"):
                if key not in sources:
                    options: dict[str, Any] = {"device": device, "chosen": other.chosen}
                    options["resident_share"] = resident_share
                    sources[key] = CachedFeatures(other.cache, streams, other.classes, **options)
                head = load_model(folder, fold.name, seed, fusion if is_import_path(fusion) else None).to(device)
                probabilities = predict_probabilities(head, sources[key], other.chosen, task=plan.task)
            guess = plan.task.decide(np.where(possible, probabilities, -1))
            scores = compute_scores(truth, guess, count, every_class=False).as_dict()
            models.append({"fold": fold.name, "seed": seed, **scores})
            guesses.append(guess)
    clusters = clusters_of(other.cache.utterances, corpus_of(other.cache))[other.chosen]
    ids = np.array([other.cache.ids[index] for index in other.chosen.tolist()])
    predictions = Predictions(
        ids=np.tile(ids, len(models)),
        truth=np.tile(truth, len(models)),
        guess=np.concatenate(guesses),
        clusters=np.tile(clusters, len(models)),
        classes=count,
    )
    table = np.array([[model[name] for name in METRICS] for model in models])
    spread = table.std(axis=0, ddof=1).tolist() if len(models) > 1 else [None] * len(METRICS)
    interval = bootstrap_interval(predictions)
    return {
        "name": other.name,
        "corpus": corpus_of(other.cache),
        "cache": str(other.cache.path),
        "labels": list(other.labels),
        "test": len(other.chosen),
        "models": models,
        "mean": dict(zip(METRICS, table.mean(axis=0).tolist(), strict=True)),
        "std": dict(zip(METRICS, spread, strict=True)),
        "pooled": pooled_scores(predictions),
        "interval": {name: None if ends is None else list(ends) for name, ends in interval.items()},
        "notes": list(other.notes),
    }


def cross_table(results: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[object]]]:
    """Returns header and rows of a table corpus by corpus, each score with its standard deviation.

    A run on its own corpus has its mean over folds and seeds, on another corpus the mean over its models.

    Args:
        results: results of one or several runs with the key ``cross``.
    """
    rows: list[list[object]] = []
    for run in results:
        trained_on = Path(run["cache"]).stem
        itself = {"name": trained_on, "test": sum(fold["test"] for fold in run["folds"]) // _seeds(run)}
        for held in ({**itself, "mean": run["mean"], "std": run["std"]}, *run["cross"]):
            texts = [score.text(held["mean"][score.name]) for score in CLASSIFICATION.scores]
            spreads = [held["std"][score.name] for score in CLASSIFICATION.scores]
            cells = [
                text if spread is None else f"{text} ± {score.text(spread)}"
                for score, text, spread in zip(CLASSIFICATION.scores, texts, spreads, strict=True)
            ]
            rows.append([trained_on, held["name"], held["test"], *cells])
    return [*HEADER, *(score.title for score in CLASSIFICATION.scores)], rows


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


def _joined_classes(plan: RunPlan, cache: AnyCache, requested: str | None) -> tuple[ClassIds, list[str]]:
    """Returns the class of each utterance among those of the run, and notes on joined and left-out classes."""
    utterances, label_set = cache.utterances, plan.split.labels
    if not requested and corpus_of(cache) == corpus_of(plan.cache) != MANIFEST:  # tables of any corpus have one name
        raws = {raw: index for index, members in enumerate(label_set.classes.values()) for raw in members}
        return np.array([raws.get(label_set.raw(held), LEFT_OUT) for held in utterances], dtype=np.int64), []
    labels = choose_labels(requested, corpus_of(cache), utterances)
    found = classes_of(utterances, labels)
    ids = {_joint_name(name): index for index, name in enumerate(label_set.names)}
    meant = np.array([ids.get(_joint_name(name), LEFT_OUT) for name in labels.names], dtype=np.int64)
    classes = np.where(found >= 0, meant[found], LEFT_OUT)
    pairs = zip(labels.names, meant.tolist(), strict=True)
    renamed = [
        f"{name} is {label_set.names[index]}" for name, index in pairs if index >= 0 and name != label_set.names[index]
    ]
    left_out = [
        f"{name} ({int((found == index).sum())})" for index, name in enumerate(labels.names) if meant[index] < 0
    ]
    notes = [f"classes joined by name: {', '.join(renamed)}"] if renamed else []
    return classes, notes + ([f"left out, not a class of the run: {', '.join(left_out)}"] if left_out else [])


def _joint_name(name: str) -> str:
    plain = name.strip().casefold()
    return ALIASES.get(plain, plain)


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
