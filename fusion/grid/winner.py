"""The winner of a grid as a run folder, made from the journal: nothing is trained again."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cache.errors import MmerError
from cache.joined import AnyCache
from fusion.experiment.config_file import write_config
from fusion.experiment.request import STREAM_AXIS
from fusion.grid.combinations import Combination, Model, fields_text, models_of
from fusion.grid.engine.sources import Sources
from fusion.grid.journal import Journal
from fusion.grid.report.tables import NOT_NESTED, count_text
from fusion.grid.selection import rank, single_best
from fusion.grid.session import GridResults
from fusion.run.artifacts import find_damage, provenance, write_splits, write_trained
from fusion.run.cross_validation import keep_encoders, score_test_subset
from fusion.run.folder import SCORES, RunFolder
from fusion.run.train import CHOSEN, TrainedRun, default_run, finish_run, run_results


def keep_winner(
    results: GridResults,
    journal: Journal,
    sources: Sources,
    cache: AnyCache,
    *,
    named_after: Path,
    device: torch.device,
) -> TrainedRun:
    """Writes the combination with the best mean dev score as the run folder that ``mmer-train`` would write.

    Its models are those of the journal; each is scored on the test subset of its fold.

    Args:
        results: results of the grid.
        journal: journal of the grid.
        sources: features of the grid.
        cache: open cache.
        named_after: path or pattern of the cache, which names the folder.
        device: device that scores.

    Raises:
        MmerError: if no combination has all its models, the folder holds another run, or a file cannot be written.
    """
    combination = _winner(results)
    plan = combination.plan
    folder = RunFolder(default_run(plan, named_after))
    with folder.locked():
        record = {**provenance(plan), CHOSEN: _note(combination, results)}
        folder.begin(plan.identity, record, plan.experiment.defaults)
        write_config(folder.path, _options(combination, named_after), command="mmer-train")
        write_splits(plan, folder)
        for model in models_of(combination):
            _keep(model, folder, journal, sources, device)
        return finish_run(plan, folder, run_results(plan, folder, cache))


def _winner(results: GridResults) -> Combination:
    folds = [fold.name for fold in results.plan.split.folds]
    fields = [combination.fields for combination in results.combinations]
    best = single_best(rank(fields, results.scores, results.monitor, folds=folds, task=results.task))
    if best is None:
        raise MmerError("no winner can be kept: each combination lacks a model; give the grid other values")
    return results.combinations[best.combination]


def _note(winner: Combination, results: GridResults) -> str:
    count = count_text(len(results.combinations), "combination")
    return f"{fields_text(winner.fields)} was chosen from {count} of a grid by mean dev {results.monitor}; {NOT_NESTED}"


def _options(combination: Combination, cache: Path) -> dict[str, object]:
    """Returns the options of a run of the combination only: its fields and streams replace those of the grid."""
    options: Mapping[str, Any] = combination.plan.experiment.options
    streams = {
        name.removeprefix(STREAM_AXIS): value
        for name, value in combination.fields.items()
        if name.startswith(STREAM_AXIS)
    }
    fields = {name: value for name, value in combination.fields.items() if not name.startswith(STREAM_AXIS)}
    changed = {"set": {**options.get("set", {}), **fields}, "stream": {**options.get("stream", {}), **streams}}
    return {"cache": str(cache), **options, **changed}


def _keep(model: Model, folder: RunFolder, journal: Journal, sources: Sources, device: torch.device) -> None:
    """Writes a model of the journal into a run folder, and scores it on the test subset of its fold."""
    plan, fold, target = model.combination.plan, model.fold, folder.model(model.fold.name, model.seed)
    if target.scored and not find_damage(target, plan.inputs.classes, plan.task):
        return
    head = journal.load_model(model)
    weights = {name: tensor.detach().clone() for name, tensor in head.state_dict().items()}
    trained = replace(journal.trained_model(model), weights=weights)
    target.delete(SCORES)  # of a damaged model: they belong to other weights
    seen = np.concatenate([fold.train, fold.dev])
    trained = keep_encoders(target, plan, fold.name, seen, model=head, trained=trained)
    write_trained(target, trained, device)
    source = plan.of_fold(sources.of(plan), fold.name)
    score_test_subset(
        target,
        plan,
        fold,
        head=head.to(source.device),
        trained=trained,
        source=source,
        seed=model.seed,
        notes=journal.notes(model),
    )
