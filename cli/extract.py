"""``mmer-featurize``: a corpus folder in, one cache of encoder features out."""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from cli.listing import LISTING, list_corpora, list_encoders
from cli.maintain import print_streams
from cli.options import clean_errors, fail, json_option, positive, print_json, print_table, size_text, tune_process

if TYPE_CHECKING:
    import torch

    from featurize.extraction.job import ExtractionJob, JobOptions
    from featurize.extraction.run import ExtractionReport
    from featurize.runtime.cluster import Workers

SHOWN = 5  # failures and notes printed; all of them are in the cache


def one_file(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Checks that a cache to write is no pattern of several files."""
    if value is not None and set("*?[") & set(str(value)):
        raise click.UsageError(f"--cache names one file to write, got the pattern {value}")
    return value


@click.command()
@click.argument("corpus")
@click.option("--root", type=click.Path(path_type=Path), help="Folder of the corpus, or file of a manifest.")
@click.option(
    "--cache", type=click.Path(path_type=Path), callback=one_file, help="File to write.  [default: cache/CORPUS.h5]"
)
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
    corpus: str,
    root: Path | None,
    cache: Path | None,
    encoders: tuple[str, ...],
    device: str,
    workers: int | None,
    scheduler: str | None,
    shards: int | None,
    shard: int | None,
    dry_run: bool,
    parity_check: int | None,
    as_json: bool,
    **options: "Unpack[JobOptions]",
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
        _check_usage(workers, scheduler, shard, shards)
        root = root or _root_of_environment(corpus)
        _check_names(corpus, root, encoders, allow_outside=options["allow_outside"])
        _prepare_process()
        from featurize.extraction.job import job_of

        encoding, planning = _places(workers, scheduler, device)
        job = job_of(corpus, root=root, cache=cache, encoders=encoders, device=planning, **options)
        job = _shard_of(job, shard, shards)
        if parity_check:
            check_parity(job, parity_check, as_json)
        if dry_run:
            print_estimate(job, as_json)
        else:
            run(job, encoding, None if shard else shards, as_json)


def check_parity(job: "ExtractionJob", utterances: int, as_json: bool) -> None:
    """Prints how far batching moves a feature; ends the command where it does."""
    from featurize.extraction import parity
    from featurize.extraction.job import ready_job

    for one in parity.check_parity(ready_job(job), utterances):
        click.echo(
            f"parity of {one.encoder} ({one.precision}), {one.utterances} utterances batched against one by one: "
            f"relative L2 {one.relative:.1e}, largest difference {one.absolute:.1e}",
            err=as_json,  # stdout is for the one object then
        )
        if not one.exact:
            limit = f"{parity.TOLERANCE:g}"
            fail(f"{one.encoder} deviates by more than {limit}; run it with --batch-seconds 0 and report this")


def print_estimate(job: "ExtractionJob", as_json: bool) -> None:
    """Prints what a run would take."""
    from featurize.extraction.estimate import estimate_extraction
    from featurize.extraction.job import ready_job

    found = estimate_extraction(ready_job(job))
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


def run(job: "ExtractionJob", workers: "Workers | None", shards: int | None, as_json: bool) -> None:
    """Runs a job, here or on workers, as one or in shards, and prints what it left behind."""
    from cli.progress import ProgressBar
    from featurize.extraction.corpus import featurize_corpus

    with ProgressBar() as progress:
        report = featurize_corpus(job, workers=workers, shards=shards, progress=progress)
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


def _print_report(report: "ExtractionReport") -> None:
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


def _check_names(corpus: str, root: Path | None, encoders: Sequence[str], *, allow_outside: bool) -> None:
    """Checks names and paths before torch is imported: a wrong one is answered at once."""
    from featurize.corpora.catalog import check_root
    from featurize.encoders.catalog import parse_requests

    parse_requests(encoders)
    check_root(corpus, root, allow_outside=allow_outside)


def _prepare_process() -> None:
    # Products as small as those of log-mel gain nothing from a second thread and lose much to one that has to wait.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    tune_process()
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def _places(count: int | None, scheduler: str | None, device: str) -> "tuple[Workers | None, torch.device]":
    """Returns the workers that encode, None for this process, and the device of this process, which plans."""
    from featurize.runtime.device import choose_device

    if not count and not scheduler:
        return None, choose_device(device)
    from featurize.runtime.cluster import Workers

    return Workers(count=count or 0, scheduler=scheduler or "", device=device), choose_device("cpu")


def _check_usage(workers: int | None, scheduler: str | None, shard: int | None, shards: int | None) -> None:
    if workers and scheduler:
        raise click.UsageError("--workers starts processes here, --scheduler joins a cluster; give one of the two")
    if shard and (shards is None or shard > shards):
        raise click.UsageError(f"--shard {shard} needs --shards of at least as many")


def _shard_of(job: "ExtractionJob", shard: int | None, shards: int | None) -> "ExtractionJob":
    from featurize.extraction.run import shard_job

    return shard_job(job, shard, shards) if shard and shards else job


def _root_of_environment(corpus: str) -> Path | None:
    found = os.environ.get(f"MMER_{corpus.upper()}_ROOT")
    return Path(found) if found else None


if __name__ == "__main__":
    sys.exit(featurize())
