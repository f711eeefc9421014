"""What ``mmer-featurize`` does once it knows its job: compare, estimate, run; and what it prints of it."""

from functools import partial
from typing import Any

import click

from cli.options import fail, print_json, print_table, size_text

SHOWN = 5  # failures and notes printed; all of them are in the cache


def check_parity(job: Any, utterances: int, as_json: bool) -> None:
    """Prints how far batching moves a feature; ends the command where it does."""
    from featurize import parity
    from featurize.job import plan_job, read_job

    for one in parity.check_parity(plan_job(job, *read_job(job)), utterances):
        click.echo(
            f"parity of {one.encoder} ({one.precision}), {one.utterances} utterances batched against one by one: "
            f"relative L2 {one.relative:.1e}, largest difference {one.absolute:.1e}",
            err=as_json,  # stdout is for the one object then
        )
        if not one.exact:
            limit = f"{parity.TOLERANCE:g}"
            fail(f"{one.encoder} deviates by more than {limit}; run it with --batch-seconds 0 and report this")


def print_estimate(job: Any, as_json: bool) -> None:
    """Prints what a run would take."""
    from dataclasses import asdict

    from featurize.estimate import estimate
    from featurize.job import plan_job, read_job

    found = estimate(plan_job(job, *read_job(job)))
    if as_json:
        print_json(asdict(found))
        return
    print_table(
        ("stream", "rows", "size", "cannot"),
        [(one.name, one.rows, size_text(one.size_bytes), one.failed) for one in found.streams],
    )
    click.echo(f"{found.utterances} utterances, {found.audio_s / 3600:.2f} h of speech")
    click.echo(f"file: {size_text(found.size_bytes)}, free disk: {size_text(found.free_bytes)}")
    click.echo(f"time: about {_duration(found.seconds)} on {job.options.device}, by one batch of each encoder")


def run(job: Any, workers: Any, shards: int | None, as_json: bool) -> None:
    """Runs a job, here or on workers, as one or in shards, and prints what it left behind."""
    from cli.progress import ProgressBar

    with ProgressBar() as progress:
        report = _report(job, workers, shards, progress)
    if as_json:
        print_json(
            {
                "cache": str(report.cache),
                **report.summary,
                "noted": report.noted,
                "notes": report.notes,
                "seconds": round(report.seconds, 3),
            }
        )
    else:
        _print_report(report)
    if report.empty:
        fail(f"nothing at all was computed for {', '.join(report.empty)}; the reasons are above and in {report.cache}")


def _report(job: Any, workers: Any, shards: int | None, progress: Any) -> Any:
    from featurize.run import run_job, run_shards

    if workers is None:
        return run_shards(job, shards, progress) if shards else run_job(job, progress)
    from featurize.cluster import cluster_of
    from featurize.distributed import extract_on, run_shards_on

    with cluster_of(workers) as cluster:
        if shards:
            return run_shards_on(cluster, job, shards, progress)
        return run_job(job, progress, partial(extract_on, cluster))


def _print_report(report: Any) -> None:
    from cli.maintain import print_streams

    print_streams(report.summary)
    for what, key, items in (("failed", "reason", report.summary["failures"]), ("noted", "note", report.noted)):
        if items:
            click.echo(f"{len({item['id'] for item in items})} utterances {what} in one stream or more:")
        for item in items[:SHOWN]:
            click.echo(f"  {item['id']} in {item['stream']}: {item[key]}")
        if len(items) > SHOWN:
            click.echo(f"  ... and {len(items) - SHOWN} more; `mmer-cache info {report.cache} --json` lists them")
    pending = [name for name, one in report.summary["streams"].items() if one["pending"]]
    rest = f"; pending, for their encoder to run again: {', '.join(pending)}" if pending else ""
    click.echo(f"{report.cache} is done after {_duration(report.seconds)}{rest}")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
