import re
from dataclasses import replace
from pathlib import Path

import pytest

from cache.errors import MmerError
from fusion.grid.report.ablation import CLOSED, Ablation, ablation_table, as_latex, as_markdown, write_ablation
from fusion.grid.report.tables import ALL_TESTS
from fusion.run.folder import Folder
from tests.support.scored import grid, opened, ranked

WON = {"1": 1, "2": 0}
TITLE = "rescmfa on iemocap_4, session, 4 classes, seed 0, 2 folds"


def closed_table() -> Ablation:
    return ablation_table(ranked(opened(grid(), WON)), TITLE, base="as published")


def open_table() -> Ablation:
    return ablation_table(ranked(opened(grid())), TITLE)


def cells(markdown: str) -> list[list[str]]:
    return [line[2:-2].split(" | ") for line in markdown.splitlines() if line.startswith("| ")]


def test_each_row_names_what_it_changes() -> None:
    table = closed_table()
    assert [row.change for row in table.rows] == [
        "",
        "lr=0.001",
        "lr=0.001 global_aware=default",
        "lr=0.5 global_aware=false",
        "lr=1.0 global_aware=false",
    ]


def test_differences_are_points_to_the_base() -> None:
    gains = [row.gain for row in closed_table().rows]
    assert [gain and round(gain["wa"], 6) for gain in gains] == [None, 7.5, 4.0, None, None]
    assert gains[1] is not None
    assert gains[1]["ua"] == pytest.approx(3.75)


def test_a_base_that_lacks_models_has_no_differences() -> None:
    table = ablation_table(ranked(grid({0: (0.5, None), 1: (0.4, 0.4)})), TITLE)
    assert [row.gain for row in table.rows] == [None, None]
    assert table.rows[0].lack == "1 of 2 failed: diverged in epoch 0"


def test_markdown_shows_dev_where_tests_are_closed() -> None:
    told = as_markdown(closed_table())
    assert told.startswith(f"**{TITLE}.** Mean ± standard deviation over folds, on dev. Δ: ")
    assert "(lr=0.0001 global_aware=true) on dev, in points" in told
    assert CLOSED in told
    assert ALL_TESTS[1:] not in told
    header, rule, base, first, *_, partly, failed = cells(told)
    assert header[1:] == [f"{part} {title}" for part in ("dev", "Δ") for title in ("WA", "UA", "W-F1", "M-F1")]
    assert len({len(row) for row in cells(told)}) == 1
    assert rule[1:] == ["---:"] * 8
    assert base[:2] == ["as published", "55.00 ± 7.07"]
    assert first[:3] == ["`lr=0.001`", "**62.50** ± 10.61", "**31.25** ± 5.30"]
    assert first[3:5] == ["**62.50** ± 10.61", "**15.62** ± 2.65"]
    assert first[5:] == ["+7.50", "+3.75", "+7.50", "+1.87"]
    assert partly[:2] == ["`lr=0.5 global_aware=false` (1 of 2 failed: diverged in epoch 3)", "90.00"]  # not the best
    assert failed[1:] == ["-"] * 8


def test_open_tests_have_columns_and_decide_the_difference() -> None:
    table = open_table()
    told = as_markdown(table)
    assert table.compared == "test"
    assert cells(told)[0][5:9] == ["test WA", "test UA", "test W-F1", "test M-F1"]
    assert cells(told)[3][5] == "**52.50** ± 10.61"
    assert ALL_TESTS[1:] in told
    assert CLOSED not in told


def test_a_combination_that_won_everywhere_shows_its_test_and_others_stay_closed() -> None:
    results = opened(grid({0: (0.5, 0.5), 1: (0.4, 0.4)}), {"1": 0, "2": 0})
    table = ablation_table(ranked(results), TITLE)
    assert (table.compared, table.shown) == ("dev", ("dev", "test"))
    assert [row[5] for row in cells(as_markdown(table))[2:]] == ["**40.00** ± 0.00", "-"]
    assert CLOSED in as_markdown(table)


def test_a_single_combination_shows_no_test_that_was_not_chosen() -> None:
    told = as_markdown(ablation_table(ranked(opened(grid({0: (0.5, 0.5)}))), TITLE))
    assert ALL_TESTS[1:] not in told
    assert CLOSED not in told


@pytest.mark.parametrize("table", [closed_table(), open_table()], ids=["closed", "open"])
def test_latex_is_balanced_and_its_rows_are_equally_long(table: Ablation) -> None:
    told = as_latex(table)
    assert told.isascii()
    bare = re.sub(r"\\[&%$#_{}]", "", told)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert "_" not in bare
    columns = re.search(r"begin\{tabular\}\{(\w+)\}", told)
    assert columns is not None
    assert columns[1] == "l" + "r" * 4 * (len(table.shown) + 1)
    rows = [line for line in bare.splitlines() if line.endswith(r"\\")]
    spans = [4 * row.count("multicolumn{4}") + (1 if "multicolumn" in row else row.count("&") + 1) for row in rows]
    assert set(spans) == {len(columns[1])}
    assert [told.count(rf"\{word}rule") for word in ("top", "mid", "bottom")] == [1, 1, 1]


def test_the_best_of_each_column_is_bold_in_latex() -> None:
    bold = [line for line in as_latex(open_table()).splitlines() if "textbf" in line]
    assert len(bold) == 1
    assert bold[0].startswith(r"lr=0.001 & \textbf{62.50} $\pm$ 10.61 & \textbf{31.25} $\pm$ 5.30 &")
    assert bold[0].count("textbf") == 8


def test_a_score_that_an_older_version_did_not_write_has_no_difference() -> None:
    results = [
        replace(one, dev={"wa": 0.5, "ua": 0.5, "wf1": 0.5, "loss": 1.0}) if one.combination else one
        for one in grid({0: (0.5, 0.5), 1: (0.4, 0.4)})
    ]
    base, older = cells(as_markdown(ablation_table(ranked(results), TITLE)))[2:]
    assert base[4] == "**12.50** ± 0.00"
    assert (older[4], older[5:]) == ("-", ["+0.00", "+25.00", "+0.00", "-"])


def test_equally_good_means_are_all_bold() -> None:
    told = as_latex(ablation_table(ranked(grid({0: (0.5, 0.5), 1: (0.50001, 0.5)})), TITLE))
    assert told.count(r"\textbf{50.00}") == 4
    assert "-0.00" not in told


def test_a_bar_in_a_value_does_not_end_a_cell() -> None:
    told = as_markdown(ablation_table(ranked(grid({0: (0.5, 0.5)})), TITLE, base="a|b"))
    assert r"| a\|b | **50.00** ± 0.00 |" in told


def test_both_are_written(tmp_path: Path) -> None:
    write_ablation(Folder(tmp_path), closed_table())
    assert (tmp_path / "ablation.md").read_text(encoding="utf-8") == as_markdown(closed_table())
    assert (tmp_path / "ablation.tex").read_text(encoding="utf-8") == as_latex(closed_table())


def test_a_table_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MmerError, match="cannot write to"):
        write_ablation(Folder(tmp_path / "file"), closed_table())
