"""Cells of CSV files that a spreadsheet shows as text: none of them starts a formula.

Source: OWASP, CSV Injection, https://owasp.org/www-community/attacks/CSV_Injection. Deviation: numbers stay as they
are, and the apostrophe is removed again where mmer reads its own files.
"""

import re
from collections.abc import Iterable

FORMULA = re.compile(r"'*[=+\-@\t\r]")  # apostrophes too, so that reading restores every text


def plain_cell(value: object) -> object:
    """Returns a value that a spreadsheet takes for no formula: an apostrophe is set before such a text.

    Example:
        >>> [plain_cell(value) for value in ("=1+1", "-0.5", -0.5, "anna", "'=x")]
        ["'=1+1", '-0.5', -0.5, 'anna', "''=x"]
    """
    if isinstance(value, str) and FORMULA.match(value) and not _is_number(value):
        return f"'{value}"
    return value


def plain_cells(values: Iterable[object]) -> list[object]:
    """Returns the cells of a row by `plain_cell`."""
    return [plain_cell(value) for value in values]


def restored_cell(cell: str) -> str:
    """Returns the text that `plain_cell` made a cell of.

    Example:
        >>> [restored_cell(cell) for cell in ("'=1+1", "-0.5", "anna", "''=x", "'tis")]
        ['=1+1', '-0.5', 'anna', "'=x", "'tis"]
    """
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip() and "_" not in text
