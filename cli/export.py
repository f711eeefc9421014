"""The command ``mmer-export``: writes the bundle of a run, and puts it on a hub."""

import sys
from pathlib import Path
from typing import Any

import click

from cli.command import Command
from cli.ending import clean_errors
from cli.options import check_run, tune_process
from cli.output import echo, size_text


@click.command(cls=Command)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option(
    "--onnx",
    is_flag=False,
    flag_value="head",
    default="",
    metavar="[full]",
    help="Also write each head as an ONNX file, or with `full` the encoder and the head of a run that reads speech or "
    "text alone.  [default: none]",
)
@click.option(
    "--push",
    default="",
    metavar="OWNER/NAME",
    help="Also put the bundle on the Hugging Face hub, into this repository.  [default: none]",
)
@click.option("--private", is_flag=True, help="Create the repository of --push as a private one.")
@click.option("--license", default="", help="Licence of the models for the card, such as mit.  [default: not stated]")
@click.option(
    "--language", default="", help="Code of the language of the speech, such as en.  [default: that of a known corpus]"
)
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    metavar="NAME=PATH",
    help="Folder with the weights of an encoder, which become part of the bundle; repeatable.  [default: none]",
)
@click.option("--head", metavar="MODULE:CLASS", help="Own head of the run, which may be imported.  [default: none]")
def export(*, folder: Path | None, encoders: tuple[str, ...], **options: Any) -> None:
    """Writes a bundle of RUN into FOLDER: all that mmer-predict needs on another machine, with a model card.

    \b
    Example:
        mmer-export runs/demo-rescmfa-wav2vec2-tiny+roberta-tiny-c68a5223 demo-emotions
        mmer-export runs/demo-rescmfa-wav2vec2-tiny+roberta-tiny-c68a5223 --push somebody/demo-emotions
    """
    with clean_errors():
        check_run(options["run"])
        tune_process()
        from fusion.end_to_end.sharing.export import ExportRequest, export_run
        from fusion.experiment.fields import parse_fields

        given = parse_fields(encoders, form="NAME=PATH", such_as="--encoder my-encoder=folder")
        named = {name: Path(path) for name, path in given.items()}
        report = export_run(ExportRequest(out=folder, encoders=named, **options))
        for note in report.notes:
            echo(f"note: {note}", err=True)
        echo(f"{report.where}: {size_text(report.size_bytes)}")


if __name__ == "__main__":
    sys.exit(export())
