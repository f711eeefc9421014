"""The command ``mmer-cache``: inspects, checks, merges, exports and imports caches, and drops streams."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.command import Command, LazyGroup
from cli.ending import clean_errors, fail
from cli.options import file_argument, json_option
from cli.output import echo, print_json, print_table, size_text

if TYPE_CHECKING:
    from cache.audit import Problem
    from cache.doctor import Finding
    from cache.joined import AnyCache
    from cache.merge import Merged
    from cache.packs.base import Pack
    from cache.packs.importing import Imported

OURS = ("npy", "packed", "safetensors")
LAYOUTS = (*OURS, "emotion2vec", "emobox", "emotion2vec-files")  # as in cache.packs.catalog
ROLES = ("audio", "mel", "patches", "text")
folder_argument = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
COMMANDS = {
    "info": "cli.maintain:info",
    "verify": "cli.maintain:verify",
    "doctor": "cli.maintain:doctor",
    "export": "cli.maintain:export",
    "import": "cli.maintain:import_pack",
    "merge": "cli.maintain:merge",
    "drop": "cli.maintain:drop",
}
SHOWN = 20


@click.command(cls=Command)
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--replace", is_flag=True, help="Overwrite OUT if it exists.")
@json_option
def merge(out: Path, files: tuple[Path, ...], replace: bool, as_json: bool) -> None:
    """Merges every FILE, a cache or a quoted pattern of caches, into the one file OUT.

    The files may differ in utterances, in streams, or in both. They are not changed.

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
    else:
        _print_merged(merged, summary, out)


@click.command(cls=Command)
@file_argument
@folder_argument
@click.option("--layout", type=click.Choice(OURS), default="npy", show_default=True, help="Form of the files in DIR.")
@click.option("--stream", "streams", multiple=True, help="Export only this stream; repeatable.  [default: all]")
@click.option("--replace", is_flag=True, help="Overwrite an older pack in DIR.")
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
    echo(f"{file} -> {folder}: {total} ({layout})")


@click.command(cls=Command, name="import")
@folder_argument
@file_argument
@click.option("--layout", type=click.Choice(LAYOUTS), help="Form of the files in DIR.  [default: the one that fits]")
@click.option(
    "--stream",
    "streams",
    multiple=True,
    metavar="[NEW=]NAME",
    help="Import only this stream, as NEW if given; repeatable.  [default: all]",
)
@click.option("--corpus", default="", help="Name of the corpus.  [default: that of the pack]")
@click.option("--role", type=click.Choice(ROLES), help="Role of the features of another toolkit.  [default: audio]")
@click.option(
    "--metadata",
    type=click.Path(path_type=Path),
    help="Metadata file of EmoBox (.jsonl or .json).  [default: the one in DIR]",
)
@click.option("--partial", is_flag=True, help="Leave out utterances that FILE does not have instead of failing.")
@click.option("--replace", is_flag=True, help="Replace streams of the same name by those of the pack.")
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
    """Adds the features in DIR to FILE, or creates FILE from them; packs of mmer, EmoBox and emotion2vec.

    \b
    Example:
        mmer-cache import packs/demo cache/new.h5
        mmer-cache import dump/iemocap/wavlm-base cache/iemocap.h5 --stream wavlm-emobox=wavlm-base
    """
    from cache.audit import summarize
    from cache.packs.importing import import_pack as join
    from cache.store import FeatureCache

    with clean_errors():
        pack = _opened_pack(folder, file, layout or "", role=role or "", corpus=corpus, metadata=metadata)
        done = join(pack, file, streams=streams, corpus=corpus, partial=partial, replace=replace)
        summary = summarize(FeatureCache(file))
    summary["streams"] = {name: summary["streams"][name] for name in done.written}
    if as_json:
        print_json({**summary, "layout": pack.layout, "created": done.created, "left_out": done.left_out})
    else:
        _print_imported(done, summary, f"{folder} ({pack.layout})", file)


@click.group(cls=LazyGroup, commands_at=COMMANDS)
def cache() -> None:
    """Inspects and maintains caches; FILE may be a quoted pattern of files that form one corpus."""


@click.command(cls=Command)
@file_argument
@json_option
def info(file: Path, as_json: bool) -> None:
    """Prints the streams of FILE, and which utterances are committed, failed (with the reason) and pending."""
    from cache.audit import noted, summarize
    from cache.joined import open_cache

    with clean_errors():
        opened = open_cache(file)
        summary = summarize(opened)
        if as_json:
            print_json({**summary, "noted": noted(opened)})
            return
        _print_cache(opened, summary, file)
        _print_items(summary["failures"], "failed", "reason")
        _print_items(noted(opened), "noted", "note")


@click.command(cls=Command)
@file_argument
@click.option(
    "--audio",
    type=click.Path(path_type=Path),
    help="Corpus folder; also compares the recordings with the cache.  [default: rows only]",
)
@json_option
def verify(file: Path, audio: Path | None, as_json: bool) -> None:
    """Checks every committed row of FILE: checksum, finite values, valid state."""
    from cache.audit import as_json as plain
    from cache.joined import open_cache

    with clean_errors():
        opened = open_cache(file)
        problems = _problems(opened, audio)
    if as_json:
        print_json({"problems": plain(problems)})
    else:
        _print_problems(problems, opened, file)
    if problems:
        what = f"{len(problems)} problems in {len({problem.id for problem in problems})} utterances"
        way_out = "mmer-featurize recomputes rows of changed recordings, and with --replace damaged ones"
        fail(f"{file} has {what}; {way_out}")


