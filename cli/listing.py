"""Listings: the catalogs of encoders, corpora, heads, protocols and recipes, printed by ``--list-...``.

With ``--json`` anywhere on the command line, a listing is one JSON object with a list.
"""

from dataclasses import asdict
from typing import Any

import click

from cli.command import wants_json
from cli.ending import clean_errors
from cli.output import echo, print_aligned, print_json, print_table

LISTING: dict[str, Any] = {"is_eager": True, "expose_value": False}


def list_encoders(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Prints the catalog of encoders and ends."""
    if value:
        from featurize.encoders.catalog import ENCODERS

        if wants_json(ctx):
            print_json({"encoders": [{"name": name, **asdict(spec)} for name, spec in ENCODERS.items()]})
            ctx.exit()
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

        if wants_json(ctx):
            corpora = [{"name": name, "from": spec.where, "tree": spec.tree} for name, spec in CORPORA.items()]
            print_json({"corpora": corpora})
            ctx.exit()
        for name, spec in CORPORA.items():
            echo(name)
            print_aligned([("  from:", spec.where or "your own recordings"), ("  tree:", spec.tree)], widths=(7,))
        ctx.exit()


def list_heads(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Prints the catalog of heads and ends."""
    if value:
        from fusion.heads.catalog import HEADS

        if wants_json(ctx):
            heads = [{"name": name, "summary": spec.summary, "paper": spec.paper} for name, spec in HEADS.items()]
            print_json({"heads": heads})
            ctx.exit()
        print_aligned([(name, f"{spec.summary} ({spec.paper})") for name, spec in HEADS.items()], widths=(16,))
        ctx.exit()


def list_protocols(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Prints the protocols with their promises and ends."""
    if value:
        from fusion.protocols.catalog import list_protocols as rows_of

        rows = rows_of()
        if wants_json(ctx):
            print_json({"protocols": [{"name": name, "promise": promise} for name, promise in rows]})
            ctx.exit()
        print_aligned(rows, widths=(16,))
        ctx.exit()


def list_fields(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Prints the fields of a head and of its training, and ends."""
    if value:
        from fusion.experiment.fields import list_fields as fields_of
        from fusion.grid.combinations import value_text

        with clean_errors():
            rows = fields_of(value)
        if wants_json(ctx):
            print_json({"fields": [dict(zip(("name", "default", "of", "meaning"), row, strict=True)) for row in rows]})
            ctx.exit()
        texts = [(f"{name}={value_text(default)}", owner, meaning) for name, default, owner, meaning in rows]
        print_aligned(texts, widths=(26, 9))
        ctx.exit()


def list_recipes(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Prints the catalog of recipes and ends."""
    if value:
        from fusion.recipes.catalog import RECIPES
        from fusion.recipes.catalog import list_recipes as rows_of

        if wants_json(ctx):
            print_json({"recipes": [asdict(settings) for settings in RECIPES.values()]})
            ctx.exit()
        header, *rows = rows_of()
        print_table(header, rows)
        ctx.exit()


def list_published(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Prints published figures and ends."""
    if value:
        from fusion.grid.combinations import fields_text
        from fusion.recipes.listing import list_published as lines_of
        from fusion.recipes.listing import published_json

        with clean_errors():
            if wants_json(ctx):
                print_json(published_json(value))
                ctx.exit()
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
            "--list-protocols",
            is_flag=True,
            help="Print the protocols and what each promises, and exit.",
            callback=list_protocols,
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
