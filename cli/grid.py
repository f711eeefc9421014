"""``mmer-grid``: every combination of fields on every fold, in one command and one table.

What ``mmer-grid`` does: reads the space, has it trained, prints what was chosen.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from cli.listing import listing_options
from cli.options import clean_errors, experiment_options, json_option, positive, print_json, print_table, size_text
from cli.train import check_one_form, default_name

PUBLISHED = "published"  # in place of a change: those of the recipe's paper
ENGINES = ("auto", "fused", "shared", "dask")


def search_and_report(*, as_json: bool, latex: bool, dry_run: bool, report_all_tests: bool, **asked: Any) -> None:
    """Trains the grid that is asked for and prints its tables, or what it would take."""
    check_one_form(as_json=as_json, latex=latex)
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as in cli/extract.py
    from cache.joined import open_cache

    cache = open_cache(asked["cache"])  # before torch is imported: a wrong path is answered at once
    from cli.progress import GridBar
    from featurize.runtime.memory import keep_freed_memory
    from fusion.experiment.experiment import head_of
    from fusion.grid.journal import Journal
    from fusion.grid.space import parse_search

    keep_freed_memory()
    asked["seeds"] = _seeds(asked)
    search, space = parse_search(asked["search"]), _space(asked)
    journal = Journal(asked["out"] or default_name(asked["cache"], f"{head_of(asked)[1]}-grid"))
    with GridBar() as bar, _training(asked, journal, bar) as (train, device, engine):
        session = _session(asked, cache=cache, journal=journal, train=train, device=device, watcher=bar)
        for note in space.notes(search):
            bar.note(note)
        if dry_run:
            _print_estimate(session, space, search, asked["search_seed"])
            return
        found = session.run(space, search, seed=asked["search_seed"], all_tests=report_all_tests)
    _report(found, journal, cache, engine=engine(), as_json=as_json, latex=latex)
    if asked["recipe"] and not as_json:
        _print_published(head_of(asked)[0])


@click.command()
@experiment_options
@click.option("--grid", multiple=True, metavar="FIELD=V1,V2", help="Axis of the grid, crossed with the others.")
@click.option(
    "--ablate",
    multiple=True,
    metavar="FIELD=V1,V2",
    help="One change each to what is trained anyway; FIELD=V/FIELD=V changes both; published takes the recipe's.",
)
@click.option("--grid-file", type=click.Path(path_type=Path), help="Axes in JSON: one object, or a list of them.")
@click.option(
    "--search", default="grid", show_default=True, metavar="HOW", help="grid, random:N or tpe:N combinations."
)
@click.option("--seeds", "seed_count", type=int, callback=positive(int), help="Models of each, seeds 0 to N-1.")
@click.option("--seed", "seeds", type=int, multiple=True, help="Of the models, instead; repeatable.  [default: 0]")
@click.option(
    "--search-seed", type=int, default=0, show_default=True, help="Of the draws of random and tpe.", metavar="N"
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="auto",
    show_default=True,
    help="How models share the device; auto takes the fastest of a short trial.",
)
@click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler of the workers, for --engine dask.")
@click.option("--report-all-tests", is_flag=True, help="Open the tests of all combinations, for ablation tables.")
@click.option("--dry-run", is_flag=True, help="Print the combinations, the memory and the time, and train nothing.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the journal.  [default: runs/CACHE-HEAD-grid]")
@click.option("--latex", is_flag=True, help="Print the ablation table in LaTeX too.")
@listing_options
@json_option
def grid(**asked: Any) -> None:
    """Trains every combination of fields on every fold, many models at a time, and ranks them.

    Each fold's winner is chosen on its own dev and scored on its own test: that is the result. What is trained stands
    in a journal: a grid that was killed goes on where it was, and a value more on an axis trains only what is new.

    \b
    Example:
        mmer-grid --fusion rescmfa --cache cache/demo.h5 --grid lr=1e-3,3e-3 --grid layers=2,4
        mmer-grid --fusion bimodal --cache cache/demo.h5 --ablate alpha=0 --ablate beta=0 --report-all-tests
    """
    with clean_errors():
        search_and_report(**asked)


def _seeds(asked: Mapping[str, Any]) -> tuple[int, ...]:
    from cache.errors import MmerError

    if asked["seed_count"] and asked["seeds"]:
        raise MmerError("--seeds N stands for the seeds 0 to N-1, --seed names them one by one; give one of both")
    return tuple(range(asked["seed_count"])) if asked["seed_count"] else asked["seeds"]


def _space(asked: Mapping[str, Any]) -> Any:
    from cache.errors import MmerError
    from fusion.experiment.experiment import fields_of, head_of
    from fusion.grid.space import read_space

    chosen, fusion = head_of(asked)
    own = [text for text in asked["ablate"] if text != PUBLISHED]
    space = read_space(fusion, grid=asked["grid"], ablate=own, grid_file=asked["grid_file"])
    if len(own) < len(asked["ablate"]):
        space = space.with_changes(_published(chosen))
    twice = [axis.name for axis in space.axes if axis.name in fields_of(asked)]
    if twice:
        raise MmerError(f"{twice[0]} is an axis of the grid and is set besides; leave one of them out")
    return space


def _published(chosen: Any) -> list[Mapping[str, object]]:
    """Gives the changes of a recipe's published variants."""
    from cache.errors import MmerError

    changes = [one.change for one in chosen.published.figures if one.change and not one.head] if chosen else []
    if not changes:
        raise MmerError(f"--ablate {PUBLISHED} takes the variants that a paper printed; name a --recipe that has some")
    return changes


