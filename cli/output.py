"""Output of commands: text, tables and JSON, with what steers a terminal escaped."""

import json
import re
import sys
from collections.abc import Sequence

import click

# All control characters but tab and line feed, marks and overrides of direction, separators of lines, lone surrogates.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def echo(text: str = "", *, err: bool = False) -> None:
    """Prints text that may hold names of anybody: signs that steer a terminal, or that it lacks, are escaped.

    Args:
        text: one line or several.
        err: print to stderr.
    """
    click.echo(encodable(printable(text), err=err), err=err)


def encodable(text: str, *, err: bool = False) -> str:
    """Returns a text with an escape for each sign that stdout, or stderr, cannot encode."""
    encoding = getattr(sys.stderr if err else sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def printable(text: str) -> str:
    r"""Returns a text with control characters, changes of direction and lone surrogates as escapes.

    Example:
        >>> printable("a\x1b[2J")
        'a\\x1b[2J'
    """
    return STEERING.sub(lambda sign: sign[0].encode("unicode_escape", "surrogatepass").decode(), text)


def print_json(value: object) -> None:
    """Prints one JSON object."""
    text = json.dumps(value, ensure_ascii=False)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    plain = STEERING.search(text) is None and text.encode(encoding, "ignore").decode(encoding) == text
    click.echo(text if plain else json.dumps(value))


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table: fitted to the width of a terminal, as plain text if stdout is not a terminal.

    In plain text the first column is left-aligned and all others are right-aligned.
    """
    texts = [[encodable(printable(_cell(value))) for value in row] for row in rows]
    header = list(map(encodable, header))
    if sys.stdout.isatty():
        from cli.terminal import print_fitted

        print_fitted(header, texts)
        return
    cells = [list(header), *texts]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        first, *others = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        echo("  ".join([first, *others]).rstrip())


def print_aligned(rows: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
    """Prints rows of text without a header, with the last cell wrapped on a terminal.

    Args:
        rows: cells of each row.
        widths: least width in plain text of all columns but the last.
    """
    if sys.stdout.isatty():
        from cli.terminal import print_aligned as print_wrapped

        print_wrapped([[encodable(printable(cell)) for cell in row] for row in rows])
        return
    for *first, last in rows:
        echo(" ".join([*(cell.ljust(width) for cell, width in zip(first, widths, strict=True)), last]))


def size_text(size_bytes: float) -> str:
    """Formats a number of bytes with its unit.

    Example:
        >>> size_text(1_234_567)
        '1.2 MB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def duration_text(seconds: float) -> str:
    """Formats a duration with its unit.

    Example:
        >>> duration_text(150)
        '2.5 min'
    """
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
