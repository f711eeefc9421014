"""The command ``mmer-grid``: trains combinations of fields on every fold and ranks them."""

import sys
from contextlib import nullcontext
from dataclasses import asdict, dataclass
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
    experiment_options,
    experiment_request,
    json_option,
    pictures_option,
    positive,
    quiet_option,
    tune_process,
    with_probe_option,
    worker_cluster,
)
from cli.output import echo, print_json, print_table, size_text
from cli.train import print_models

if TYPE_CHECKING:
    from cache.joined import AnyCache
    from fusion.grid.run import GridEstimate, GridRun
    from fusion.grid.space import GridRequest

ENGINES = ("auto", "fused", "shared", "dask")


class GridOptions(ExperimentOptions):
    """Values of the options that define a grid."""

    grid: tuple[str, ...]
    ablate: tuple[str, ...]
    grid_file: Path | None
    search: str
    search_seed: int
    seed_count: int | None
    seeds: tuple[int, ...]
    report_all_tests: bool


@dataclass(frozen=True, kw_only=True)
class _Machine:
    """Device, engine, workers, memory and progress that a grid is trained with, as the options name them."""

    device: str
    engine: str
    scheduler: str | None
    share: float
    quiet: bool


@click.command(cls=Command)
@experiment_options
@click.option(
    "--grid",
    multiple=True,
    metavar="FIELD=V1,V2",
    help="Values of a field; the axes are crossed with each other; repeatable.  [default: none]",
)
@click.option(
    "--ablate",
    multiple=True,
    metavar="FIELD=V1,V2",
    help="Changes to the base configuration, one at a time; FIELD=V/FIELD=V changes both; published takes those of "
    "the recipe's paper; repeatable.  [default: none]",
)
@click.option(
    "--grid-file",
    type=click.Path(path_type=Path),
    help="JSON file of axes: an object of lists by field, or a list of such objects.  [default: none]",
)
@click.option(
    "--search",
    default="grid",
    show_default=True,
    metavar="HOW",
    help="Combinations to train: grid (all), random:N or tpe:N.",
)
@click.option(
    "--seeds",
    "seed_count",
    type=int,
    callback=positive(int),
    metavar="N",
    help="Number of models of each combination and fold, above 0, with seeds 0 to N-1.  [default: 1]",
)
@click.option(
    "--seed",
    "seeds",
    type=int,
    multiple=True,
    help="Random seed of the models, 0 or more, instead of --seeds; repeatable.  [default: 0]",
)
@click.option(
    "--search-seed",
    type=int,
    default=0,
    show_default=True,
    help="Random seed of the draws of random and tpe.",
    metavar="N",
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="auto",
    show_default=True,
    help="Training of several models on the device: fused as stacks that train as one model, shared side by side in "
    "threads, dask on the workers of --scheduler; auto takes the fastest way in a short trial.",
)
@click.option(
    "--scheduler", metavar="ADDRESS", help="Address of the dask scheduler, for --engine dask.  [default: none]"
)
@click.option(
    "--report-all-tests",
    is_flag=True,
    help="Score the test subsets of all combinations, not only of the winners (for ablation tables).",
)
@click.option("--dry-run", is_flag=True, help="Print combinations, memory and time; train nothing.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Journal folder to write.  [default: runs/CACHE-HEAD-grid]"
)
@click.option(
    "--keep-winner",
    is_flag=True,
    help="Also write the combination with the best mean dev score as a run folder, as mmer-train does; its models are "
    "not trained again.",
)
@with_probe_option
@pictures_option
@click.option("--latex", is_flag=True, help="Also print the ablation table and a row with the nested scores in LaTeX.")
@quiet_option
@listing_options
@json_option
def grid(
    *,
    cache: Path,
    out: Path | None,
    device: str,
    engine: str,
    scheduler: str | None,
    resident_share: float,
    dry_run: bool,
    keep_winner: bool,
    with_probe: bool,
    pictures: str,
    latex: bool,
    quiet: bool,
    as_json: bool,
    **options: Unpack[GridOptions],
) -> None:
    """Trains every combination of fields on every fold, many models at a time, and ranks them.

    The winner of each fold is chosen on the development subset of the fold and scored on its test subset: that is the
    result. Trained models are kept in a journal: a killed grid is resumed, and a new value on an axis trains only the
    new models.

    \b
    Example:
        mmer-grid --fusion rescmfa --cache cache/demo.h5 --grid lr=1e-3,3e-3 --grid layers=2,4
        mmer-grid --fusion bimodal --cache cache/demo.h5 --ablate alpha=0 --ablate beta=0 --report-all-tests
    """
    with clean_errors():
        check_one_form(as_json=as_json, latex=latex)
        _check_engine(engine, scheduler)
        from cache.joined import open_cache

        opened = open_cache(cache)  # before torch is imported, so that a wrong path is answered at once
        tune_process()
        machine = _Machine(device=device, engine=engine, scheduler=scheduler, share=resident_share, quiet=quiet)
        request = _request(options, opened)
        flags: Any = {"dry_run": dry_run, "keep": keep_winner, "with_probe": with_probe, "pictures": pictures}
        found = _trained(request, opened, cache, out=out, machine=machine, **flags)
        print_found(found, as_json=as_json, latex=latex, quiet=quiet)


