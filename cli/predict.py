"""The command ``mmer-predict``: predicts recordings with the models of a run."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.command import Command
from cli.ending import clean_errors, fail
from cli.options import check_device, check_run, positive, tune_process, within
from cli.output import encodable, print_table

if TYPE_CHECKING:
    from fusion.end_to_end.prediction.predictor import Prediction
    from fusion.end_to_end.prediction.run import PredictionJob, PredictionRequest


@click.command(cls=Command)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("files", nargs=-1)
@click.option("--text", help="Transcript of the recording, if there is only one.  [default: none]")
@click.option(
    "--texts",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Transcripts by file name: CSV with the columns file and text, or JSON lines.  [default: none]",
)
@click.option(
    "--encoding",
    metavar="NAME",
    help="Encoding of manifests and --texts, such as cp1252.  [default: UTF-8, or UTF-16 with a byte order mark]",
)
@click.option(
    "--asr",
    default="",
    metavar="MODEL",
    help="ASR model (hub id or folder) that transcribes recordings without a text.  [default: none]",
)
@click.option(
    "--fold", default="", help="Use only the models of this fold.  [default: the final model, else all folds]"
)
@click.option(
    "--window",
    "window_s",
    type=float,
    callback=positive(float),
    metavar="SECONDS",
    help="Length of the windows of a time line, in seconds above 0.  [default: whole recordings]",
)
@click.option(
    "--hop",
    "hop_s",
    type=float,
    callback=positive(float),
    metavar="SECONDS",
    help="Distance of two windows in seconds, above 0 and at most --window.  [default: the window]",
)
@click.option("--vad", is_flag=True, help="Cut at pauses; needs the package silero-vad.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV instead of a table, row by row.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line instead of a table.")
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the rows to this .csv or .jsonl file, and skip the recordings that it has.  [default: none]",
)
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    metavar="NAME=PATH",
    help="Folder with the weights of an encoder that did not come from a hub; repeatable.  [default: none]",
)
@click.option("--head", metavar="MODULE:CLASS", help="Own head of the run, which may be imported.  [default: none]")
@click.option("--allow-outside", is_flag=True, help="Accept recordings of a manifest outside its folder.")
@click.option("--device", default="auto", help="Device: auto, cpu, cuda, cuda:N or mps.  [default: auto]")
@click.option(
    "--batch-seconds",
    type=float,
    callback=within(0),
    help="Seconds of audio in a batch, padding included, 0 or more; 0 encodes one by one.  "
    "[default: 0 on a CPU, 200 on CUDA, 60 on MPS]",
)
def predict(*, files: tuple[str, ...], encoders: tuple[str, ...], as_csv: bool, as_json: bool, **options: Any) -> None:
    """Predicts recordings with the models of a run folder.

    FILES are recordings (sounds or videos), folders, quoted patterns, manifests, or - for a list of paths on standard
    input. A recording that cannot be predicted is a row with its error, and the exit code is 1.

    \b
    Example:
        mmer-predict runs/demo-rescmfa-wav2vec2-tiny+roberta-tiny-c68a5223 call.wav --text "where have you been"
        mmer-predict runs/demo-audio-wav2vec2-tiny-7f3818a6 calls/ --window 6 --hop 3 --json
    """
    with clean_errors():
        check_run(options["run"])
        check_device(options["device"])
        tune_process()
        request = _request(files, encoders, as_csv=as_csv, as_json=as_json, **options)
        failed = _print_predictions(request, _form(as_csv=as_csv, as_json=as_json, resume=request.resume))
    if failed:
        fail(f"recordings that could not be predicted: {failed}; see their rows")


def _request(
    files: Sequence[str], encoders: Sequence[str], *, as_csv: bool, as_json: bool, **options: Any
) -> "PredictionRequest":
    from cache.errors import MmerError
    from fusion.experiment.fields import parse_fields

    if as_csv + as_json + (options["resume"] is not None) > 1:
        raise MmerError("--csv, --json and --resume exclude each other; --resume takes the format of its file's ending")
    folders = parse_fields(encoders, form="NAME=PATH", such_as="--encoder my-encoder=folder")
    named = {name: Path(folder) for name, folder in folders.items()}
    from fusion.end_to_end.prediction.run import PredictionRequest  # and torch: a wrong option ends before

    return PredictionRequest(files=files, lines=sys.stdin, encoders=named, **options)


def _form(*, as_csv: bool, as_json: bool, resume: Path | None) -> str:
    """Returns the form of the output on stdout."""
    return "csv" if as_csv else "json" if as_json else "none" if resume else "table"


def _print_predictions(request: "PredictionRequest", form: str) -> int:
    """Predicts and prints; returns the number of recordings with an error."""
    from cli.progress import PredictionBar
    from fusion.end_to_end.prediction.output import table_of
    from fusion.end_to_end.prediction.run import prepare_prediction

    job = prepare_prediction(request)
    table: list[Prediction] = []
    failed = 0 if job.rows is None else job.rows.failed
    with PredictionBar() as bar:
        write = _writer(form, job, table)
        for predictions in job.run(bar):
            failed += bool(predictions[-1].error)
            write(predictions)
    if form == "table":
        print_table(*table_of(table, job.classes))
    return failed


def _writer(form: str, job: "PredictionJob", table: "list[Prediction]") -> "Callable[[Sequence[Prediction]], None]":
    """Returns the function that prints the rows of a recording, or keeps them for the table."""
    from fusion.end_to_end.prediction.output import csv_header, csv_line, json_line

    if form == "csv":
        click.echo(encodable(csv_header(job.classes)), nl=False)
        return lambda rows: click.echo(encodable("".join(csv_line(row, job.classes) for row in rows)), nl=False)
    if form == "json":
        return lambda rows: click.echo("\n".join(map(json_line, rows)))
    return table.extend


if __name__ == "__main__":
    sys.exit(predict())
