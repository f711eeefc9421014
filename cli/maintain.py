"""``mmer-cache``: looks after a cache file."""

from pathlib import Path
from typing import Any

import click

from cli.options import LazyGroup, clean_errors, fail, file_argument, json_option, print_json, print_table, size_text

COMMANDS = {
    "info": "cli.maintain:info",
    "verify": "cli.maintain:verify",
    "doctor": "cli.maintain:doctor",
    "export": "cli.packs:export",
    "import": "cli.packs:import_pack",
    "merge": "cli.merge:merge",
    "drop": "cli.maintain:drop",
}
SHOWN = 20


@click.group(cls=LazyGroup, commands_at=COMMANDS)
def cache() -> None:
    """Looks after caches; FILE may be a quoted pattern of files that are one corpus."""


@click.command()
@file_argument
@json_option
def info(file: Path, as_json: bool) -> None:
    """Says what is in FILE: streams, what is committed, failed and pending, and why."""
    from cache.audit import noted, summarize
    from cache.joined import open_cache

    with clean_errors():
        opened = open_cache(file)
        summary = summarize(opened)
        if as_json:
            print_json({**summary, "noted": noted(opened)})
            return
        header, files = opened.header, f" in {len(opened.parts)} files" if len(opened.parts) > 1 else ""
        made = f"{summary['utterances']:,} utterances{files}, made {header['created']}"
        click.echo(f"{file}: {header['corpus']['name']}, {made}")
        print_streams(summary)
        for encoder, arrays in opened.all_weights().items():
            total = sum(array.nbytes for array in arrays.values())
            click.echo(f"weights of {encoder} for heads to start from: {len(arrays)} arrays, {size_text(total)}")
        _print_items(summary["failures"], "failed", "reason")
        _print_items(noted(opened), "noted", "note")


@click.command()
@file_argument
@click.option("--audio", type=click.Path(path_type=Path), help="Corpus folder: compare the recordings too.")
@json_option
def verify(file: Path, audio: Path | None, as_json: bool) -> None:
    """Checks every committed row of FILE: checksums, NaN, impossible states."""
    from cache.audit import as_json as plain
    from cache.audit import verify as problems_of
    from cache.audit import verify_recordings
    from cache.joined import open_cache

    with clean_errors():
        opened = open_cache(file)
        problems = problems_of(opened)
        if audio is not None:
            from featurize.recheck import recording_digests

            problems += verify_recordings(opened, recording_digests(audio))
    if as_json:
        print_json({"problems": plain(problems)})
    else:
        for problem in problems[:SHOWN]:
            click.echo(f"{problem.stream} {problem.id}: {problem.problem}".replace(" :", ":"))
        committed = sum(stream["committed"] for stream in _summary(opened)["streams"].values())
        click.echo(f"{file}: {committed:,} committed rows of utterances checked, {len(problems)} problems")
    if problems:
        utterances = len({problem.id for problem in problems})
        fail(
            f"{file} has {len(problems)} problems in {utterances} utterances; mmer-featurize recomputes rows "
            "of changed recordings, and with --replace damaged ones"
        )


@click.command()
@file_argument
@json_option
def doctor(file: Path, as_json: bool) -> None:
    """Compares FILE with what is known of its corpus: published counts, twins, odd durations."""
    from dataclasses import asdict

    from cache.doctor import examine
    from cache.joined import open_cache

    with clean_errors():
        findings = examine(open_cache(file))
    if as_json:
        print_json({"findings": [{**asdict(one), "differs": one.differs} for one in findings]})
        return
    rows = [
        (one.what, one.found, "-" if one.expected is None else f"{one.expected:,}", "DIFFERS" if one.differs else "")
        for one in findings
    ]
    print_table(("what", "found", "expected", ""), rows)
    for one in findings:
        if one.detail:
            click.echo(f"{one.what}: {one.detail}")


@click.command()
@file_argument
@click.argument("stream")
@json_option
def drop(file: Path, stream: str, as_json: bool) -> None:
    """Removes STREAM from FILE, or from every file that a pattern names; each is built anew beside it and renamed."""
    from cache.drop import drop_stream
    from cache.joined import open_cache
    from cache.parts import cache_files

    with clean_errors():
        files = cache_files(file)
        before = _size_bytes(files)
        drop_stream(file, stream)
        if as_json:
            print_json(_summary(open_cache(file)))
        else:
            click.echo(f"{stream} dropped from {file}: {size_text(before)} -> {size_text(_size_bytes(files))}")


def print_streams(summary: dict[str, Any]) -> None:
    """Prints the streams of a summary as a table."""
    header = ("stream", "rows", "dim", "dtype", "committed", "failed", "pending", "size")
    rows = [
        (name, one["rows"], _dim(one), *(one[column] for column in header[3:-1]), size_text(one["bytes"]))
        for name, one in summary["streams"].items()
    ]
    print_table(header, rows)


def _dim(stream: dict[str, Any]) -> object:
    return f"{stream['layers']} x {stream['dim']}" if "layers" in stream else stream["dim"]


def _size_bytes(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files if file.exists())


def _summary(opened: Any) -> dict[str, Any]:
    from cache.audit import summarize

    return summarize(opened)


def _print_items(items: list[dict[str, str]], what: str, key: str) -> None:
    for item in items[:SHOWN]:
        click.echo(f"{what}: {item['id']} in {item['stream']}: {item[key]}")
    if len(items) > SHOWN:
        click.echo(f"... and {len(items) - SHOWN} more {what}; --json lists all")
