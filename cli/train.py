"""The command ``mmer-train``: trains a fusion head and scores it on every fold of a protocol."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click

from cli.listing import listing_options
from cli.options import (
    ExperimentOptions,
    check_one_form,
    clean_errors,
    echo,
    experiment_options,
    experiment_request,
    json_option,
    positive,
    print_json,
    print_table,
    size_text,
    tune_process,
    worker_cluster,
)

if TYPE_CHECKING:
    from cache.joined import AnyCache
    from fusion.experiment.experiment import ExperimentRequest
    from fusion.run.train import TrainedRun


@click.command()
@experiment_options
@click.option(
    "--seed",
    "seeds",
    type=int,
    multiple=True,
    help="Random seed of the model; repeat the option to train several.  [default: 0]",
)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder to write.  [default: runs/CACHE-HEAD-DIGEST]")
@click.option(
    "--run",
    "runs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Finished run folder for late fusion (the logits are added); two or more, with --fusion score.",
)
@click.option("--replace", is_flag=True, help="Delete another run that the run folder holds, and train again.")
@click.option("--latex", is_flag=True, help="Also print the scores as a row of a LaTeX table.")
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
    help="Train folds and seeds in N processes of this machine, one GPU each if there are several.  "
    "[default: this process]",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Address of a dask scheduler whose workers train folds and seeds; they need cache and run folder at the same "
    "paths.  [default: none]",
)
@click.option("--tensorboard", is_flag=True, help="Also write the curves for TensorBoard into the run folder.")
@click.option(
    "--track",
    type=click.Choice(["trackio"]),
    help="Also log the curves to this tracker, on this machine; needs the extra track.  [default: none]",
)
@listing_options
@json_option
def train(
    *,
    cache: Path,
    seeds: tuple[int, ...],
    out: Path | None,
    runs: tuple[Path, ...],
    device: str,
    resident_share: float,
    replace: bool,
    final: bool,
    workers: int | None,
    scheduler: str | None,
    tensorboard: bool,
    track: str | None,
    latex: bool,
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
        check_one_form(as_json=as_json, latex=latex)
        from cache.joined import open_cache

        opened = open_cache(cache)  # before torch is imported, so that a wrong path is answered at once
        tune_process()
        if runs:
            _check_sum(runs, seeds, final, options)
            run = _fused(runs, opened, out=out, replace=replace)
        else:
            request = experiment_request(options, seeds=seeds, tune_all=tune_all)
            flags = {"replace": replace, "tensorboard": tensorboard, "final": final, "track": track or ""}
            machine = (workers, scheduler, device)
            run = _trained(request, opened, cache, machine, out=out, share=resident_share, **flags)
    print_run(run, as_json=as_json, latex=latex)


def print_run(run: "TrainedRun", *, as_json: bool = False, latex: bool = False) -> None:
    """Prints a finished run: the table of folds, its notes, its cost.

    Args:
        run: to print.
        as_json: print its results as one JSON object instead.
        latex: also print a row of a LaTeX table.
    """
    if as_json:
        print_json(run.results)
        return
    print_table(*run.table)
    for line in run.notes:
        echo(line)
    took = f", {run.seconds:.1f} s of training, peak {size_text(run.peak_bytes)}" if run.seconds else ""
    echo(f"{run.folder}: {run.parameters:,} parameters{took}")
    if latex:
        echo(run.latex)


def _trained(
    request: "ExperimentRequest",
    opened: "AnyCache",
    cache: Path,
    machine: tuple[int | None, str | None, str],
    *,
    out: Path | None,
    share: float,
    **flags: Any,
) -> "TrainedRun":
    from cli.progress import TrainingBar
    from featurize.runtime.device import choose_device
    from fusion.run.train import train_run
    from fusion.training.interrupt import deferred_interrupts

    chosen = choose_device(machine[-1])
    experiment = request.experiment(opened)
    with worker_cluster(*machine) as cluster, TrainingBar() as bar, deferred_interrupts() as stopping:
        return train_run(
            experiment,
            opened,
            out=out,
            named_after=cache,
            device=chosen,
            progress=bar,
            resident_share=share,
            cluster=cluster,
            stopping=stopping,
            **flags,
        )


def _fused(runs: Sequence[Path], cache: "AnyCache", *, out: Path | None, replace: bool) -> "TrainedRun":
    from fusion.run.train import fuse_runs

    return fuse_runs(runs, cache, out=out, replace=replace)


def _check_sum(runs: Sequence[Path], seeds: Sequence[int], final: bool, options: ExperimentOptions) -> None:
    """Checks that --run is not combined with options that finished runs cannot follow."""
    from cache.errors import MmerError
    from fusion.run.score_fusion import SCORE_FUSION

    if len(runs) < 2 or options["fusion"] != SCORE_FUSION:
        raise MmerError("--run needs two or more finished runs, and --fusion score")
    values = {**options, "seeds": seeds, "final": final}
    given = [name for name, value in values.items() if name != "fusion" and value not in (None, (), False)]
    if given:
        raise MmerError(f"--run adds up finished runs as they are; leave out: {', '.join(given)}")


if __name__ == "__main__":
    sys.exit(train())
