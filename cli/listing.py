"""What commands list: the catalogs of encoders, corpora, heads and recipes."""

import click

from cli.options import print_table


def list_encoders(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Prints the catalog of encoders and ends."""
    if value:
        from featurize.encoders.catalog import ENCODERS

        header = ("name", "modality", "dim", "rows/s", "source", "paper")
        rows = [
            (name, one.modality, one.dim, one.rate_hz or "-", one.source, one.paper) for name, one in ENCODERS.items()
        ]
        print_table(header, rows)
        ctx.exit()


def list_corpora(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Prints the catalog of corpora and ends."""
    if value:
        from featurize.corpora.catalog import CORPORA

        for name, one in CORPORA.items():
            click.echo(f"{name}\n  from: {one.where or 'your own recordings'}\n  tree: {one.tree}")
        ctx.exit()


def list_heads(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Prints the catalog of heads and ends."""
    if value:
        from fusion.heads.catalog import HEADS

        for name, one in HEADS.items():
            click.echo(f"{name:<16} {one.summary} ({one.paper})")
        ctx.exit()


def list_recipes(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Prints the catalog of recipes and ends."""
    if value:
        from fusion.recipes import list_recipes as rows_of

        header, *rows = rows_of()
        print_table(header, rows)
        ctx.exit()
