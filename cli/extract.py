"""The command ``mmer-featurize``: computes the encoder features of a corpus and stores them in one cache."""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Unpack

import click

from cli.command import Command
from cli.ending import clean_errors, fail
from cli.listing import LISTING, list_corpora, list_encoders
from cli.maintain import print_streams
from cli.options import check_device, dashboard_option, json_option, positive, tune_process, within
from cli.output import duration_text, echo, print_json, print_table, size_text

if TYPE_CHECKING:
    import torch

    from featurize.extraction.job import ExtractionJob, JobOptions
    from featurize.extraction.report import ExtractionReport
    from featurize.runtime.cluster import Workers

SHOWN = 5  # kinds of failures and notes printed; all of them are in the cache


def one_file(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Checks that the cache to write is one file, not a pattern."""
    from cache.patterns import is_pattern

    if value is not None and is_pattern(value):
        raise click.UsageError(f"--cache names one file to write, got the pattern {value}")
    return value


@click.command(cls=Command)
@click.argument("corpus")
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder of the corpus, or the manifest file; for hf: and audformat:, the folder to write the manifest to.  "
    "[default: $MMER_IEMOCAP_ROOT for iemocap, ...]",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    callback=one_file,
    help="Cache file to write.  [default: cache/CORPUS.h5]",
)
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    metavar="[NAME=]SOURCE[@LAYERS]",
    help="Encoder: catalog name (see --list-encoders), hub id or folder, and hidden states after @; repeatable; "
    "speech encoders only means no text.  [default: those of the corpus, mostly wav2vec2-base and roberta-base]",
)
@click.option(
    "--view",
    "views",
    multiple=True,
    metavar="lsa|cbca[:K]",
    help="Augmented views for training: lsa for speech with less noise (stream NAME~lsa), cbca for K texts with one "
    "word replaced (NAME~cbca1 to K, 1 to 20, 5 without a number); repeatable.  [default: none]",
)
@click.option("--audio-only", is_flag=True, help="Compute neither text streams nor CTC targets.")
@click.option(
    "--mel/--no-mel",
    default=True,
    show_default=True,
    help="Also compute log-mel (stream logmel80), if the corpus has recordings.",
)
@click.option(
    "--codes/--no-codes", default=None, help="Also store quantizer codes.  [default: if the checkpoint has a quantizer]"
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32", "int8"]),
    default="float16",
    show_default=True,
    help="Type that features are stored in.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Type that encoders compute in.",
)
@click.option(
    "--device", default="auto", show_default=True, help="Device that encoders run on: auto, cpu, cuda, cuda:N or mps."
)
@click.option(
    "--batch-seconds",
    type=float,
    callback=within(0),
    help="Seconds of audio in a batch, padding included, 0 or more; 0 encodes one by one.  "
    "[default: 0 on a CPU, 200 on CUDA, 60 on MPS]",
)
@click.option(
    "--max-seconds",
    type=float,
    default=60.0,
    show_default=True,
    callback=positive(float),
    help="Longest utterance in seconds, above 0; longer ones are recorded as failed.",
)
@click.option("--chunk", is_flag=True, help="Encode longer utterances in pieces instead of recording a failure.")
@click.option(
    "--start-layers",
    type=int,
    callback=within(1, 12),
    default=2,
    show_default=True,
    metavar="K",
    help="Number of encoder layers, 1 to 12, stored for JFM to start from: the first of a ViT, those after NAME@LAYER "
    "of RoBERTa or BERT.",
)
@click.option(
    "--history",
    type=int,
    callback=within(0),
    default=0,
    show_default=True,
    help="Number of preceding turns of the dialogue, 0 or more, that the text encoder also reads; stream names end in "
    "+historyN.",
)
@click.option(
    "--ctc-vocab",
    type=click.Path(path_type=Path),
    help="Characters of the CTC targets: a file with one on each line, or the vocab.json of a CTC checkpoint.  "
    "[default: the 32 symbols of wav2vec 2.0]",
)
@click.option(
    "--max-tokens",
    type=int,
    callback=positive(int),
    help="Longest text in tokens, above 0.  [default: the limit of the encoder]",
)
@click.option(
    "--asr",
    default="",
    metavar="[NAME=]MODEL",
    help="ASR model (hub id or folder) that transcribes utterances without a text; text encoders read its transcripts "
    "and write streams NAME+asr.  [default: none]",
)
@click.option("--asr-all", is_flag=True, help="Transcribe every utterance by --asr, and read no text of the corpus.")
@click.option("--truncate", is_flag=True, help="Cut transcripts that are too long instead of recording a failure.")
@click.option(
    "--event-tags",
    type=click.Choice(["strip", "keep"]),
    default="strip",
    show_default=True,
    help="Event tags such as [LAUGHTER] in transcripts: strip or keep.",
)
@click.option(
    "--workers",
    type=int,
    callback=positive(int),
    help="Number of processes of this machine to encode in, above 0.  [default: this process]",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Address of a dask scheduler whose workers encode, such as tcp://10.0.0.1:8786.  [default: none]",
)
@dashboard_option
@click.option(
    "--shards",
    type=int,
    callback=positive(int),
    help="Number of cache files, above 0, that share the corpus.  [default: one file]",
)
@click.option(
    "--shard",
    type=int,
    callback=positive(int),
    help="Write only this one of --shards, counted from 1, as in a job array.  [default: all]",
)
@click.option(
    "--limit",
    type=int,
    callback=positive(int),
    help="Number of utterances to take, above 0: the first ones of the corpus.  [default: all]",
)
@click.option("--allow-outside", is_flag=True, help="Allow a manifest to name recordings outside its folder.")
@click.option(
    "--encoding",
    metavar="NAME",
    help="Encoding of a manifest or of IEMOCAP's transcripts, such as cp1252.  [default: UTF-8, or UTF-16 with a byte "
    "order mark]",
)
@click.option(
    "--split",
    "splits",
    multiple=True,
    metavar="NAME",
    help="Split to read of a data set hf:OWNER/NAME or audformat:FOLDER; repeatable.  [default: all]",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME=COLUMN",
    help="Column to read under another name, such as label=emotion, of a manifest or of the corpus' own columns; "
    "repeatable.  [default: none]",
)
@click.option(
    "--keep-column",
    "keep_columns",
    multiple=True,
    metavar="COLUMN",
    help="Further column of a manifest to keep, for --only of mmer-train; repeatable.  [default: none]",
)
@click.option(
    "--replace",
    is_flag=True,
    help="Recompute rows that are stale or damaged, and drop utterances that left the corpus.",
)
@click.option("--dry-run", is_flag=True, help="Print rows, disk space and time; compute nothing.")
@click.option(
    "--parity-check",
    type=int,
    callback=positive(int),
    metavar="N",
    help="First compare N utterances, above 0, encoded in batches with the same encoded one by one; stop if they "
    "differ.  [default: none]",
)
@click.option("--list-encoders", is_flag=True, help="Print the encoders and exit.", callback=list_encoders, **LISTING)
@click.option("--list-corpora", is_flag=True, help="Print the corpora and exit.", callback=list_corpora, **LISTING)
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
    dashboard: bool,
    shards: int | None,
    shard: int | None,
    dry_run: bool,
    parity_check: int | None,
    as_json: bool,
    **options: "Unpack[JobOptions]",
) -> None:
    """Runs encoders over every utterance of CORPUS once and stores their features in one file.

    CORPUS is a name of --list-corpora, such as demo, iemocap or manifest, or a data set of another library:
    hf:OWNER/NAME, hf:FOLDER or audformat:FOLDER. Features that are already in the file are not
    computed again; a run that was killed is resumed by the same command.

    \b
    Example:
        mmer-featurize demo
        mmer-featurize iemocap --root IEMOCAP_full_release --encoder wav2vec2-base
    """
    with clean_errors():
        _check_usage(workers, scheduler, shard, shards, dashboard=dashboard)
        _set_environment()
        root = _checked_root(corpus, root, encoders, options)
        request: Any = {"root": root, "cache": cache, "encoders": encoders, **options}
        if not dry_run and not parity_check and print_finished(corpus, shard, shards, as_json, request):
            return
        encoding, planning = _devices(workers, scheduler, device, dashboard=dashboard)
        job = _shard_of(_job_of(corpus, device=planning, **request), shard, shards)
        if parity_check:
            check_parity(job, parity_check, as_json)
        if dry_run:
            print_estimate(job, as_json)
        else:
            run(job, encoding, None if shard else shards, as_json)


def print_finished(corpus: str, shard: int | None, shards: int | None, as_json: bool, options: Any) -> bool:
    """Prints the report of a run that has nothing to do; returns False if it is not certain, which needs torch."""
    from featurize.extraction.finished import RunRequest, finished_report
    from featurize.extraction.shard import Shard

    request = RunRequest.of_options(corpus, **options)
    if request is not None and shard and shards:
        request, shards = request.of_shard(Shard(shard, shards)), None
    report = finished_report(request, shards)
    if report is None:
        return False
    for note in report.notes:
        echo(f"note: {note}", err=True)
    _print_outcome(report, as_json)
    return True


def check_parity(job: "ExtractionJob", utterances: int, as_json: bool) -> None:
    """Prints the difference between batched and one-by-one features; ends the command if there is one."""
    from featurize.extraction import parity
    from featurize.extraction.planned_job import ready_job

    for result in parity.check_parity(ready_job(job), utterances):
        echo(
            f"parity of {result.encoder} ({result.precision}), {result.utterances} utterances batched against one by "
            f"one: relative L2 {result.relative:.1e}, largest difference {result.absolute:.1e}",
            err=as_json,  # stdout is for the one object then
        )
        if not result.exact:
            limit = f"{parity.TOLERANCE:g}"
            fail(f"{result.encoder} deviates by more than {limit}; run it with --batch-seconds 0 and report this")


def print_estimate(job: "ExtractionJob", as_json: bool) -> None:
    """Prints disk space and time of a run."""
    from featurize.extraction.estimate import estimate_extraction
    from featurize.extraction.planned_job import ready_job

    found = estimate_extraction(ready_job(job))
    if as_json:
        print_json(asdict(found))
        return
    print_table(
        ("stream", "rows", "size", "cannot"),
        [(stream.name, stream.rows, size_text(stream.size_bytes), stream.failed) for stream in found.streams],
    )
    echo(f"{found.utterances} utterances, {found.audio_s / 3600:.2f} h of speech")
    echo(f"file: {size_text(found.size_bytes)}, free disk: {size_text(found.free_bytes)}")
    echo(f"time: about {duration_text(found.seconds)} on {job.options.device}, by one batch of each encoder")
    for note in found.notes:
        echo(f"note: {note}")


def run(job: "ExtractionJob", workers: "Workers | None", shards: int | None, as_json: bool) -> None:
    """Runs a job, in this process or on workers, whole or in shards, and prints the report."""
    from cli.progress import ProgressBar
    from featurize.extraction.corpus import featurize_corpus

    with ProgressBar() as progress:
        report = featurize_corpus(job, workers=workers, shards=shards, progress=progress)
    _print_outcome(report, as_json)


def _print_outcome(report: "ExtractionReport", as_json: bool) -> None:
    """Prints a report; ends the command if a stream has no row at all."""
    if as_json:
        print_json(
            {
                "cache": str(report.cache),
                **report.summary,
                "noted": report.noted,
                "notes": report.notes,
                **({"word_errors": _errors_json(report)} if report.word_errors else {}),
                "seconds": round(report.seconds, 3),
            }
        )
    else:
        _print_report(report)
    if report.empty:
        fail(f"nothing at all was computed for {', '.join(report.empty)}; the reasons are above and in {report.cache}")


def _print_report(report: "ExtractionReport") -> None:
    from cache.audit import grouped

    print_streams(report.summary)
    for what, key, items in (("failed", "reason", report.summary["failures"]), ("noted", "note", report.noted)):
        if items:
            echo(f"{len({item['id'] for item in items})} utterances {what} in one stream or more:")
        groups = grouped(items, key)
        for group in groups[:SHOWN]:
            echo(f"  {group}")
        if any(group.utterances > 1 for group in groups) or len(groups) > SHOWN:
            echo(f"  `mmer-cache info {quote(str(report.cache))} --json` lists all, in every stream")
    if report.word_errors:
        errors = report.word_errors
        counts = f"{errors.errors:,} of {errors.words:,} words, {errors.utterances:,} utterances"
        echo(f"word error rate of {errors.stream} against the transcripts of the corpus: {errors.rate:.2%} ({counts})")
    pending = [name for name, stream in report.summary["streams"].items() if stream["pending"]]
    rest = f"; pending, for their encoder to run again: {', '.join(pending)}" if pending else ""
    echo(f"{report.cache} is done after {duration_text(report.seconds)}{rest}")


def _errors_json(report: "ExtractionReport") -> dict[str, Any]:
    assert report.word_errors
    return {**asdict(report.word_errors), "rate": report.word_errors.rate}


def _set_environment() -> None:
    """Sets what libraries read while they load; called before numpy and torch are imported."""
    # The matrix products of log-mel are so small that a second thread gains nothing and waiting for it costs much. It
    # also changes the last bits of their values.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    tune_process()


def _checked_root(corpus: str, root: Path | None, encoders: Sequence[str], options: "JobOptions") -> Path | None:
    """Returns the root of the corpus; checks names and paths before torch is imported, so that errors come at once."""
    from featurize.corpora.catalog import check_root
    from featurize.corpora.columns import parse_columns
    from featurize.corpora.imported import is_imported
    from featurize.encoders.catalog import parse_requests
    from featurize.views.catalog import parse_views

    parse_requests(encoders)
    parse_views(options["views"])
    parse_columns(options["columns"], options["keep_columns"])
    if is_imported(corpus):
        return root
    root = root or _root_of_environment(corpus)
    check_root(corpus, root, allow_outside=options["allow_outside"], encoding=options["encoding"])
    return root


def _job_of(corpus: str, **options: Any) -> "ExtractionJob":
    """Builds the job of the command, with the messages of transformers switched off."""
    import transformers

    from featurize.extraction.job import job_of

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return job_of(corpus, **options)


def _devices(
    count: int | None, scheduler: str | None, device: str, *, dashboard: bool
) -> "tuple[Workers | None, torch.device]":
    """Returns the workers that encode, None for this process, and the device of this process, which plans."""
    if not count and not scheduler:
        check_device(device)
    from featurize.runtime.device import choose_device

    if not count and not scheduler:
        return None, choose_device(device)
    from featurize.runtime.cluster import Workers

    workers = Workers(count=count or 0, scheduler=scheduler or "", device=device, dashboard=dashboard)
    return workers, choose_device("cpu")


def _check_usage(
    workers: int | None, scheduler: str | None, shard: int | None, shards: int | None, *, dashboard: bool
) -> None:
    if dashboard and not workers:
        raise click.UsageError("--dashboard shows the processes of --workers; leave it out")
    if workers and scheduler:
        raise click.UsageError("--workers starts processes here, --scheduler joins a cluster; give one of the two")
    if shard and (shards is None or shard > shards):
        raise click.UsageError(f"--shard {shard} needs --shards of at least as many")


def _shard_of(job: "ExtractionJob", shard: int | None, shards: int | None) -> "ExtractionJob":
    from featurize.extraction.run import shard_job

    return shard_job(job, shard, shards) if shard and shards else job


def _root_of_environment(corpus: str) -> Path | None:
    from featurize.corpora.catalog import root_variable

    found = os.environ.get(root_variable(corpus))
    return Path(found) if found else None


if __name__ == "__main__":
    sys.exit(featurize())
