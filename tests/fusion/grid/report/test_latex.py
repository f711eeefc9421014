import re

from fusion.grid.report.tables import latex_rows
from fusion.grid.selection import nested_scores
from fusion.run.latex import escape_latex
from tests.support.scored import grid, opened, ranked

WON = {"1": 1, "2": 0}


def test_every_sign_that_latex_reads_is_escaped() -> None:
    told = escape_latex(r"a_b & 5% of {x}~^$#\ <|> ±")
    assert told == (
        r"a\_b \& 5\% of \{x\}\textasciitilde{}\textasciicircum{}\$\#\textbackslash{} "
        r"\textless{}\textbar{}\textgreater{} $\pm$"
    )
    assert escape_latex("lr=0.001 both") == "lr=0.001 both"


def test_the_nested_score_comes_first_and_incomplete_combinations_do_not_come() -> None:
    results = opened(grid(), WON)
    rows = latex_rows("gcf2_net", ranked(results), nested_scores(results, WON))
    cells = r"55.00 $\pm$ 7.07 & 27.50 $\pm$ 3.54 & 55.00 $\pm$ 7.07 & 13.75 $\pm$ 1.77 \\"
    assert rows[0] == rf"gcf2\_net, nested & {cells}"
    assert [row.split(" &")[0] for row in rows[1:]] == [
        r"lr=0.001 global\_aware=true, dev",
        "lr=0.001, dev",
        r"lr=0.0001 global\_aware=true, dev",
    ]


def test_open_tests_have_rows_of_their_own() -> None:
    results = opened(grid())
    rows = latex_rows("audio", ranked(results), nested_scores(results, WON))
    assert [row.split(" &")[0].rpartition(", ")[2] for row in rows] == ["nested", *["dev", "test"] * 3]
    assert all(len(re.findall(r"(?<!\\)&", row)) == 4 for row in rows)
