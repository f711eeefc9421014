"""Training as one call: cross-validates a head into a run folder, or fuses the scores of finished runs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replaced
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any, TypedDict, Unpack

import torch

from cache.errors import MmerError
from cache.joined import AnyCache
from cache.stream import TRANSCRIPT
from fusion.data.features import RESIDENT_SHARE
from fusion.evaluation.catalog import task_of
from fusion.experiment.config_file import write_config
from fusion.experiment.experiment import Experiment
from fusion.experiment.featurize_commands import corpus_of, featurize_command
from fusion.experiment.plan import RunPlan, Splits, plan_earlier, plan_run
from fusion.experiment.request import ExperimentRequest
from fusion.fingerprint import Plain, digest_of
from fusion.head_config import AUDIO, TEXT
from fusion.heads.catalog import SCORE_FUSION, file_name_of
from fusion.run.artifacts import provenance
from fusion.run.cross_corpus import cross_table, plan_other_corpus, score_other_corpus
from fusion.run.cross_validation import SilentProgress, TrainingProgress, cross_validate, train_in_turn
from fusion.run.diagnosis import training_notes
from fusion.run.final import FinalModel, read_final_models, train_final_models
from fusion.run.folder import RUN, RunFolder
from fusion.run.kept import kept_cross, kept_reference
from fusion.run.latex import latex_header, latex_row
from fusion.run.names import RUNS, default_folder, main_streams, run_name
from fusion.run.notes import arrange, limits
from fusion.run.published import compare_run, compare_sum, published_figures
from fusion.run.reference import PROBE, reference_folder, reference_of, reference_results
from fusion.run.refit import train_and_refit
from fusion.run.results import NO_REFERENCE, collect_results, total_cost, write_results
from fusion.run.score_fusion import fuse_scores
from fusion.run.score_table import CROSS, definitions, detail_lines, score_header, score_table
from fusion.run.seeds import take_over_models
from fusion.run.tensorboard import TensorBoardProgress
from fusion.run.trackio import tracked
from fusion.run.workers import WorkerCluster, cross_validate_on
from fusion.training.interrupt import StopRequested, never_stop

FEWEST_CORPORA = 2
CHOSEN = "chosen"  # in run.json of the winner of a grid: how it was chosen
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A finished run: its folder, scores, notes and cost.

    Attributes:
        folder: the run folder.
        results: scores of every model and over all of them, and all notes, as in ``results.json``.
        final: models of all utterances, one for each seed; empty if they were never requested.
        seconds: training time of all models in seconds, 0 if unknown.
        peak_bytes: greatest peak memory of a training in bytes, 0 if unknown.
    """

    folder: Path
    results: dict[str, Any]
    final: tuple[FinalModel, ...] = ()
    seconds: float = 0.0
    peak_bytes: int = 0

    @property
    def mean(self) -> Mapping[str, float]:
        """Mean scores by metric (``wa``, ``ua``, ``wf1``, ...).

        The mean is taken over folds and then over seeds.
        """
        mean: Mapping[str, float] = self.results["mean"]
        return mean

    @property
    def folds(self) -> Sequence[Plain]:
        """Scores and counts of each model, by fold and seed."""
        folds: Sequence[Plain] = self.results["folds"]
        return folds

    @property
    def parameters(self) -> int:
        """Number of trained parameters of a model."""
        return int(self.folds[0]["parameters"])

    @property
    def table(self) -> tuple[Sequence[str], Sequence[Sequence[object]]]:
        """Header and rows of the table of scores.

        Rows are each model, then mean, standard deviation, pooled scores and their interval, and those of the probe.
        """
        return score_header(self.results), score_table(self.results)

    @property
    def cross_table(self) -> tuple[Sequence[str], Sequence[Sequence[object]]] | None:
        """Header and rows of the scores on other corpora; None if there are none."""
        return cross_table([self.results]) if self.results.get(CROSS) else None

    @property
    def legend(self) -> str:
        """The definitions of the scores, to print below the table."""
        return definitions(task_of(self.results))

    @property
    def notes(self) -> list[str]:
        """Lines that accompany the scores, each once.

        They are recall and F1 of each class, then notes, those that limit what the scores mean first, then the
        comparison with a paper.
        """
        return [*detail_lines(self.results), *self.results["notes"], *self.comparison]

    @property
    def promise(self) -> str:
        """The note on the protocol: what train, dev and test share."""
        protocol = f"{self.results['protocol']}: "
        return next((note for note in self.results["notes"] if note.startswith(protocol)), protocol.rstrip(": "))

    @property
    def limits(self) -> list[str]:
        """The notes that limit what the scores mean, such as leaks and utterances that are left out."""
        return [note for note in self.results["notes"] if limits(note)]

    @property
    def comparison(self) -> tuple[str, ...]:
        """Lines that compare the scores with those published by the recipe's paper; empty without a recipe."""
        return tuple(self.results.get("comparison", ()))

    @property
    def latex(self) -> str:
        """One row of a LaTeX table."""
        return latex_row(self.results)

    @property
    def latex_header(self) -> str:
        """The header of rows of LaTeX tables."""
        return latex_header(task_of(self.results))


