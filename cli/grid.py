"""``mmer-grid``: every combination of fields on every fold, in one command and one table."""

import sys
from pathlib import Path
from typing import Any

import click

from cli.experiment import experiment_options
from cli.listing import listing_options
from cli.options import clean_errors, json_option, positive
from cli.searching import search_and_report

ENGINES = ("auto", "fused", "shared", "dask")


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


if __name__ == "__main__":
    sys.exit(grid())
