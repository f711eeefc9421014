"""A grid as one call: train every combination, select on dev, score the selected models on test, and report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cache.joined import AnyCache
from fusion.data.features import RESIDENT_SHARE
from fusion.experiment.config_file import write_config
from fusion.experiment.plan import Splits
from fusion.grid.combinations import Model, ModelOutcome, fields_text, models_of
from fusion.grid.engine.calibration import CostEstimate, estimate_cost
from fusion.grid.engine.local import Engine, GridProgress
from fusion.grid.engine.placement import AUTO, FUSED, SHARED
from fusion.grid.engine.remote import GridCluster, RemoteEngine
from fusion.grid.journal import Journal
from fusion.grid.reference import check_reference, reference_run, train_reference
from fusion.grid.report.output import GridReport, grid_report
from fusion.grid.session import GridSession
from fusion.grid.space import RANDOM, TPE, GridRequest, Search
from fusion.grid.winner import keep_winner
from fusion.heads.catalog import file_name_of
from fusion.recipes.comparison import published_table
from fusion.run.estimate import RunEstimate, estimate_run
from fusion.run.names import default_folder
from fusion.run.reference import PROBE, reference_of
from fusion.run.train import CPU, TrainedRun
from fusion.training.checkpoint import EpochScores

ENGINES = (AUTO, FUSED, SHARED)  # of this process
DASK = RemoteEngine.name


@dataclass(frozen=True, kw_only=True, eq=False)
class GridRun:
    """A finished grid: its report, its journal and the scores that the recipe's paper published.

    Attributes:
        journal: folder of the journal with all models.
        report: tables, notes and results.
        comparison: lines on the published scores; empty without a recipe.
        kept: run of the best combination, if it was requested.
    """

    journal: Path
    report: GridReport
    comparison: tuple[str, ...] = ()
    kept: TrainedRun | None = None

    @property
    def folder(self) -> Path:
        """Folder of tables and plots."""
        return self.report.folder.path

    @property
    def results(self) -> dict[str, Any]:
        """Ranked combinations with their scores, winner of each fold, nested scores, as in ``results.json``."""
        return self.report.json

    @property
    def winner(self) -> Mapping[str, object] | None:
        """Fields of the combination with the best mean dev score, None where each has a model that failed."""
        winner: Mapping[str, object] | None = self.results["winner"]
        return winner

    @property
    def nested(self) -> Mapping[str, float]:
        """Test scores by metric, each fold scored by the combination that its own dev subset selected."""
        nested: Mapping[str, float] = self.results["nested"]
        return nested


@dataclass(frozen=True, kw_only=True)
class GridEstimate:
    """Combinations, memory, disk space and time of a grid that has not started.

    Attributes:
        combinations: the fields of each, as on the command line.
        cost: of all its models.
        journal: folder of the journal.
        probe: run of the probe on the same folds; None if it was not requested.
    """

    combinations: tuple[str, ...]
    cost: CostEstimate
    journal: Path
    probe: RunEstimate | None = None


class SilentGridProgress:
    """Progress of a grid that nothing displays."""

    def note(self, note: str) -> None:
        """Does nothing."""

    def start(self, models: Sequence[Model]) -> None:
        """Does nothing."""

    def epoch(self, model: Model, scores: EpochScores) -> None:
        """Does nothing."""

    def done(self, model: Model, outcome: ModelOutcome) -> None:
        """Does nothing."""


def run_grid(
    request: GridRequest,
    cache: AnyCache,
    *,
    splits: Splits | None = None,
    out: Path | None = None,
    named_after: Path | None = None,
    device: torch.device = CPU,
    engine: str = AUTO,
    cluster: GridCluster | None = None,
    progress: GridProgress | None = None,
    resident_share: float = RESIDENT_SHARE,
    keep: bool = False,
    with_probe: bool = False,
    pictures: str = "png",
) -> GridRun:
    """Trains the combinations that the journal lacks, selects one for each fold on dev, and writes the report.

    Args:
        request: experiment, space and search.
        cache: an open cache.
        splits: splits of this cache that `fusion.grid.space.check_grid` has made; None if there are none.
        out: folder of the journal; by default one below ``runs/`` that is named after the cache and the head.
        named_after: path or pattern that the default folder is named after, the path of the cache by default.
        device: where models are trained and scored.
        engine: ``auto``, ``fused`` or ``shared``: how models share the device; ``dask`` with a cluster.
        cluster: workers that train the models instead.
        progress: notified of notes, models and epochs.
        resident_share: share of the device's memory that features may take, in [0, 1]; the rest is read as needed.
        keep: also write the combination with the best mean dev score as a run folder, from its trained models.
        with_probe: also train head ``probe`` on the same folds and on the streams of that combination, in a run folder
            of its own, and add its scores to the report.
        pictures: format of the pictures: ``png``, ``svg`` or ``pdf``.

    Raises:
        MmerError: if no combination can be trained, a fold has no winner, no winner can be kept, or the journal cannot
            be written.
        ValueError: if there is no such engine.
    """
    if engine not in ((DASK,) if cluster else ENGINES):
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, or {DASK} with a cluster, got {engine!r}")
    path, progress = named_after or cache.path, progress or SilentGridProgress()
    journal = Journal(out or _default_journal(request, path))
    journal.check_free()
    trainer: Engine | RemoteEngine
    if cluster is None:
        trainer = Engine(engine, journal=journal, progress=progress, device=device)
    else:
        trainer = RemoteEngine(
            cluster=cluster, cache=path, journal=journal, progress=progress, resident_share=resident_share
        )
    session = _session(request, cache, trainer, splits, device=device, resident_share=resident_share)
    if with_probe:
        check_reference(session.first_plan(request.space, request.search, request.search_seed))
    results = session.run(request.space, request.search, seed=request.search_seed, all_tests=request.report_all_tests)
    reference: dict[str, Any] = {}
    if with_probe:
        where: dict[str, Any] = {"out": out, "named_after": path, "device": device, "resident_share": resident_share}
        reference = train_reference(results, cache, **where)
    report = grid_report(results, journal, cache, engine=trainer.name, reference=reference)
    report.write(pictures)
    known = {"cache": str(path), "out": out and str(out)}
    write_config(journal.path, {**known, **request.options}, command="mmer-grid")
    settings = request.base.settings
    comparison = tuple(published_table(settings, fields_text)) if settings else ()
    kept = None
    if keep:
        kept = keep_winner(results, journal, session.sources, cache, named_after=path, device=device)
    return GridRun(journal=journal.path, report=report, comparison=comparison, kept=kept)


def estimate_grid(
    request: GridRequest,
    cache: AnyCache,
    *,
    splits: Splits | None = None,
    out: Path | None = None,
    named_after: Path | None = None,
    device: torch.device = CPU,
    progress: GridProgress | None = None,
    resident_share: float = RESIDENT_SHARE,
    with_probe: bool = False,
) -> GridEstimate:
    """Estimates what a grid takes by training a few batches on the device; trains and writes nothing else.

    A search by scores is estimated by the same number of random combinations. The arguments are those of `run_grid`.

    Raises:
        MmerError: if no combination can be trained.
    """
    journal = Journal(out or _default_journal(request, named_after or cache.path))
    engine = Engine(AUTO, journal=journal, progress=progress or SilentGridProgress(), device=device)
    session = _session(request, cache, engine, splits, device=device, resident_share=resident_share)
    search = request.search
    drawn = Search(kind=RANDOM, count=search.count) if search.kind == TPE else search
    session.plan(request.space.combinations(drawn, request.search_seed))
    models = [model for combination in session.combinations for model in models_of(combination)]
    plan, probe = session.combinations[0].plan, None
    if with_probe and plan.experiment.fusion != PROBE:
        path, experiment = named_after or cache.path, reference_of(plan)
        where = reference_run(experiment, cache, out=out, named_after=path)
        shared: dict[str, Any] = {"named_after": path, "device": device, "resident_share": resident_share}
        probe = estimate_run(experiment, cache, out=where, **shared)
    return GridEstimate(
        combinations=tuple(fields_text(combination.fields) for combination in session.combinations),
        cost=estimate_cost(models, session.sources, journal),
        journal=journal.path,
        probe=probe,
    )


def _session(
    request: GridRequest,
    cache: AnyCache,
    trainer: Engine | RemoteEngine,
    splits: Splits | None,
    *,
    device: torch.device,
    resident_share: float,
) -> GridSession:
    for note in request.space.notes(request.search):
        trainer.progress.note(note)
    held = trainer.journal.held  # a journal of an older version is completed with its defaults
    return GridSession(
        cache=cache,
        splits=splits,
        experiment_of=lambda axes: request.base.experiment(cache, axes).as_recorded(held),
        journal=trainer.journal,
        train=trainer.run,
        device=device,
        progress=trainer.progress,
        resident_share=resident_share,
    )


def _default_journal(request: GridRequest, cache: Path) -> Path:
    return default_folder(cache, f"{file_name_of(request.base.head)}-grid")
