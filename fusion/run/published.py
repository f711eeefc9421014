"""Published figures of the recipe of a run, and their comparison with its scores."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from cache.stream import StreamSpec
from fusion.end_to_end.learning.tune import parse_tunes
from fusion.experiment.experiment import changed_fields
from fusion.experiment.featurize_commands import corpus_of
from fusion.experiment.fields import configure
from fusion.experiment.plan import RunPlan
from fusion.fingerprint import Plain
from fusion.recipes.catalog import Recipe, recipe
from fusion.recipes.comparison import compare_sum_with_published, compare_with_published
from fusion.recipes.matching import LAST, ReadStream, RunFacts, differences
from fusion.run.folder import RunFolder


def compare_run(plan: RunPlan, results: Plain) -> list[str]:
    """Compares the scores of a run with those published by the recipe's paper.

    Without a recipe there are no lines.

    Args:
        plan: plan of the run.
        results: results with ``mean`` and ``protocol``, as in ``results.json``.
    """
    experiment = plan.experiment
    if not experiment.recipe or not plan.task.is_classification:
        return []
    settings = recipe(experiment.recipe)
    facts = _facts(plan, results["protocol"], settings)
    return compare_with_published(
        settings, results["mean"], facts, recall=results.get("recall"), pooled=results.get("pooled")
    )


def compare_sum(runs: Sequence[RunFolder], results: Plain, corpus: str) -> list[str]:
    """Compares a sum of logits with the published score fusion, if all runs are of one recipe and of its head."""
    identities = [run.identity for run in runs]
    named = {str(identity.get("recipe") or "") for identity in identities}
    settings = recipe(named.pop()) if len(named) == 1 and named != {""} else None
    if settings is None:
        return []
    parts = [_recorded_facts(run, settings, corpus) for run in runs]
    streams = {role: stream for part in parts for role, stream in part.streams.items()}
    return compare_sum_with_published(settings, results["mean"], replace(parts[0], streams=streams), parts)


def published_figures(plan: RunPlan) -> list[dict[str, Any]]:
    """Returns the published scores of a recipe as plain values, with the reasons why one is not like for like."""
    if not plan.experiment.recipe or not plan.task.is_classification:
        return []
    published = recipe(plan.experiment.recipe).published
    streams = read_streams(plan)
    rows = []
    for figure in published.figures:
        unlike = differences(published, figure, streams)
        row = {"what": figure.what, "status": figure.status, **figure.scores}
        rows.append(row | ({"not_like_for_like": unlike} if unlike else {}))
    return rows


def read_streams(plan: RunPlan) -> dict[str, ReadStream]:
    """Returns the streams of a run; of an encoder that learns, the hidden states that the head reads.

    Such hidden states have the name of the stream that would hold them, since a recipe names that stream.
    """
    streams = {role: ReadStream.of(plan.cache.stream(name).spec) for role, name in plan.selection.streams.items()}
    for role, start in plan.starts.items():
        output = start.output
        name = output.encoder if output.layers == LAST else f"{output.encoder}@{output.layers}"
        streams[role] = replace(ReadStream.of(output), name=name)
    return streams


def _facts(plan: RunPlan, protocol: str, settings: Recipe) -> RunFacts:
    """Returns the facts of a run that decide which published figures belong to it.

    Args:
        plan: plan of the run.
        protocol: name of its protocol.
        settings: the recipe.
    """
    return RunFacts(
        protocol=protocol,
        labels=plan.split.labels.name,
        frozen=plan.frozen,
        streams=read_streams(plan),
        corpus=corpus_of(plan.cache),
        changed=changed_fields(plan.experiment, settings.fields),
        only=[*_changed_tunes(plan, settings), *plan.restrictions],
        promise=plan.split.promise,
    )


def _changed_tunes(plan: RunPlan, settings: Recipe) -> list[str]:
    """Returns the encoders that learn, as values of ``--tune``, if they are not those of the recipe."""
    roles = plan.experiment.head.roles
    expected = {role: tune.text for role, tune in parse_tunes(settings.tune).items() if role in roles}
    found = {role: tune.text for role, tune in plan.experiment.tune.items()}
    if found == expected:
        return []
    return [f"--tune {role}={text}" for role, text in found.items()] or ["--tune none"]


def _recorded_facts(run: RunFolder, settings: Recipe, corpus: str) -> RunFacts:
    """Returns the facts of a finished run as its folder records them."""
    record, identity = run.record, run.identity
    expected = {
        name: value for config in configure(settings.fusion, settings.fields) for name, value in asdict(config).items()
    }
    fields = {**identity.get("head", {}), **identity.get("training", {})}
    specs = {role: StreamSpec.from_json(json.dumps(spec)) for role, spec in record.get("specs", {}).items()}
    layers = record.get("inputs", {}).get("layers", {})
    specs |= {role: replace(specs[role], layers=layers[role]) for role in identity.get("tune", {}) if role in layers}
    streams = {role: ReadStream.of(spec) for role, spec in specs.items()}
    return RunFacts(
        protocol=identity["protocol"],
        labels=str(record.get("label_set", "")),
        frozen=not identity.get("tune") and not any(spec.trained_on for spec in specs.values()),
        streams=streams,
        corpus=corpus,
        changed=[f"{name}={value}" for name, value in fields.items() if value != expected.get(name, value)],
    )
