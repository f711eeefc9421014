"""``mmer-train``: a fusion head, trained and scored on every fold of a protocol."""

import sys
from pathlib import Path
from typing import Any

import click

from cli.experiment import experiment_options
from cli.listing import listing_options
from cli.options import clean_errors, json_option
from cli.training import train_and_report


@click.command()
@experiment_options
@click.option("--seed", "seeds", type=int, multiple=True, help="Of the models; repeatable.  [default: 0]")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: below runs/, named after the run]")
@click.option(
    "--run",
    "runs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Finished run whose logits are added up; two or more, with --fusion score.",
)
@click.option("--replace", is_flag=True, help="Train anew what the run folder holds.")
@click.option("--latex", is_flag=True, help="Print a row of a LaTeX table too.")
@click.option("--tensorboard", is_flag=True, help="Write the curves for TensorBoard too, into the run folder.")
@listing_options
@json_option
def train(**asked: Any) -> None:
    """Trains a fusion head on cached features and scores it on every fold.

    Epochs are chosen on dev; each test part is opened once, for the epoch that dev chose. A run that was killed goes on
    where it was; a finished one is printed again.

    \b
    Example:
        mmer-train --fusion rescmfa --cache cache/demo.h5
        mmer-train --recipe gcf2net-iemocap --cache cache/iemocap.h5 --seed 1 --seed 2 --seed 3
    """
    with clean_errors():
        train_and_report(**asked)


if __name__ == "__main__":
    sys.exit(train())
