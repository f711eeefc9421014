"""Tables on a terminal: columns that share its width, and text that wraps inside its own column.

`cli.options` imports this module only when stdout is a terminal, and prints the plain form everywhere else.
"""

import re
import sys
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

NUMBER = re.compile(r"[-+]?\d.*|-?")  # with or without a unit or a spread; "-" and nothing stand for a missing one
BREAKS = "-/=_:,"  # a word that is longer than its column is broken after one of these
PART = re.compile(rf"[^\s{re.escape(BREAKS)}]*[{re.escape(BREAKS)}]?")
GAP = 2  # spaces between two columns


def print_fitted(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table with a header; columns of numbers are set to the right.

    Args:
        header: names of the columns.
        rows: cells of each row, as many as the header has.
    """
    numbers = [index > 0 and all(NUMBER.fullmatch(row[index]) for row in rows) for index in range(len(header))]
    _print([header, *rows], ["right" if number else "left" for number in numbers], header=True)


def print_aligned(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows without a header."""
    _print(rows, ["left"] * len(rows[0]) if rows else [], header=False)


def fit_widths(widths: Sequence[int], room: int, least: Sequence[int] = ()) -> list[int]:
    """Narrows the widest columns until all of them fit into the room together.

    The first column holds names, which readers copy: it keeps up to a quarter of the room. A column becomes narrower
    than its longest word only where no other column can.

    Args:
        widths: width of each column without a limit.
        room: width of all columns together.
        least: length of the longest word of each column, which is not broken; empty for no words.

    Example:
        >>> fit_widths([30, 40, 6, 60], 80)
        [24, 25, 6, 25]
        >>> fit_widths([16, 40, 6, 60, 60], 64)
        [16, 14, 6, 14, 14]
        >>> fit_widths([30, 40, 6, 60], 80, [1, 40, 6, 10])
        [20, 40, 6, 14]
    """
    fitted, whole = list(widths), least or [0] * len(widths)
    while sum(fitted) > max(room, len(fitted)):
        excess = [width if index or width > room // 4 else 1 for index, width in enumerate(fitted)]
        if any(width > word for width, word in zip(fitted, whole, strict=True)):
            excess = [width if fit > word else 0 for width, fit, word in zip(excess, fitted, whole, strict=True)]
        fitted[max(range(len(fitted)), key=excess.__getitem__)] -= 1
    return fitted


def _print(rows: Sequence[Sequence[str]], sides: Sequence[str], *, header: bool) -> None:
    # Neither markup nor emoji: brackets and colons in ids and paths print as they are.
    console = Console(file=sys.stdout, markup=False, emoji=False, highlight=False)
    natural = [max(Text(cell).cell_len for cell in column) for column in zip(*rows, strict=True)]
    least = [max(map(_longest, column)) for column in zip(*rows, strict=True)]
    widths = fit_widths(natural, console.width - GAP * (len(natural) - 1), least)
    table = Table.grid()
    for index, (side, width) in enumerate(zip(sides, widths, strict=True)):
        gap = GAP if index < len(widths) - 1 else 0
        table.add_column(justify="right" if side == "right" else "left", width=width + gap, overflow="fold")
    for index, row in enumerate(rows):
        *cells, last = (Text(_broken(cell, width)) for cell, width in zip(row, widths, strict=True))
        # The gap is padding of the cell: rich before 15 counts that of a table's last column too.
        padded = (Padding(cell, (0, GAP, 0, 0)) for cell in cells)
        table.add_row(*padded, last, style="bold" if header and index == 0 else "")
    console.print(table)


def _longest(text: str) -> int:
    """Counts the characters of the longest part of a text that is not broken."""
    return max((len(part) for part in PART.findall(text)), default=0)


def _broken(text: str, width: int) -> str:
    """Breaks words that are longer than a column where a reader expects it."""
    return re.sub(r"\S+", lambda word: "\n".join(_pieces(word[0], width)), text)


def _pieces(word: str, width: int) -> Iterator[str]:
    while len(word) > width:
        cut = max(word[:width].rfind(sign) for sign in BREAKS) + 1 or width
        yield word[:cut]
        word = word[cut:]
    yield word
