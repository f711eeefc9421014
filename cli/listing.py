"""What ``mmer-featurize`` lists: the catalogs of encoders and of corpora."""

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