class RunOptions(TypedDict, total=False):
    """Arguments of a run, trained or estimated, that the runs of several corpora share."""

    device: torch.device
    resident_share: float
    replace: bool
    final: bool
    test_labels: str | None
    with_probe: bool


class TrainOptions(RunOptions, total=False):
    """Further ones of `train_run` alone."""

    progress: TrainingProgress
    tensorboard: bool
    track: str
    cluster: WorkerCluster | None
    stopping: StopRequested
    pictures: str


def train_run(
    experiment: Experiment,
    cache: AnyCache,
    *,
    splits: Splits | None = None,
    out: Path | None = None,
    named_after: Path | None = None,
    device: torch.device = CPU,
    progress: TrainingProgress | None = None,
    resident_share: float = RESIDENT_SHARE,
    replace: bool = False,
    tensorboard: bool = False,
    track: str = "",
    final: bool = False,
    cluster: WorkerCluster | None = None,
    stopping: StopRequested = never_stop,
    test_caches: Sequence[AnyCache] = (),
    test_labels: str | None = None,
    with_probe: bool = False,
    pictures: str = "png",
) -> TrainedRun:
    """Trains and scores a head on every fold.

    An interrupted run is resumed. The results of a finished run are read again; its folder need not be writable.

    Args:
        experiment: head, training, data and seeds.
        cache: open cache.
        splits: splits of this cache that `fusion.experiment.plan.check_data` has made; None if there are none.
        out: run folder; by default a folder below ``runs/`` named after the cache, the head and the settings.
        named_after: path or pattern that names the default folder, the path of the cache by default.
        device: device that trains the head.
        progress: receives notes, models and epochs.
        resident_share: share of the device's memory for features that are held there, in [0, 1]; features that do not
            fit are read as needed.
        replace: delete another run in the folder first.
        tensorboard: also write the curves for TensorBoard into the run folder.
        track: also log the curves to this tracker, ``trackio``; empty for none.
        final: then train a model for each seed on all utterances, for the median best epoch of the folds.
        cluster: workers that train the models of the folds, one each; None for this process.
        stopping: called after every batch; when it returns True, the checkpoint is written and the training stops.
        test_caches: open caches of other corpora; every model is scored on them too. Scores on other corpora that an
            earlier command added are kept while they are of the same models.
        test_labels: label set of the other corpora; None for their defaults.
        with_probe: also train head ``probe`` on the same streams and folds, in a run folder of its own, and add its
            scores to the results; scores of the probe that an earlier command added are kept in any case.
        pictures: format of the pictures: ``png``, ``svg`` or ``pdf``.

    Raises:
        KeyboardInterrupt: if `stopping` returned True.
        MmerError: if the experiment does not suit the cache, the folder holds another run, a loss is not finite, or
            memory runs out.
    """
    known = {"cache": str(named_after or cache.path), "out": out and str(out), "final": final, "with-probe": with_probe}
    experiment = replaced(experiment, options={**known, **experiment.options} if experiment.options else {})
    if out and not replace and (held := RunFolder(out).held):
        experiment = experiment.as_recorded(held)
    plan = plan_run(experiment, cache, splits)
    folder = RunFolder(out or default_run(plan, named_after or cache.path))
    if not replace:
        plan, folder = _as_begun(plan, folder, out, named_after or cache.path)
    others = [plan_other_corpus(plan, other, labels=test_labels) for other in test_caches]
    reference: dict[str, Any] = {}
    if with_probe and experiment.fusion != PROBE:
        shared: dict[str, Any] = {"device": device, "resident_share": resident_share, "stopping": stopping}
        shared |= {"named_after": named_after, "progress": progress, "replace": replace}
        trained = train_run(reference_of(plan), cache, out=reference_folder(out), **shared)
        reference = reference_results(trained.results)
    progress = progress or SilentProgress()
    progress = TensorBoardProgress(progress, folder) if tensorboard else progress
    progress = tracked(progress, folder, track)
    with folder.locked(or_finished=not replace):
        if replace:
            folder.clear()
        elif out is None:
            _take_over(plan, folder, progress)
        if cluster is None:
            train = partial(train_and_refit, folder) if plan.experiment.training.refit else train_in_turn
            here: Any = {"device": device, "resident_share": resident_share, "stopping": stopping}
            cross_validate(plan, folder, progress=progress, train=train, **here)
        else:
            path = named_after or cache.path
            cross_validate_on(cluster, plan, folder, cache=path, progress=progress, resident_share=resident_share)
        models = [(fold.name, seed) for seed in plan.experiment.seeds for fold in plan.split.folds]
        kept, outdated = kept_cross(folder, plan.task, models, scored=[other.name for other in others])
        results = run_results(plan, folder, cache, reference=reference, cross=kept, pictures=pictures)
        if final:
            if out is None and not replace:
                _take_over(plan, folder, progress, final=True)
            train_final_models(
                plan, folder, device=device, progress=progress, resident_share=resident_share, stopping=stopping
            )
        scored = partial(score_other_corpus, plan, folder, device=device, resident_share=resident_share)
        found = finish_run(plan, folder, results, cross=[*kept, *map(scored, others)], notes=outdated)
        if folder.outdated:
            progress.note(f"{folder.path} cannot be written; not renewed: {', '.join(folder.outdated)}")
        return found


