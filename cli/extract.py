"""``mmer-featurize``: a corpus folder in, one cache of encoder features out."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from cli.options import clean_errors, fail, json_option, positive, print_json, print_table, size_text

SHOWN = 5  # failures and notes printed; all of them are in the cache


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
@click.option("--limit", type=int, callback=positive(int), help="Only the first N utterances.")
@click.option("--allow-outside", is_flag=True, help="A manifest may name recordings outside its folder.")
@click.option(
    "--replace", is_flag=True, help="Recompute what was computed otherwise or is damaged; drop what left the corpus."
)
@click.option("--dry-run", is_flag=True, help="Print rows, bytes, time and free disk; compute nothing.")
@click.option(
    "--parity-check", type=int, callback=positive(int), help="First compare N utterances, batched, with one by one."
)
@click.option("--list-encoders", is_flag=True, is_eager=True, expose_value=False, callback=list_encoders)
@click.option("--list-corpora", is_flag=True, is_eager=True, expose_value=False, callback=list_corpora)
@json_option
def featurize(dry_run: bool, parity_check: int | None, as_json: bool, **asked: Any) -> None:
    """Runs encoders over every utterance of CORPUS once and keeps what they give in one file.

    CORPUS is demo, iemocap, ravdess or manifest. What is already in the file is not computed again; a run that was
    killed goes on where it was.

    \b
    Example:
        mmer-featurize demo
        mmer-featurize iemocap --root IEMOCAP_full_release --encoder wav2vec2-base
    """
    with clean_errors():
        job = _job(**asked)
        if parity_check:
            _check_parity(job, parity_check, as_json)
        if dry_run:
            _print_estimate(job, as_json)
        else:
            _run(job, as_json)


def _job(
    *, corpus: str, root: Path | None, cache: Path | None, encoders: tuple[str, ...], device: str, **asked: Any
) -> Any:
    # Threads of OpenMP spin while they wait, which starves a machine that others use too: with one of two cores busy,
    # early sleep is 1.6 times as fast (benchmarks/bench_process.py). To be set before torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    import transformers

    from featurize.device import choose_device
    from featurize.encoders.options import EncodingOptions
    from featurize.job import Job
    from featurize.memory import keep_freed_memory

    keep_freed_memory()
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    root = root or _root_of_environment(corpus)
    name = root.stem if corpus == "manifest" and root else corpus
    cache = cache or Path("cache") / f"{name}.h5"
    if corpus == "demo" and root is None:
        root = cache.parent / "demo"
    of_encoding = EncodingOptions.__dataclass_fields__.keys() & asked.keys()
    options = EncodingOptions(device=choose_device(device), **{name: asked.pop(name) for name in of_encoding})
    return Job(corpus=corpus, root=root, cache=cache, encoders=encoders, options=options, **asked)


def _root_of_environment(corpus: str) -> Path | None:
    found = os.environ.get(f"MMER_{corpus.upper()}_ROOT")
    return Path(found) if found else None


def _check_parity(job: Any, utterances: int, as_json: bool) -> None:
    from featurize.job import plan_job, read_job
    from featurize.parity import TOLERANCE, check_parity

    for one in check_parity(plan_job(job, *read_job(job)), utterances):
        click.echo(
            f"parity of {one.encoder} ({one.precision}), {one.utterances} utterances batched against one by one: "
            f"relative L2 {one.relative:.1e}, largest difference {one.absolute:.1e}",
            err=as_json,  # stdout is for the one object then
        )
        if not one.exact:
            fail(f"{one.encoder} deviates by more than {TOLERANCE:g}; run it with --batch-seconds 0 and report this")


def _print_estimate(job: Any, as_json: bool) -> None:
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


def _run(job: Any, as_json: bool) -> None:
    from cli.progress import ProgressBar
    from featurize.job import run_job

    with ProgressBar() as progress:
        report = run_job(job, progress)
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


if __name__ == "__main__":
    sys.exit(featurize())
