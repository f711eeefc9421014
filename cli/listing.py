"""Listings: the catalogs of encoders, corpora, heads and recipes, printed by ``--list-...``."""

from typing import Any

import click

from cli.ending import clean_errors
from cli.output import echo, print_aligned, print_table

LISTING: dict[str, Any] = {"is_eager": True, "expose_value": False}


def list_encoders(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Prints the catalog of encoders and ends."""
    if value:
        from featurize.encoders.catalog import ENCODERS

        header = ("name", "modality", "dim", "rows/s", "source", "paper")
        rows = [
            (name, spec.modality, spec.dim, spec.rate_hz or "-", spec.source, spec.paper)
            for name, spec in ENCODERS.items()
        ]
        print_table(header, rows)
        ctx.exit()


def list_corpora(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Prints the catalog of corpora and ends."""
    if value:
        from featurize.corpora.catalog import CORPORA

        for name, spec in CORPORA.items():
            echo(name)
            print_aligned([("  from:", spec.where or "your own recordings"), ("  tree:", spec.tree)], widths=(7,))
        ctx.exit()


def list_heads(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Prints the catalog of heads and ends."""
    if value:
        from fusion.heads.catalog import HEADS

        print_aligned([(name, f"{spec.summary} ({spec.paper})") for name, spec in HEADS.items()], widths=(16,))
        ctx.exit()


def list_fields(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Prints the fields of a head and of its training, and ends."""
    if value:
        from fusion.experiment.fields import list_fields as fields_of
        from fusion.grid.combinations import value_text

        with clean_errors():
            rows = fields_of(value)
        texts = [(f"{name}={value_text(default)}", owner, meaning) for name, default, owner, meaning in rows]
        print_aligned(texts, widths=(26, 9))
        ctx.exit()


def list_recipes(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Prints the catalog of recipes and ends."""
    if value:
        from fusion.recipes.catalog import list_recipes as rows_of

        header, *rows = rows_of()
        print_table(header, rows)
        ctx.exit()


def list_published(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Prints published figures and ends."""
    if value:
        from fusion.grid.combinations import fields_text
        from fusion.recipes.listing import list_published as lines_of

        with clean_errors():
            lines = lines_of(value, fields_text)
        echo("\n".join(lines))
        ctx.exit()


def listing_options(command: Any) -> Any:
    """Adds the options that list heads, fields and recipes to a command."""
    listings = (
        click.option(
            "--list-heads", is_flag=True, help="Print the fusion heads and exit.", callback=list_heads, **LISTING
        ),
        click.option(
            "--list-fields",
            metavar="HEAD",
            help="Print the fields that --set accepts for a head, with defaults and meaning, and exit.",
            callback=list_fields,
            **LISTING,
        ),
        click.option(
            "--list-recipes", is_flag=True, help="Print the recipes and exit.", callback=list_recipes, **LISTING
        ),
        click.option(
            "--published",
            metavar="RECIPE",
            help="Print the published figures of a recipe, or of all recipes and the other systems in the tables of "
            "their papers (all), and exit.",
            callback=list_published,
            **LISTING,
        ),
    )
    for listing in reversed(listings):
        command = listing(command)
    return command