@contextmanager
def _training(asked: Mapping[str, Any], journal: Any, bar: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Gives what trains models, the device for tests, and what names the engine once it is known."""
    from cache.errors import MmerError
    from featurize.runtime.device import choose_device
    from fusion.grid.engine.local import Engine

    device = choose_device(asked["device"])
    if (asked["engine"] == "dask") != bool(asked["scheduler"]):
        raise MmerError("--engine dask needs the --scheduler of the workers, and no other engine takes one")
    if asked["scheduler"]:
        from featurize.runtime.cluster import Workers, cluster_of

        with cluster_of(Workers(scheduler=asked["scheduler"], device=asked["device"])) as cluster:
            keeping = {"cache": asked["cache"], "journal": journal, "watcher": bar}
            yield partial(_train_on, cluster, asked["resident_share"], keeping), device, lambda: "dask"
        return
    engine = Engine(asked["engine"], journal=journal, watcher=bar, device=device)
    yield engine.run, device, lambda: str(engine.layout or "none: all was in the journal")


def _train_on(cluster: Any, share: float, keeping: Mapping[str, Any], models: Sequence[Any], sources: Any) -> Any:
    from featurize.runtime.cluster import own_device
    from fusion.grid.engine.remote import run_on_workers, train_task

    return run_on_workers(cluster.results, partial(train_task, own_device, share), models, **keeping)


def _session(asked: Mapping[str, Any], *, cache: Any, **parts: Any) -> Any:
    from fusion.experiment.experiment import experiment_of
    from fusion.grid.session import Session

    return Session(
        cache=cache,
        experiment_of=lambda axes: experiment_of(asked, cache, axes),
        resident_share=asked["resident_share"],
        **parts,
    )


def _print_estimate(session: Any, space: Any, search: Any, seed: int) -> None:
    from fusion.grid.combinations import models_of, told
    from fusion.grid.engine.calibration import estimate
    from fusion.grid.space import TPE, Search

    drawn = Search(kind="random", count=search.count) if search.kind == TPE else search
    session.plan(space.combinations(drawn, seed))
    for one in session.combinations:
        click.echo(told(one.fields))
    models = [model for one in session.combinations for model in models_of(one)]
    found = estimate(models, session.sources, session.journal)
    known = f"{found.known} of them in {session.journal.path}"
    click.echo(f"{len(session.combinations)} combinations, {found.models} models, {known}")
    click.echo(
        f"features {size_text(found.features_bytes)}, training of a model {size_text(found.model_bytes)}, "
        f"weights on disk {size_text(found.disk_bytes)}"
    )
    if found.layout:
        click.echo(f"{found.layout}; at most {found.seconds:.0f} s, less where models stop early")


def _report(found: Any, journal: Any, cache: Any, *, engine: str, as_json: bool, latex: bool) -> None:
    from fusion.grid.report.output import report_of

    report = report_of(found, journal, cache, engine=engine)
    report.write()
    if as_json:
        print_json(report.json)
        return
    print_table(*report.ranking)
    click.echo()
    print_table(*report.folds)
    for line in report.lines:
        click.echo(line)
    if latex:
        click.echo(report.latex)


def _print_published(recipe: Any) -> None:
    from fusion.grid.combinations import told
    from fusion.recipes.comparison import published_table

    for line in published_table(recipe, told):
        click.echo(line)


if __name__ == "__main__":
    sys.exit(grid())
