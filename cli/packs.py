"""``mmer-cache export`` and ``import``: feature packs, to be shared without the audio."""

from pathlib import Path

import click

from cli.options import clean_errors, file_argument, json_option, print_json, size_text

OURS = ("npy", "packed", "safetensors")
LAYOUTS = (*OURS, "emotion2vec", "emobox", "emotion2vec-files")  # as in cache.packs.catalog
ROLES = ("audio", "mel", "patches", "text")

folder_argument = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))


@click.command()
@file_argument
@folder_argument
@click.option("--layout", type=click.Choice(OURS), default="npy", show_default=True)
@click.option("--stream", "streams", multiple=True, help="Take only this stream; repeatable.")
@click.option("--replace", is_flag=True, help="Write an older pack in DIR anew.")
@json_option
def export(  # noqa: PLR0917 - click calls it by name
    file: Path, folder: Path, layout: str, streams: tuple[str, ...], replace: bool, as_json: bool
) -> None:
    """Writes the features of FILE, or of all files that match a pattern, as plain files into DIR.

    \b
    Example:
        mmer-cache export cache/demo.h5 packs/demo --layout packed
    """
    from cache.joined import open_cache
    from cache.packs.export import export_pack

    with clean_errors():
        done = export_pack(open_cache(file), folder, layout=layout, streams=streams, replace=replace)
    if as_json:
        counts = {"utterances": done.utterances, "streams": done.committed, "bytes": done.size_bytes}
        print_json({"pack": str(folder), "layout": layout, **counts})
        return
    total = f"{done.utterances:,} utterances, {len(done.committed)} streams, {size_text(done.size_bytes)}"
    click.echo(f"{file} -> {folder}: {total} ({layout})")


@click.command(name="import")
@folder_argument
@file_argument
@click.option("--layout", type=click.Choice(LAYOUTS), help="How the features lie in DIR; default: what fits.")
@click.option("--stream", "streams", multiple=True, metavar="[NEW=]NAME", help="Take only this stream; repeatable.")
@click.option("--corpus", default="", help="Name of the corpus; default: the pack's.")
@click.option("--role", type=click.Choice(ROLES), help="What the features of another toolkit are; default: audio.")
@click.option("--metadata", type=click.Path(path_type=Path), help="EmoBox' .jsonl or .json, if it is not in DIR.")
@click.option("--partial", is_flag=True, help="Leave out utterances that FILE does not know.")
@click.option("--replace", is_flag=True, help="Take streams of the same name from the pack.")
@json_option
def import_pack(  # noqa: PLR0917 - click calls it by name
    folder: Path,
    file: Path,
    layout: str | None,
    streams: tuple[str, ...],
    corpus: str,
    role: str | None,
    metadata: Path | None,
    partial: bool,
    replace: bool,
    as_json: bool,
) -> None:
    """Adds the features in DIR to FILE, or makes FILE of them; ours, EmoBox' and emotion2vec's.

    \b
    Example:
        mmer-cache import packs/demo cache/new.h5
        mmer-cache import dump/iemocap/wavlm-base cache/iemocap.h5 --stream wavlm-emobox=wavlm-base
    """
    from cache.audit import summarize
    from cache.packs.catalog import open_pack
    from cache.packs.foreign import Asked
    from cache.packs.joining import import_pack as join
    from cache.store import FeatureCache
    from cli.maintain import print_streams

    with clean_errors():
        pack = open_pack(folder, Asked(role=role or "", corpus=corpus, metadata=metadata), layout or "")
        done = join(pack, file, streams=streams, corpus=corpus, partial=partial, replace=replace)
        summary = summarize(FeatureCache(file))
    summary["streams"] = {name: summary["streams"][name] for name in done.written}
    if as_json:
        print_json({**summary, "layout": pack.layout, "created": done.created, "left_out": done.left_out})
        return
    print_streams(summary)
    if done.left_out:
        click.echo(f"left out: {len(done.left_out)} utterances that {file} does not know (first: {done.left_out[0]})")
    click.echo(f"{folder} ({pack.layout}) -> {file}: {'created' if done.created else 'added'}")
