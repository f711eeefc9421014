"""The command ``mmer-report``: writes finished runs, or a grid, as one HTML file."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.command import Command
from cli.ending import clean_errors
from cli.options import json_option, tune_process, within
from cli.output import echo, print_json, print_table, size_text

if TYPE_CHECKING:
    from fusion.report.report import Report


@click.command(cls=Command)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="HTML file to write; an existing report is replaced.  [default: report.html in the first RUN]",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="Cache file, or a quoted pattern of files, with the utterances of the runs.  [default: that of each run]",
)
@click.option(
    "--sounds",
    type=int,
    callback=within(0, 100),
    default=0,
    show_default=True,
    metavar="N",
    help="Number of recordings to put into the file, 0 to 100, the hardest utterances first.",
)
@click.option(
    "--complexity",
    is_flag=True,
    help="Also measure parameters, memory and time for one utterance of 245 frames and 22 tokens.",
)
@json_option
def report(
    *, runs: tuple[Path, ...], out: Path | None, cache: Path | None, sounds: int, complexity: bool, as_json: bool
) -> None:
    """Writes a report of finished runs, or of one grid, as an HTML file that needs no network.

    One RUN: scores, protocol, confusion, hardest utterances, learning curves, calibration, a map of the fused vectors.
    Several runs: the same side by side, with paired tests against the first.

    \b
    Example:
        mmer-report runs/demo-rescmfa-wav2vec2-tiny+roberta-tiny-c68a5223
        mmer-report runs/mine-audio-mfcc39-e6ca2552 runs/mine-audio-wavlm-base-c68a5223 --out compared.html
    """
    with clean_errors():
        _check_given(runs, out)
        tune_process()
        from fusion.report.report import write_report

        written = write_report(runs, out=out, cache=cache, sounds=sounds, complexity=complexity)
        print_report(written, as_json=as_json)


def _check_given(runs: tuple[Path, ...], out: Path | None) -> None:
    from fusion.report.given import check_given

    check_given(runs, out=out)  # before torch: a wrong path ends at once


def print_report(written: "Report", *, as_json: bool = False) -> None:
    """Prints the path of a report, its notes, and the complexity of the heads where it was measured.

    Args:
        written: report to print.
        as_json: print one JSON object instead.
    """
    if as_json:
        from dataclasses import asdict

        print_json(
            {
                "report": str(written.path),
                "size_bytes": written.size_bytes,
                "notes": list(written.notes),
                "complexity": {name: asdict(found) for name, found in written.complexity.items()},
            }
        )
        return
    for name, found in written.complexity.items():
        print_table([name, ""], found.rows)
    for note in written.notes:
        echo(f"note: {note}")
    echo(f"{written.path}: {size_text(written.size_bytes)}")


if __name__ == "__main__":
    sys.exit(report())