def run_results(
    plan: RunPlan,
    folder: RunFolder,
    cache: AnyCache,
    *,
    reference: Plain = NO_REFERENCE,
    cross: Sequence[Plain] = (),
    pictures: str = "png",
) -> dict[str, Any]:
    """Collects and writes the results of a run whose models are all scored.

    Args:
        plan: plan of the run.
        folder: folder of the run; the caller holds its lock.
        cache: open cache.
        reference: scores of the probe; by default those that the folder has.
        cross: scores on other corpora that an earlier command added; written at once, so that no kill loses them.
        pictures: format of the pictures: ``png``, ``svg`` or ``pdf``.

    Raises:
        MmerError: if a model is not scored.
    """
    chosen = folder.record.get(CHOSEN)
    plan_notes = [*([chosen] if isinstance(chosen, str) else []), *plan.notes, plan.scoring_note]
    plan_notes += training_notes(plan, folder)
    return collect_results(
        folder,
        cache,
        plan.identity,
        notes=plan_notes,
        published=published_figures(plan),
        reference=reference or kept_reference(folder, plan.task),
        cross=cross,
        test_parts=plan.test_parts,
        pictures=pictures,
    )


def finish_run(
    plan: RunPlan,
    folder: RunFolder,
    results: dict[str, Any],
    *,
    cross: Sequence[Plain] = (),
    notes: Sequence[str] = (),
) -> TrainedRun:
    """Adds final models, scores on other corpora and the comparison with a paper to the results of a run.

    Args:
        plan: plan of the run.
        folder: folder of the run; the caller holds its lock.
        results: results of `run_results`.
        cross: scores on other corpora.
        notes: notes on scores on other corpora that are out of date.
    """
    finals = tuple(read_final_models(plan, folder))
    if finals:
        results["final"] = [model.plain for model in finals]
    if cross:
        results[CROSS] = list(cross)
    of_others = [note for other in cross for note in other["notes"]]
    added = [*of_others, *notes, *encoder_lines(plan, folder), *(model.line for model in finals)]
    results["notes"] = arrange([*results["notes"], *added])
    if comparison := compare_run(plan, results):
        results["comparison"] = comparison
    if added or cross or comparison:
        write_results(folder, results)
    seconds, peak_bytes = total_cost(folder, plan.identity)
    return TrainedRun(folder=folder.path, results=results, final=finals, seconds=seconds, peak_bytes=peak_bytes)


def train_across(
    request: ExperimentRequest,
    caches: Sequence[tuple[Path, AnyCache]],
    *,
    out: Path | None = None,
    **options: Unpack[TrainOptions],
) -> list[TrainedRun]:
    """Trains a run on each of several corpora, and scores its models on each other.

    Args:
        request: options of every run; without a protocol, each corpus has its default.
        caches: path and open cache of each corpus.
        out: folder with a run folder for each cache, named after it; by default the runs' own below ``runs/``.
        **options: further arguments of `train_run`.

    Raises:
        MmerError: if there are fewer than two caches, two have the same name, or a run does not suit another cache.
    """
    stems = [path.stem for path, _ in caches]
    if len(caches) < FEWEST_CORPORA or len(set(stems)) < len(stems):
        raise MmerError(
            f"protocol cross needs two or more caches of different names, got {', '.join(stems)}; pass the others with "
            "--test-cache"
        )
    others = [[other for _, other in caches if other is not cache] for _, cache in caches]
    experiments = [request.experiment(cache) for _, cache in caches]
    for experiment, (_, cache), rest in zip(experiments, caches, others, strict=True):  # errors before any training
        plan = plan_run(experiment, cache)
        for other in rest:
            plan_other_corpus(plan, other, labels=options.get("test_labels"))
    return [
        train_run(experiment, cache, out=out and out / path.stem, named_after=path, test_caches=rest, **options)
        for experiment, (path, cache), rest in zip(experiments, caches, others, strict=True)
    ]


