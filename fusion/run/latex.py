r"""Rows of LaTeX tables: head, streams, protocol and scores of a run, with special characters escaped."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fusion.evaluation.catalog import task_of
from fusion.evaluation.task import Score, Task
from fusion.run.names import main_streams

SIGNS = str.maketrans({"±": r"$\pm$", "Δ": r"$\Delta$"})  # signs in texts of mmer
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # a line break would end a row, an empty line a paragraph
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
COLUMNS = ("head", "streams", "protocol")


def escape_latex(text: str) -> str:
    r"""Returns text with special characters escaped for LaTeX, and with spaces in place of control characters.

    Example:
        >>> escape_latex("global_aware=false, 50%")
        'global\\_aware=false, 50\\%'
    """
    return CONTROL.sub(" ", text).translate(SPECIAL)


def latex_header(task: Task) -> str:
    r"""Formats the header of the rows of `latex_row`.

    Example:
        >>> from fusion.evaluation.classes import CLASSIFICATION
        >>> latex_header(CLASSIFICATION)
        'head & streams & protocol & WA & UA & W-F1 & M-F1 \\\\'
    """
    return " & ".join([*COLUMNS, *(escape_latex(score.title) for score in task.scores)]) + r" \\"


def latex_row(results: Mapping[str, Any]) -> str:
    r"""Formats one row of a LaTeX table.

    The row has the head, its streams, its protocol, and each score with its standard deviation over folds (of a single
    fold, over seeds) and the 95% interval of the pooled score.

    Args:
        results: results of a run, as in ``results.json``; what they lack is left out.

    Example:
        >>> scores, interval = {"wa": 0.5, "ua": 0.25, "wf1": 0.4, "mf1": 0.3}, {"wa": [0.4, 0.6]}
        >>> streams = {"audio": "wav2vec2-tiny"}
        >>> results = {"fusion": "audio", "streams": streams, "protocol": "session", "interval": interval}
        >>> latex_row({**results, "mean": scores, "std": {"wa": 0.01}})
        'audio & wav2vec2-tiny & session & 50.00 $\\pm$ 1.00 [40.00, 60.00] & 25.00 & 40.00 & 30.00 \\\\'
    """
    task = task_of(results)
    streams = ", ".join(main_streams(results.get("streams", {})))
    first = [escape_latex(str(text)) for text in (results["fusion"], streams, results.get("protocol", ""))]
    return " & ".join([*first, *(_cell(results, score) for score in task.scores)]) + r" \\"


def latex_rows(rows: Sequence[Mapping[str, Any]], *, header: bool = False) -> str:
    """Formats the rows of several runs, with a header if it is requested."""
    head = [latex_header(task_of(rows[0]))] if header and rows else []
    return "\n".join([*head, *map(latex_row, rows)])


def _cell(results: Mapping[str, Any], score: Score) -> str:
    text = score.text(results["mean"].get(score.name))
    spread = results.get("std", {}).get(score.name)
    spread = results.get("std_seeds", {}).get(score.name) if spread is None else spread
    ends = results.get("interval", {}).get(score.name)
    deviation = "" if spread is None else rf" $\pm$ {score.text(spread)}"
    return text + deviation + ("" if ends is None else f" [{score.text(ends[0])}, {score.text(ends[1])}]")
