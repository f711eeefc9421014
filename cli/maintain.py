"""``mmer-cache``: looks after a cache file."""

from pathlib import Path
from typing import Any

import click

from cli.options import clean_errors, fail, file_argument, json_option, print_json, print_table, size_text

SHOWN = 20


@click.group()
def cache() -> None:
    """Looks after a cache: info, verify, doctor, drop."""


@cache.command()
@file_argument
@json_option
def info(file: Path, as_json: bool) -> None:
    """Says what is in FILE: streams, what is committed, failed and pending, and why."""
    from cache.audit import noted, summarize
    from cache.store import FeatureCache

    with clean_errors():
        opened = FeatureCache(file)
        summary = summarize(opened)
        if as_json:
            print_json({**summary, "noted": noted(opened)})
            return
        header = opened.layout.header
        click.echo(
            f"{file}: {header['corpus']['name']}, {summary['utterances']:,} utterances, made {header['created']}"
        )
        print_streams(summary)
        _print_items(summary["failures"], "failed", "reason")
        _print_items(noted(opened), "noted", "note")


@cache.command()
@file_argument
@click.option("--audio", type=click.Path(path_type=Path), help="Corpus folder: compare the recordings too.")
@json_option
def verify(file: Path, audio: Path | None, as_json: bool) -> None:
    """Checks every committed row of FILE: checksums, NaN, impossible states."""
    from cache.audit import as_json as plain
    from cache.audit import verify as problems_of
    from cache.audit import verify_recordings
    from cache.store import FeatureCache

    with clean_errors():
        opened = FeatureCache(file)
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


@cache.command()
@file_argument
@json_option
def doctor(file: Path, as_json: bool) -> None:
    """Compares FILE with what is known of its corpus: published counts, twins, odd durations."""
    from dataclasses import asdict

    from cache.doctor import examine
    from cache.store import FeatureCache

    with clean_errors():
        findings = examine(FeatureCache(file))
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


@cache.command()
@file_argument
@click.argument("stream")
@json_option
def drop(file: Path, stream: str, as_json: bool) -> None:
    """Removes STREAM from FILE; the file is built anew beside it and renamed."""
    from cache.rebuild import drop_stream
    from cache.store import FeatureCache

    with clean_errors():
        before = file.stat().st_size if file.exists() else 0
        drop_stream(file, stream)
        summary: dict[str, Any] = _summary(FeatureCache(file))
    if as_json:
        print_json(summary)
    else:
        click.echo(f"{stream} dropped from {file}: {size_text(before)} -> {size_text(file.stat().st_size)}")


def print_streams(summary: dict[str, Any]) -> None:
    """Prints the streams of a summary as a table."""
    header = ("stream", "rows", "dim", "dtype", "committed", "failed", "pending", "size")
    rows = [
        (name, *(one[column] for column in header[1:-1]), size_text(one["bytes"]))
        for name, one in summary["streams"].items()
    ]
    print_table(header, rows)


def _summary(opened: Any) -> dict[str, Any]:
    from cache.audit import summarize

    return summarize(opened)


def _print_items(items: list[dict[str, str]], what: str, key: str) -> None:
    for item in items[:SHOWN]:
        click.echo(f"{what}: {item['id']} in {item['stream']}: {item[key]}")
    if len(items) > SHOWN:
        click.echo(f"... and {len(items) - SHOWN} more {what}; --json lists all")
