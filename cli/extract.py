"""``mmer-featurize``: a corpus folder in, one cache of encoder features out.

What ``mmer-featurize`` does once it knows its job: compare, estimate, run; and what it prints of it.
"""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from cli.listing import LISTING, list_corpora, list_encoders
from cli.options import clean_errors, fail, json_option, positive, print_json, print_table, size_text

SHOWN = 5  # failures and notes printed; all of them are in the cache


def check_parity(job: Any, utterances: int, as_json: bool) -> None:
    """Prints how far batching moves a feature; ends the command where it does."""
    from featurize.extraction import parity
    from featurize.extraction.job import plan_job, read_job

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

    from featurize.extraction.estimate import estimate
    from featurize.extraction.job import plan_job, read_job

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


@click.command()
@click.argument("corpus")
@click.option("--root", type=click.Path(path_type=Path), help="Folder of the corpus, or file of a manifest.")
@click.option("--cache", type=click.Path(path_type=Path), help="File to write.  [default: cache/CORPUS.h5]")
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    metavar="[NAME=]SOURCE[@LAYERS]",
    help="Catalog name, hub id or folder; repeatable.  [default: wav2vec2-base and roberta-base]",
)
@click.option("--audio-only", is_flag=True, help="No text encoder and no CTC targets.")
@click.option("--mel/--no-mel", default=True, show_default=True, help="Log-mel (logmel80) beside the encoders.")
@click.option("--codes/--no-codes", default=None, help="Quantizer codes.  [default: where the checkpoint has them]")
@click.option(
    "--dtype", type=click.Choice(["float16", "float32", "int8"]), default="float16", show_default=True, help="Storage."
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="What Transformers compute in.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--batch-seconds",
    type=click.FloatRange(min=0),
    help="Speech of one batch, padding included; 0: one by one.  [default: by device]",
)
@click.option(
    "--max-seconds", type=float, default=60.0, show_default=True, callback=positive(float), help="Longest utterance."
)
@click.option("--chunk", is_flag=True, help="Encode longer utterances in pieces instead of failing them.")
@click.option(
    "--start-layers",
    type=click.IntRange(1, 12),
    default=2,
    show_default=True,
    metavar="K",
    help="Layers kept for JFM to start from: the first of a ViT, of RoBERTa or BERT those after NAME@LAYER.",
)
@click.option(
    "--history",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Turns of the dialogue before an utterance that its text encoder reads too; the streams end in +historyN.",
)
@click.option("--max-tokens", type=int, callback=positive(int), help="Longest text.  [default: what the encoder takes]")
@click.option("--truncate", is_flag=True, help="Cut transcripts that are too long instead of failing them.")
@click.option(
    "--event-tags",
    type=click.Choice(["strip", "keep"]),
    default="strip",
    show_default=True,
    help="Tags such as [LAUGHTER] in transcripts.",
)
@click.option("--workers", type=int, callback=positive(int), help="Encode in N processes of this machine.")
@click.option("--scheduler", metavar="ADDRESS", help="Encode on a dask cluster, such as tcp://10.0.0.1:8786.")
@click.option("--shards", type=int, callback=positive(int), help="A cache file for each of K shares of the corpus.")
@click.option("--shard", type=int, callback=positive(int), help="Only that one of --shards, as in a job array.")
@click.option("--limit", type=int, callback=positive(int), help="Only the first N utterances.")
@click.option("--allow-outside", is_flag=True, help="A manifest may name recordings outside its folder.")
@click.option(
    "--replace", is_flag=True, help="Recompute what was computed otherwise or is damaged; drop what left the corpus."
)
@click.option("--dry-run", is_flag=True, help="Print rows, bytes, time and free disk; compute nothing.")
@click.option(
    "--parity-check", type=int, callback=positive(int), help="First compare N utterances, batched, with one by one."
)
@click.option("--list-encoders", is_flag=True, help="Print the encoders.", callback=list_encoders, **LISTING)
@click.option("--list-corpora", is_flag=True, help="Print the corpora.", callback=list_corpora, **LISTING)
@json_option
def featurize(
    *,
    dry_run: bool,
    parity_check: int | None,
    workers: int | None,
    scheduler: str | None,
    shards: int | None,
    shard: int | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Runs encoders over every utterance of CORPUS once and keeps what they give in one file.

    CORPUS is demo, iemocap, meld, ravdess or manifest. What is already in the file is not computed again; a run that
    was killed goes on where it was.

    \b
    Example:
        mmer-featurize demo
        mmer-featurize iemocap --root IEMOCAP_full_release --encoder wav2vec2-base
    """
    with clean_errors():
        cluster = _workers(workers, scheduler, asked)
        job = _shard_of(_job(**asked), shard, shards)
        if parity_check:
            check_parity(job, parity_check, as_json)
        if dry_run:
            print_estimate(job, as_json)
        else:
            run(job, cluster, None if shard else shards, as_json)


def _report(job: Any, workers: Any, shards: int | None, progress: Any) -> Any:
    from featurize.extraction.run import run_job, run_shards

    if workers is None:
        return run_shards(job, shards, progress) if shards else run_job(job, progress)
    from featurize.extraction.distributed import extract_on, run_shards_on
    from featurize.runtime.cluster import cluster_of

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


def _job(
    *, corpus: str, root: Path | None, cache: Path | None, encoders: tuple[str, ...], device: str, **asked: Any
) -> Any:
    # Threads of OpenMP spin while they wait, which starves a machine that others use too: with one of two cores busy,
    # early sleep is 1.6 times as fast (benchmarks/bench_process.py). To be set before torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Products as small as those of log-mel gain nothing from a second thread and lose much to one that has to wait.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from featurize.corpora.catalog import check_root, corpus_spec
    from featurize.encoders.catalog import parse_requests

    root = root or _root_of_environment(corpus)
    corpus_spec(corpus)  # before torch is imported: a wrong name or path is answered at once
    parse_requests(encoders)
    check_root(corpus, root, allow_outside=asked["allow_outside"])
    import transformers

    from featurize.encoders.options import EncodingOptions
    from featurize.extraction.job import Job
    from featurize.runtime.device import choose_device
    from featurize.runtime.memory import keep_freed_memory

    keep_freed_memory()
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    name = root.stem if corpus == "manifest" and root else corpus
    cache = cache or Path("cache") / f"{name}.h5"
    if set("*?[") & set(str(cache)):
        raise click.UsageError(f"--cache names one file to write, got the pattern {cache}")
    if corpus == "demo" and root is None:
        root = cache.parent / "demo"
    of_encoding = EncodingOptions.__dataclass_fields__.keys() & asked.keys()
    options = EncodingOptions(device=choose_device(device), **{name: asked.pop(name) for name in of_encoding})
    return Job(corpus=corpus, root=root, cache=cache, encoders=encoders, options=options, **asked)


def _workers(count: int | None, scheduler: str | None, asked: dict[str, Any]) -> Any:
    """Gives where batches are encoded, None for this process; there, this process itself only plans."""
    if count and scheduler:
        raise click.UsageError("--workers starts processes here, --scheduler joins a cluster; give one of the two")
    if not count and not scheduler:
        return None
    from featurize.runtime.cluster import Workers

    device, asked["device"] = asked["device"], "cpu"
    return Workers(count=count or 0, scheduler=scheduler or "", device=device)


def _shard_of(job: Any, shard: int | None, shards: int | None) -> Any:
    if shard is None:
        return job
    if shards is None or shard > shards:
        raise click.UsageError(f"--shard {shard} needs --shards of at least as many")
    from featurize.extraction.run import shard_jobs

    return shard_jobs(job, shards)[0][shard - 1]


def _root_of_environment(corpus: str) -> Path | None:
    found = os.environ.get(f"MMER_{corpus.upper()}_ROOT")
    return Path(found) if found else None


if __name__ == "__main__":
    sys.exit(featurize())
