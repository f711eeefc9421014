"""The command ``mmer-train``: trains a fusion head and scores it on every fold of a protocol."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click

from cli.command import Command
from cli.ending import clean_errors
from cli.listing import listing_options
from cli.options import (
    ExperimentOptions,
    check_device,
    check_one_form,
    dashboard_option,
    experiment_options,
    experiment_request,
    json_option,
    latex_header_option,
    pictures_option,
    positive,
    quiet_option,
    tune_process,
    with_probe_option,
    worker_cluster,
)
from cli.output import duration_text, echo, print_json, print_table, size_text

if TYPE_CHECKING:
    from cache.joined import AnyCache
    from featurize.runtime.cluster import Cluster
    from fusion.experiment.experiment import Experiment
    from fusion.experiment.plan import Splits
    from fusion.experiment.request import ExperimentRequest
    from fusion.run.estimate import RunEstimate
    from fusion.run.train import TrainedRun


@click.command(cls=Command)
@experiment_options
@click.option(
    "--seed",
    "seeds",
    type=int,
    multiple=True,
    help="Random seed of the model, 0 or more; repeat the option to train several.  [default: 0]",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Run folder to write.  [default: runs/CACHE-HEAD-STREAMS-DIGEST]"
)
@click.option(
    "--run",
    "runs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Finished run folder for late fusion (the logits are added); two or more, with --fusion score.  "
    "[default: none]",
)
@click.option(
    "--test-cache",
    "test_caches",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Cache of another corpus on which every model is scored too; with --protocol cross, a run is trained on each "
    "cache and scored on the others; repeatable.  [default: none]",
)
@click.option(
    "--test-labels",
    metavar="LABELS",
    help="Label set of the other corpora, as in --labels; with --target, scales of their ratings such as valence=1:7.  "
    "[default: that of each corpus, joined by name]",
)
@click.option("--replace", is_flag=True, help="Delete another run that the run folder holds, and train again.")
@pictures_option
@click.option(
    "--latex",
    is_flag=True,
    help="Also print a row of a LaTeX table: head, streams, protocol, scores with spread and interval.",
)
@latex_header_option
@quiet_option
@click.option(
    "--final",
    is_flag=True,
    help="Also train a model for each seed on all utterances, for the median best epoch of the folds; not scored.",
)
@click.option(
    "--workers",
    type=int,
    callback=positive(int),
    metavar="N",
    help="Train folds and seeds in N processes of this machine, above 0, one GPU each if there are several.  "
    "[default: this process]",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Address of a dask scheduler whose workers train folds and seeds; they need cache and run folder at the same "
    "paths.  [default: none]",
)
@with_probe_option
@dashboard_option
@click.option("--tensorboard", is_flag=True, help="Also write the curves for TensorBoard into the run folder.")
@click.option(
    "--track",
    type=click.Choice(["trackio"]),
    help="Also log the curves to this tracker, on this machine; needs the extra track.  [default: none]",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print folds, counts by class, parameters, memory, time and files; train a few batches only, write nothing.",
)
@listing_options
@json_option
def train(
    *,
    cache: Path,
    seeds: tuple[int, ...],
    out: Path | None,
    runs: tuple[Path, ...],
    test_caches: tuple[Path, ...],
    test_labels: str | None,
    device: str,
    resident_share: float,
    replace: bool,
    final: bool,
    workers: int | None,
    scheduler: str | None,
    dashboard: bool,
    with_probe: bool,
    tensorboard: bool,
    track: str | None,
    pictures: str,
    latex: bool,
    latex_header: bool,
    quiet: bool,
    dry_run: bool,
    as_json: bool,
    tune_all: bool = False,
    **options: Unpack[ExperimentOptions],
) -> None:
    """Trains a fusion head on cached features and scores it on every fold.

    The epoch is chosen on the development subset; each test subset is scored once, for that epoch. A run that was
    killed is resumed by the same command; a finished run is printed again.

    \b
    Example:
        mmer-train --fusion rescmfa --cache cache/demo.h5
        mmer-train --recipe gcf2net-iemocap --cache cache/iemocap.h5 --seed 1 --seed 2 --seed 3
    """
    with clean_errors():
        check_one_form(as_json=as_json, latex=latex or latex_header)
        caches = _opened([cache, *test_caches])  # before torch: a wrong path ends at once
        tune_process()
        flags: Any = {"replace": replace, "tensorboard": tensorboard, "final": final, "track": track or ""}
        flags["with_probe"] = with_probe
        training: Any = {"seeds": seeds, "tune_all": tune_all, "share": resident_share, "test_labels": test_labels}
        if dry_run:
            print_estimates(_estimated(options, caches, runs, device=device, out=out, **training, **flags), as_json)
        else:
            machine = partial(worker_cluster, workers, scheduler, device, dashboard=dashboard)
            training |= {"quiet": quiet, "pictures": pictures}
            train_all = partial(_trained, options, caches, machine, device=device, **training)
            found = _fused(runs, caches, options, seeds, out=out, **flags) if runs else train_all(out=out, **flags)
            print_runs(found, as_json=as_json, latex=latex, latex_header=latex_header, quiet=quiet)


def _opened(paths: Sequence[Path]) -> "list[tuple[Path, AnyCache]]":
    from cache.joined import open_cache

    return [(path, open_cache(path)) for path in paths]


def print_runs(
    runs: "Sequence[TrainedRun]",
    *,
    as_json: bool = False,
    latex: bool = False,
    latex_header: bool = False,
    quiet: bool = False,
) -> None:
    """Prints a finished run, or a table corpus by corpus of several runs with their folders.

    Args:
        runs: one run, or those of protocol ``cross``.
        as_json: print the results as one JSON object instead, or as a list of several.
        latex: also print a row of a LaTeX table for each run.
        latex_header: print the header of these rows first.
        quiet: print only those notes that limit what the scores mean.
    """
    from fusion.run.cross_corpus import cross_table

    if as_json:
        print_json(runs[0].results if len(runs) == 1 else [run.results for run in runs])
        return
    if len(runs) == 1:
        print_run(runs[0], quiet=quiet)
    else:
        print_table(*cross_table([run.results for run in runs]))
        echo(runs[0].legend)
        for run in runs:
            echo(f"{run.folder}: {run.promise}")
            notes = [note for other in run.results["cross"] for note in other["notes"]]
            for note in dict.fromkeys([*run.limits, *([] if quiet else notes)]):
                echo(f"  {note}")
    if latex or latex_header:
        for line in ([runs[0].latex_header] if latex_header else []) + [run.latex for run in runs]:
            echo(line)


def print_run(run: "TrainedRun", *, quiet: bool = False) -> None:
    """Prints a finished run: the table of folds, the definitions of its scores, its notes, its cost.

    Args:
        run: to print.
        quiet: print only those notes that limit what the scores mean.
    """
    print_table(*run.table)
    if run.cross_table:
        print_table(*run.cross_table)
    echo(run.legend)
    for line in run.limits if quiet else run.notes:
        echo(line)
    took = f", {run.seconds:.1f} s of training, peak {size_text(run.peak_bytes)}" if run.seconds else ""
    echo(f"{run.folder}: {run.parameters:,} parameters{took}")


def print_estimates(found: "Sequence[RunEstimate]", as_json: bool) -> None:
    """Prints the estimates of a dry run: the subsets of every fold, then what the run needs and writes.

    Args:
        found: estimates of a run, or those of protocol ``cross``.
        as_json: print one JSON object instead, or a list of several.
    """
    if as_json:
        print_json(found[0].plain if len(found) == 1 else [run.plain for run in found])
        return
    for run in found:
        print_table(*run.table)
        for line in (run.promise, *run.notes):
            echo(line)
        files = f"weights on disk {size_text(run.disk_bytes)}"
        echo(f"features {size_text(run.features_bytes)}, peak of a training {size_text(run.peak_bytes)}, {files}")
        for each in filter(None, (run, run.probe)):
            print_models(each, "" if each is run else "probe: ")


def print_models(run: "RunEstimate", title: str = "") -> None:
    """Prints the models of a run that has not started, their time and their folder.

    Args:
        run: the estimate.
        title: beginning of the first line.
    """
    rest = f", of which {run.finished} are finished" if run.finished else ""
    echo(f"{title}{run.models} models of {run.parameters:,} parameters{rest}")
    ends = dict.fromkeys(map(duration_text, (run.shortest_s, run.longest_s)))
    echo(f"time: {' to '.join(ends)}: {run.measured}")
    echo(f"would write {run.folder}: {run.files}")


def _estimated(
    options: ExperimentOptions,
    caches: "Sequence[tuple[Path, AnyCache]]",
    runs: Sequence[Path],
    *,
    device: str,
    out: Path | None,
    seeds: Sequence[int],
    tune_all: bool,
    share: float,
    test_labels: str | None,
    **flags: Any,
) -> "list[RunEstimate]":
    from cache.errors import MmerError

    if runs:
        raise MmerError("--run trains nothing, so that --dry-run has nothing to estimate; leave one of them out")
    request, across = _requested(options, seeds=seeds, tune_all=tune_all)
    check_device(device)
    (path, cache), *others = caches
    experiment, splits = (None, None) if across else _checked(request, cache)
    from featurize.runtime.device import choose_device
    from fusion.run.estimate import estimate_across, estimate_run

    common: dict[str, Any] = {"device": choose_device(device), "resident_share": share, "test_labels": test_labels}
    common |= {name: flags[name] for name in ("replace", "final", "with_probe")} | {"out": out}
    if experiment is None:
        return estimate_across(request, caches, **common)
    tested = [other for _, other in others]
    return [estimate_run(experiment, cache, splits=splits, named_after=path, test_caches=tested, **common)]


def _requested(options: ExperimentOptions, *, seeds: Sequence[int], tune_all: bool) -> "tuple[ExperimentRequest, bool]":
    """Returns the request of the options, and True if a run is trained on each of several corpora."""
    from fusion.protocols.catalog import CROSS

    across = options["protocol"] == CROSS
    data: ExperimentOptions = {**options, "protocol": None} if across else options
    return experiment_request(data, seeds=seeds, tune_all=tune_all), across


def _checked(request: "ExperimentRequest", cache: "AnyCache") -> "tuple[Experiment, Splits]":
    """Returns the experiment of a request and its splits, whose errors come before torch is imported."""
    from fusion.experiment.plan import check_data

    experiment = request.experiment(cache)
    return experiment, check_data(experiment, cache)


def _trained(
    options: ExperimentOptions,
    caches: "Sequence[tuple[Path, AnyCache]]",
    machine: "Callable[[], AbstractContextManager[Cluster | None]]",
    *,
    device: str,
    seeds: Sequence[int],
    tune_all: bool,
    share: float,
    quiet: bool,
    **flags: Any,
) -> "list[TrainedRun]":
    request, across = _requested(options, seeds=seeds, tune_all=tune_all)  # before torch: a wrong setting ends at once
    check_device(device)
    (path, cache), *others = caches
    experiment, splits = (None, None) if across else _checked(request, cache)
    from cli.progress import TrainingBar
    from featurize.runtime.device import choose_device
    from fusion.run.cross_validation import SilentProgress
    from fusion.run.train import train_across, train_run
    from fusion.training.interrupt import deferred_interrupts

    common: dict[str, Any] = {"device": choose_device(device), "resident_share": share, **flags}
    bar_or_none = nullcontext(SilentProgress()) if quiet else TrainingBar()
    with machine() as cluster, bar_or_none as bar, deferred_interrupts() as stopping:
        common |= {"cluster": cluster, "progress": bar, "stopping": stopping}
        if experiment is None:
            return train_across(request, caches, **common)
        tested = [other for _, other in others]
        return [train_run(experiment, cache, splits=splits, named_after=path, test_caches=tested, **common)]


def _fused(
    runs: Sequence[Path],
    caches: "Sequence[tuple[Path, AnyCache]]",
    options: ExperimentOptions,
    seeds: Sequence[int],
    *,
    out: Path | None,
    replace: bool,
    final: bool,
    with_probe: bool,
    **others: Any,
) -> "list[TrainedRun]":
    added = {"seeds": seeds, "final": final, "with_probe": with_probe, "test_cache": caches[1:]}
    _check_sum(runs, options, added)
    from fusion.run.folder import check_recorded

    check_recorded(runs)  # before torch: a wrong path ends at once
    from fusion.run.train import fuse_runs

    return [fuse_runs(runs, caches[0][1], out=out, replace=replace)]


def _check_sum(runs: Sequence[Path], options: ExperimentOptions, added: Mapping[str, object]) -> None:
    """Checks that --run is not combined with options that finished runs cannot follow."""
    from cache.errors import MmerError
    from fusion.heads.catalog import SCORE_FUSION

    if len(runs) < 2 or options["fusion"] != SCORE_FUSION:
        raise MmerError("--run needs two or more finished runs, and --fusion score")
    values = {**options, **added}
    given = [name for name, value in values.items() if name != "fusion" and value not in (None, (), [], False)]
    if given:
        raise MmerError(f"--run adds up finished runs as they are; leave out: {', '.join(given)}")


if __name__ == "__main__":
    sys.exit(train())
