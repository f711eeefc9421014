"""Rows of a LaTeX table, and text that LaTeX takes as it is."""

from collections.abc import Sequence

from fusion.grid.models import told
from fusion.grid.selection import Ranked
from fusion.grid.spread import Spread
from fusion.results import latex_row

SIGNS = str.maketrans({"±": r"$\pm$", "Δ": r"$\Delta$"})  # that our own text holds
SPECIAL = SIGNS | str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': "''",
    }
)


def escaped(text: str) -> str:
    r"""Writes text so that LaTeX prints it.

    Example:
        >>> escaped("global_aware=false, 50%")
        'global\\_aware=false, 50\\%'
    """
    return text.translate(SPECIAL)


def latex_rows(name: str, ranked: Sequence[Ranked], nested: Spread) -> list[str]:
    """Gives rows of WA, UA and W-F1: the nested score, then dev and open tests of each combination that is complete.

    Args:
        name: of the head.
        ranked: the combinations.
        nested: the result of the grid.
    """
    rows = [_row(f"{name}, nested", nested)]
    for one in ranked:
        if one.complete and one.dev:
            rows.append(_row(f"{told(one.fields)}, dev", one.dev))
        if one.complete and one.test:
            rows.append(_row(f"{told(one.fields)}, test", one.test))
    return rows


def _row(name: str, scores: Spread) -> str:
    return latex_row({"fusion": escaped(name), "mean": scores.mean, "std": scores.std})