def fuse_runs(runs: Sequence[Path], cache: AnyCache, *, out: Path | None = None, replace: bool = False) -> TrainedRun:
    """Computes the late fusion (sum of logits) of finished runs as a new run folder.

    Args:
        runs: two or more run folders with the same classes, folds and test utterances.
        cache: open cache that they were trained on.
        out: run folder of the fusion; by default a folder below ``runs/`` named after the runs.
        replace: delete another run in the folder first.

    Raises:
        MmerError: if there are fewer than two runs, a run is not finished, or two runs do not match.
    """
    if len(runs) < 2:
        raise MmerError(f"late fusion needs two or more finished runs, got {len(runs)}; pass each with --run")
    sources = [RunFolder(run) for run in runs]
    folder = RunFolder(out or RUNS / f"score-{'-'.join(run.name for run in runs)}")
    results = fuse_scores(sources, cache, folder, replace=replace)
    options = {"fusion": SCORE_FUSION, "cache": str(cache.path), "out": out and str(out), "run": list(map(str, runs))}
    write_config(folder.path, options, command="mmer-train")
    if comparison := compare_sum(sources, results, corpus_of(cache)):
        results["comparison"] = comparison
        write_results(folder, results)
    seconds, peak_bytes = total_cost(folder, folder.identity)
    return TrainedRun(folder=folder.path, results=results, seconds=seconds, peak_bytes=peak_bytes)


def encoder_lines(plan: RunPlan, folder: RunFolder) -> list[str]:
    """Returns a line on the tuned encoders of a run, with the command that makes a stream of each fold's encoder.

    Args:
        plan: plan of the run.
        folder: folder of the run.
    """
    if not plan.starts:
        return []
    seed, single = plan.experiment.seeds[0], len(plan.starts) == 1
    requests = [
        f"--encoder {quote(f'{stream}={folder.model(fold.name, seed).path / role}')}"
        for role in plan.starts
        for fold in plan.split.folds
        if (stream := re.sub(r"[^\w.-]", "-", f"tuned{'' if single else f'-{role}-'}{fold.name}"))
    ]
    specs = [start.spec for start in plan.starts.values()]
    options = [
        f"--{name.replace('_', '-')} {spec.preprocessing[name]}"
        for spec in specs
        for name in ("history", "max_tokens")
        if spec.preprocessing.get(name)
    ]
    audio_only = [] if any(spec.consumes == TRANSCRIPT for spec in specs) else ["--audio-only"]
    command = featurize_command(plan.cache, " ".join([*requests, *options, *audio_only]))
    reads = " ".join(f"--{role} 'tuned*'" for role in plan.starts if role in {AUDIO, TEXT})
    return [f"streams of the tuned encoders: {command}; a later run reads them with {reads}"]


def _take_over(plan: RunPlan, folder: RunFolder, progress: TrainingProgress, *, final: bool = False) -> None:
    """Links models of other runs below ``runs/`` that differ in their seeds only; a folder of --out has none."""
    folder.begin(plan.identity, provenance(plan), plan.experiment.defaults)
    for note in take_over_models(folder, plan.identity, plan.experiment.defaults, final=final):
        progress.note(note)


def _as_begun(plan: RunPlan, folder: RunFolder, out: Path | None, cache: Path) -> tuple[RunPlan, RunFolder]:
    """Returns plan and folder of a run that version 0.1 began, with its dev; else those that are given."""
    if (folder.path / RUN).exists() and folder.identity["folds"] == plan.identity["folds"]:
        return plan, folder
    if (out or RUNS).is_dir() and (earlier := plan_earlier(plan)):
        begun = RunFolder(out or default_run(earlier, cache))
        if (begun.path / RUN).exists() and begun.identity["folds"] == earlier.identity["folds"]:
            return earlier, begun
    return plan, folder


def default_run(plan: RunPlan, cache: Path) -> Path:
    """Returns the default folder of a run: named after cache, head, streams and a digest of its identity.

    A run that an older version began keeps its folder, whose name has no streams.

    Args:
        plan: plan of the run.
        cache: path of the cache, or pattern of its files.
    """
    digest = digest_of(plan.identity_without_defaults)[:8]
    head, selection = file_name_of(plan.experiment.fusion), plan.selection
    roles = [role for role in selection.streams if role in plan.experiment.head.roles]
    patterns = {role: plan.experiment.streams[role] for role in selection.choices}
    names = {role: patterns.get(role, selection.streams[role]) for role in roles}
    folder = RUNS / run_name(cache, head, main_streams(names), digest)
    older = default_folder(cache, f"{head}-{digest}")
    return older if (older / RUN).exists() and not (folder / RUN).exists() else folder
