"""``mmer-train``: a fusion head, trained and scored on every fold of a protocol."""

import sys
from pathlib import Path
from typing import Any

import click

from cli.listing import list_heads, list_recipes
from cli.options import clean_errors, json_option, positive
from cli.training import train_and_report


@click.command()
@click.option("--fusion", metavar="HEAD", help="Name of the head, see --list-heads; a recipe names its own.")
@click.option(
    "--cache",
    required=True,
    type=click.Path(path_type=Path),
    help="Cache to train on; a quoted pattern for several files that are one corpus.",
)
@click.option("--recipe", help="Settings of a paper, see --list-recipes; NAME:paper for its optimizer too.")
@click.option(
    "--protocol", help="session, speaker, session5, random5, official, actor6, actor5, auto.  [default: the corpus']"
)
@click.option("--labels", help="Name of a label set, or happy=hap+exc,sad=sad.  [default: the corpus']")
@click.option("--audio", metavar="STREAM", help="Stream to read as audio, where the cache has several.")
@click.option("--text", metavar="STREAM", help="Stream to read as text, where the cache has several.")
@click.option("--stream", "streams", multiple=True, metavar="ROLE=STREAM", help="Stream for another role; repeatable.")
@click.option("--modalities", type=click.Choice(["both", "audio", "text"]), help="Read one modality alone.")
@click.option("--modality-dropout", type=float, help="How often training takes one of two modalities away.")
@click.option("--epochs", type=int, callback=positive(int), help="At most.")
@click.option("--batch-size", type=int, callback=positive(int))
@click.option("--lr", type=float, callback=positive(float), help="Learning rate.")
@click.option("--seed", "seeds", type=int, multiple=True, help="Of the models; repeatable.  [default: 0]")
@click.option("--data-seed", type=int, help="Of dev parts and of the order of batches.  [default: 0]")
@click.option(
    "--set", "fields", multiple=True, metavar="FIELD=VALUE", help="Any field of head or training; repeatable."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: below runs/, named after the run]")
@click.option(
    "--run",
    "runs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Finished run whose logits are added up; two or more, with --fusion score.",
)
@click.option(
    "--allow-missing", is_flag=True, help="Score the test utterances that have features where some have none."
)
@click.option("--allow-leak", is_flag=True, help="Take an encoder that has seen test speakers; printed in the results.")
@click.option("--replace", is_flag=True, help="Train anew what the run folder holds.")
@click.option("--latex", is_flag=True, help="Print a row of a LaTeX table too.")
@click.option("--tensorboard", is_flag=True, help="Write the curves for TensorBoard too, into the run folder.")
@click.option("--list-heads", is_flag=True, is_eager=True, expose_value=False, callback=list_heads)
@click.option("--list-recipes", is_flag=True, is_eager=True, expose_value=False, callback=list_recipes)
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
