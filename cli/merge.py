"""``mmer-cache merge``: several cache files become one."""

from pathlib import Path

import click

from cli.maintain import print_streams
from cli.options import clean_errors, json_option, print_json, size_text


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--replace", is_flag=True, help="Let OUT take the place of a cache that is there.")
@json_option
def merge(out: Path, files: tuple[Path, ...], replace: bool, as_json: bool) -> None:
    """Joins every FILE, a cache or a quoted pattern of caches, into the one file OUT.

    The files may hold other utterances, other streams, or both. They stay as they are.

    \b
    Example:
        mmer-cache merge cache/voices.h5 'cache/voices-*.h5'
    """
    from dataclasses import asdict

    from cache.audit import summarize
    from cache.merge import merge_caches
    from cache.store import FeatureCache

    with clean_errors():
        merged = merge_caches(out, files, replace=replace)
        summary = summarize(FeatureCache(out))
    if as_json:
        print_json({**summary, **asdict(merged)})
        return
    print_streams(summary)
    if merged.damaged:
        left_out = f"{merged.damaged:,} damaged rows of utterances were left out"
        click.echo(f"{left_out}; mmer-featurize computes them anew", err=True)
    made = f"{summary['utterances']:,} utterances, {merged.committed:,} committed rows of utterances"
    click.echo(f"{out}: {made} from {merged.files} files, {size_text(out.stat().st_size)}")