@click.command(cls=Command)
@file_argument
@json_option
def doctor(file: Path, as_json: bool) -> None:
    """Compares FILE with published facts of its corpus: counts, identical recordings, unusual durations."""
    from dataclasses import asdict

    from cache.doctor import examine
    from cache.joined import open_cache

    with clean_errors():
        findings = examine(open_cache(file))
    if as_json:
        print_json({"findings": [{**asdict(finding), "differs": finding.differs} for finding in findings]})
    else:
        _print_findings(findings)


@click.command(cls=Command)
@file_argument
@click.argument("stream")
@json_option
def drop(file: Path, stream: str, as_json: bool) -> None:
    """Removes STREAM from FILE, or from every file of a pattern; each file is rewritten and then renamed."""
    from cache.audit import summarize
    from cache.joined import cache_files, open_cache
    from cache.rebuild import drop_stream

    with clean_errors():
        files = cache_files(file)
        before = _size_bytes(files)
        drop_stream(file, stream)
        if as_json:
            print_json(summarize(open_cache(file)))
        else:
            echo(f"{stream} dropped from {file}: {size_text(before)} -> {size_text(_size_bytes(files))}")


def print_streams(summary: dict[str, Any]) -> None:
    """Prints the streams of a summary as a table."""
    header = ("stream", "rows", "dim", "dtype", "committed", "failed", "pending", "size")
    rows = [
        (name, stream["rows"], _dim(stream), *(stream[column] for column in header[3:-1]), size_text(stream["bytes"]))
        for name, stream in summary["streams"].items()
    ]
    print_table(header, rows)
    for name, stream in summary["streams"].items():
        if stream.get("left_out"):
            why = (
                "are not transcribed, they have a text"
                if name.endswith(".asr")
                else "get no view, which is for training"
            )
            echo(f"{name}: {stream['left_out']} utterances {why}")


def _dim(stream: dict[str, Any]) -> object:
    return f"{stream['layers']} x {stream['dim']}" if "layers" in stream else stream["dim"]


def _size_bytes(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.exists())


def _problems(opened: "AnyCache", audio: Path | None) -> "list[Problem]":
    """Checks the rows of a cache, and the recordings if their folder is given."""
    from cache.audit import verify, verify_recordings

    problems = verify(opened)
    if audio is None:
        return problems
    from featurize.extraction.staleness import current_audio_digests

    return problems + verify_recordings(opened, current_audio_digests(audio))


def _opened_pack(folder: Path, file: Path, layout: str, **described: Any) -> "Pack":
    """Opens a pack to import into a file, whose ids decide how files are named."""
    from cache.packs.catalog import open_pack
    from cache.packs.importing import held_ids
    from cache.packs.third_party import ImportOptions

    return open_pack(folder, ImportOptions(known_ids=held_ids(file), **described), layout)


def _print_merged(merged: "Merged", summary: dict[str, Any], out: Path) -> None:
    print_streams(summary)
    if merged.damaged:
        left_out = f"{merged.damaged:,} damaged rows of utterances were left out"
        echo(f"{left_out}; mmer-featurize computes them again", err=True)
    content = f"{summary['utterances']:,} utterances, {merged.committed:,} committed rows of utterances"
    echo(f"{out}: {content} from {merged.files} files, {size_text(out.stat().st_size)}")


def _print_imported(done: "Imported", summary: dict[str, Any], pack: str, file: Path) -> None:
    print_streams(summary)
    if done.left_out:
        echo(f"left out: {len(done.left_out)} utterances that {file} does not have (first: {done.left_out[0]})")
    echo(f"{pack} -> {file}: {'created' if done.created else 'added'}")


def _print_cache(opened: "AnyCache", summary: dict[str, Any], file: Path) -> None:
    from cache.writer import leftovers

    header, files = opened.header, f" in {len(opened.files)} files" if len(opened.files) > 1 else ""
    content = f"{summary['utterances']:,} utterances{files}, made {header['created']}"
    echo(f"{file}: {header['corpus']['name']}, {content}")
    print_streams(summary)
    for encoder, arrays in opened.all_weights().items():
        total = sum(array.nbytes for array in arrays.values())
        echo(f"weights of {encoder} for heads to start from: {len(arrays)} arrays, {size_text(total)}")
    for cache_file in opened.files:
        for left in leftovers(cache_file.path):
            size = size_text(left.stat().st_size)
            echo(f"a killed run left {left} ({size}); the next command that writes to {cache_file.path} removes it")


def _print_problems(problems: "Sequence[Problem]", opened: "AnyCache", file: Path) -> None:
    from cache.audit import summarize

    for problem in problems[:SHOWN]:
        echo(f"{problem.stream} {problem.id}: {problem.problem}".replace(" :", ":"))
    committed = sum(stream["committed"] for stream in summarize(opened)["streams"].values())
    echo(f"{file}: {committed:,} committed rows of utterances checked, {len(problems)} problems")


def _print_findings(findings: "Sequence[Finding]") -> None:
    rows = [
        (
            finding.what,
            finding.found,
            "-" if finding.expected is None else f"{finding.expected:,}",
            "DIFFERS" if finding.differs else "",
        )
        for finding in findings
    ]
    print_table(("what", "found", "expected", ""), rows)
    for finding in findings:
        if finding.detail:
            echo(f"{finding.what}: {finding.detail}")


def _print_items(items: list[dict[str, str]], what: str, key: str) -> None:
    for item in items[:SHOWN]:
        echo(f"{what}: {item['id']} in {item['stream']}: {item[key]}")
    if len(items) > SHOWN:
        echo(f"... and {len(items) - SHOWN} more {what}; --json lists all")