def print_found(
    found: "GridRun | GridEstimate", *, as_json: bool = False, latex: bool = False, quiet: bool = False
) -> None:
    """Prints the tables of a grid, or the estimate of a dry run.

    Args:
        found: to print.
        as_json: print the results of a grid, or the estimate, as one JSON object instead.
        latex: also print the ablation table and the nested scores in LaTeX.
        quiet: print only those notes that limit what the scores mean.
    """
    from fusion.grid.run import GridEstimate

    if isinstance(found, GridEstimate):
        print_json({**asdict(found), "journal": str(found.journal)}) if as_json else _print_estimate(found)
    elif as_json:
        print_json(found.results)
    else:
        _print_run(found, latex=latex, quiet=quiet)


def _request(options: GridOptions, opened: "AnyCache") -> "GridRequest":
    from fusion.grid.space import GridRequest, grid_space, parse_search

    base = experiment_request(options, seeds=_seeds(options))
    return GridRequest(
        base=base,
        search=parse_search(options["search"]),
        space=grid_space(
            base, grid=options["grid"], ablate=options["ablate"], grid_file=options["grid_file"], cache=opened
        ),
        search_seed=options["search_seed"],
        report_all_tests=options["report_all_tests"],
        given={"grid": options["grid"], "ablate": options["ablate"], "grid-file": options["grid_file"]},
    )


def _seeds(options: GridOptions) -> tuple[int, ...]:
    from cache.errors import MmerError

    count, seeds = options["seed_count"], options["seeds"]
    if count and seeds:
        raise MmerError("--seeds N means seeds 0 to N-1, and --seed lists them one by one; give only one of the two")
    return tuple(range(count)) if count else seeds


def _check_engine(engine: str, scheduler: str | None) -> None:
    from cache.errors import MmerError

    if (engine == "dask") != bool(scheduler):
        raise MmerError("--engine dask needs --scheduler ADDRESS, and no other engine accepts it")


def _trained(
    request: "GridRequest",
    opened: "AnyCache",
    cache: Path,
    *,
    out: Path | None,
    machine: "_Machine",
    dry_run: bool,
    keep: bool,
    with_probe: bool,
    pictures: str,
) -> "GridRun | GridEstimate":
    from fusion.grid.space import check_grid

    check_device(machine.device)
    splits = check_grid(request, opened)  # before torch: a wrong stream ends at once
    from cli.progress import GridBar
    from featurize.runtime.device import choose_device
    from fusion.grid.run import SilentGridProgress, estimate_grid, run_grid

    device, share = choose_device(machine.device), machine.share
    bar_or_none = nullcontext(SilentGridProgress()) if machine.quiet else GridBar()
    with bar_or_none as bar, worker_cluster(None, machine.scheduler, machine.device) as cluster:
        if dry_run:
            return estimate_grid(
                request,
                opened,
                splits=splits,
                out=out,
                named_after=cache,
                device=device,
                progress=bar,
                resident_share=share,
                with_probe=with_probe,
            )
        return run_grid(
            request,
            opened,
            splits=splits,
            out=out,
            named_after=cache,
            device=device,
            engine=machine.engine,
            cluster=cluster,
            progress=bar,
            resident_share=share,
            keep=keep,
            with_probe=with_probe,
            pictures=pictures,
        )


def _print_estimate(found: "GridEstimate") -> None:
    for line in found.combinations:
        echo(line)
    cost = found.cost
    known = f"{cost.known} of them in {found.journal}"
    echo(f"{len(found.combinations)} combinations, {cost.models} models, {known}")
    echo(
        f"features {size_text(cost.features_bytes)}, training of a model {size_text(cost.model_bytes)}, "
        f"weights on disk {size_text(cost.disk_bytes)}"
    )
    if cost.placement:
        echo(f"{cost.placement}; at most {cost.seconds:.0f} s, less where models stop early")
    if found.probe:
        print_models(found.probe, "probe: ")


def _print_run(run: "GridRun", *, latex: bool, quiet: bool) -> None:
    report = run.report
    print_table(*report.ranking)
    echo()
    print_table(*report.folds)
    echo(report.legend)
    for line in report.limits if quiet else report.lines:
        echo(line)
    if run.kept:
        echo(f"{run.kept.folder}: the best combination by mean dev, as a run")
    if latex:
        echo(report.latex)
    for line in () if quiet else run.comparison:
        echo(line)


if __name__ == "__main__":
    sys.exit(grid())
