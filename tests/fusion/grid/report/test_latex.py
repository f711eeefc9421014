from fusion.grid.report.tables import nested_latex
from fusion.grid.selection import nested_scores
from fusion.run.latex import escape_latex
from tests.support.scored import grid, opened

WON = {"1": 1, "2": 0}


def test_every_sign_that_latex_reads_is_escaped() -> None:
    told = escape_latex(r"a_b & 5% of {x}~^$#\ <|> ±")
    assert told == (
        r"a\_b \& 5\% of \{x\}\textasciitilde{}\textasciicircum{}\$\#\textbackslash{} "
        r"\textless{}\textbar{}\textgreater{} $\pm$"
    )
    assert escape_latex("lr=0.001 both") == "lr=0.001 both"


def test_the_nested_scores_are_a_row_as_that_of_a_run() -> None:
    results = opened(grid(), WON)
    described = {"fusion": "gcf2_net", "streams": {"audio": "voice"}, "protocol": "session"}
    row = nested_latex({**described, "interval": {"wa": [0.5, 0.6]}}, nested_scores(results, WON))
    cells = r"55.00 $\pm$ 7.07 [50.00, 60.00] & 27.50 $\pm$ 3.54 & 55.00 $\pm$ 7.07 & 13.75 $\pm$ 1.77 \\"
    assert row == rf"gcf2\_net, nested & voice & session & {cells}"
