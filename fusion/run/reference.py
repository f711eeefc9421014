"""Reference of a run: head ``probe`` on the same streams and folds, which every other head must beat."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cache.errors import MmerError
from fusion.evaluation.catalog import task_of
from fusion.experiment.experiment import Experiment
from fusion.experiment.plan import RunPlan
from fusion.fingerprint import Plain
from fusion.heads.catalog import config_for
from fusion.training.config import TrainConfig

PROBE = "probe"  # name of the head
SHARED = ("monitor", "class_weights", "data_seed")  # fields of the training that a probe reads


def reference_of(plan: RunPlan) -> Experiment:
    """Returns the probe on the streams and folds of a run, for its first seed: nothing in a probe is random.

    Raises:
        MmerError: if the run tunes encoders or predicts values, or its head reads neither audio nor text.
    """
    experiment = plan.experiment
    if experiment.tune:
        raise MmerError("--with-probe needs cached features; leave out --tune, or run --fusion probe by itself")
    if not plan.task.is_classification:
        raise MmerError(
            f"--with-probe needs one class of each utterance, not --target {experiment.target}; leave it out"
        )
    head = experiment.head
    if not {"audio", "text"} & {*plan.selection.streams}:
        raise MmerError(f"--with-probe reads audio or text, and head {experiment.fusion} reads neither; leave it out")
    fields = {"modalities": head.modalities, "history_pool": getattr(head, "history_pool", "all")}
    training = TrainConfig(**{name: getattr(experiment.training, name) for name in SHARED})
    config = config_for(PROBE, fields)
    # a pattern stays one: each fold chooses its own stream
    named = {role: experiment.streams[role] for role in plan.selection.choices}
    streams = {role: name for role, name in {**plan.selection.streams, **named}.items() if role in config.roles}
    options = {
        **experiment.options,
        **{
            "fusion": PROBE,
            "recipe": "",
            "out": None,
            "final": False,
            "with-probe": False,
            "seed": [experiment.seeds[0]],
        },
        "set": {**fields, **{name: getattr(training, name) for name in SHARED}},
        "stream": streams,
    }
    return replace(
        experiment,
        fusion=PROBE,
        recipe="",
        head=config,
        training=training,
        seeds=experiment.seeds[:1],
        streams=streams,
        labels=experiment.labels,
        label_encoder=None,
        notes=(),
        options=options if experiment.options else {},
    )


def reference_folder(out: Path | None) -> Path | None:
    """Returns the folder of the reference of a run with its own folder; None for the default folder."""
    return None if out is None else out.with_name(f"{out.name}-{PROBE}")


def reference_results(results: Plain) -> dict[str, Any]:
    """Returns what the results of a run keep of the results of its reference."""
    kept = ("run", "streams", "mean", "std", "pooled", "interval")
    names = task_of(results).names
    folds = [
        {"fold": fold["fold"], **_chosen(fold, names), "dev_scores": _chosen(fold.get("dev_scores", {}), names)}
        for fold in results["folds"]
    ]
    return {"fusion": PROBE, **{name: results[name] for name in kept}, "folds": folds}


def _chosen(scores: Plain, names: Sequence[str]) -> dict[str, Any]:
    return {name: scores[name] for name in names if name in scores}
