"""Reference of a grid: head ``probe`` on the streams of the best combination and on the folds of all."""

from pathlib import Path
from typing import Any

import torch

from cache.errors import MmerError
from cache.joined import AnyCache
from fusion.data.features import RESIDENT_SHARE
from fusion.experiment.experiment import Experiment
from fusion.experiment.plan import RunPlan, plan_run
from fusion.fingerprint import Plain
from fusion.grid.session import GridResults
from fusion.run.folder import Folder, RunFolder
from fusion.run.kept import kept_reference
from fusion.run.reference import PROBE, reference_of, reference_results
from fusion.run.train import default_run, train_run


def check_reference(plan: RunPlan) -> None:
    """Checks that the probe can be trained on the streams of a combination, before the grid is trained.

    Raises:
        MmerError: if the grid tunes encoders or predicts values, or its head reads neither audio nor text.
    """
    if plan.experiment.fusion != PROBE:
        reference_of(plan)


def train_reference(
    results: GridResults,
    cache: AnyCache,
    *,
    out: Path | None,
    named_after: Path,
    device: torch.device,
    resident_share: float = RESIDENT_SHARE,
) -> dict[str, Any]:
    """Trains the probe into a run folder of its own, or reads it again; returns its scores by fold and over all.

    It reads the streams of the combination with the best mean dev score, and has the first seed of the grid. A grid of
    the probe itself has none. The folder has the default name of a run, next to the journal: grids of one journal may
    have best combinations of different streams.

    Args:
        results: results of the grid.
        cache: open cache.
        out: folder of the journal, None for the default.
        named_after: path or pattern of the cache, which names the default folder of the run.
        device: device that pools and scores.
        resident_share: share of the device's memory that features may take, in [0, 1].

    Raises:
        MmerError: as `check_reference`, or if the folder of the run holds another one.
    """
    plan = _plan(results)
    if plan.experiment.fusion == PROBE:
        return {}
    experiment = reference_of(plan)
    where = reference_run(experiment, cache, out=out, named_after=named_after)
    shared: dict[str, Any] = {"named_after": named_after, "device": device, "resident_share": resident_share}
    return reference_results(train_run(experiment, cache, out=where, **shared).results)


def reference_run(experiment: Experiment, cache: AnyCache, *, out: Path | None, named_after: Path) -> Path | None:
    """Returns the folder of the reference of a grid; None for the default folder below ``runs/``.

    Args:
        experiment: the probe.
        cache: open cache.
        out: folder of the journal, None for the default.
        named_after: path or pattern of the cache, which names the folder.
    """
    return None if out is None else out.parent / default_run(plan_run(experiment, cache), named_after).name


def kept_grid_reference(folder: Folder, results: GridResults, cache: AnyCache) -> dict[str, Any]:
    """Returns the reference that an earlier command wrote into the report of the grid, if it still belongs to it.

    Args:
        folder: folder of the report.
        results: results of the grid.
        cache: open cache.
    """
    found = kept_reference(folder, results.task)
    return found if found and _belongs(found, results, cache) else {}


def _belongs(reference: Plain, results: GridResults, cache: AnyCache) -> bool:
    """Checks that the run of a reference is the one that the grid would train, since features may have changed."""
    try:
        plan = plan_run(reference_of(_plan(results)), cache)
        RunFolder(Path(str(reference.get("run")))).check(plan.identity, plan.experiment.defaults)
    except MmerError:
        return False
    return all("dev_scores" in fold for fold in reference["folds"])


def _plan(results: GridResults) -> RunPlan:
    """Returns the plan of the best combination; of the first one where each lacks a model."""
    return results.best.plan if results.best else results.plan
