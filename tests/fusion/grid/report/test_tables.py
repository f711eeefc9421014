from dataclasses import replace

import pytest

from cli.output import print_table
from fusion.grid.report.tables import (
    ALL_TESTS,
    NESTED,
    NOT_NESTED,
    ONE_FOLD,
    failure_text,
    fold_table,
    folds_won,
    grid_table,
    short_reason,
    summary_lines,
)
from tests.support.scored import AXES, FOLDS, grid, opened, ranked, result

WON = {"1": 1, "2": 0}


def test_the_table_has_a_row_for_each_combination_the_best_first() -> None:
    header, rows = grid_table(ranked(opened(grid(), WON)), AXES, WON)
    assert header == ["rank", "lr", "global_aware", "dev WA", "dev UA", "dev W-F1", "dev M-F1", "notes"]
    assert {len(row) for row in rows} == {len(header)}
    assert rows[0] == [
        *(1, "0.001", "true", "62.50 ± 10.61", "31.25 ± 5.30", "62.50 ± 10.61", "15.62 ± 2.65"),
        "best by mean dev; wins fold 1",
    ]
    assert [row[:3] for row in rows[1:]] == [
        [2, "0.001", "default"],
        [3, "0.0001", "true"],
        ["-", "0.5", "false"],
        ["-", "1.0", "false"],
    ]
    assert [row[-1] for row in rows[1:]] == [
        "",
        "wins fold 2",
        "1 of 2 failed: diverged in epoch 3",
        "diverged in epoch 4",
    ]
    assert rows[-1][3:7] == ["-", "-", "-", "-"]


def test_test_columns_are_there_only_where_a_combination_is_open_on_all_folds() -> None:
    header, rows = grid_table(ranked(opened(grid())), AXES, WON)
    assert header[7:11] == ["test WA", "test UA", "test W-F1", "test M-F1"]
    assert [row[7] for row in rows] == ["52.50 ± 10.61", "49.00 ± 1.41", "45.00 ± 7.07", "-", "-"]


def test_a_score_that_an_older_version_did_not_write_is_a_dash() -> None:
    older = {"wa": 0.5, "ua": 0.5, "wf1": 0.5, "loss": 1.0}
    results = [replace(one, dev=older) for one in opened(grid({0: (0.5, 0.5)}))]
    assert grid_table(ranked(results), (), WON)[1][0][1:5] == ["50.00 ± 0.00"] * 3 + ["-"]
    assert fold_table(ranked(results), results, {"1": 0})[1][0][2:6] == ["50.00", "50.00", "50.00", "-"]
    assert "W-F1 50.00 ± 0.00, M-F1 -" in summary_lines(ranked(results), results, {"1": 0})[1]


def test_a_combination_may_win_several_folds() -> None:
    results = grid({0: (0.5, 0.5), 1: (0.4, 0.4)})
    assert grid_table(ranked(results), AXES, {"1": 0, "2": 0})[1][0][-1] == "best by mean dev; wins folds 1, 2"
    assert folds_won(1, {"1": 0, "2": 0}) == []


def test_the_folds_have_their_winners_and_the_nested_score_below() -> None:
    results = opened(grid(), WON)
    header, rows = fold_table(ranked(results), results, WON)
    assert header[:3] == ["fold", "winner", "dev WA"]
    assert {len(row) for row in rows} == {len(header)}
    tested = ["60.00", "30.00", "60.00", "15.00"]
    assert rows[0] == ["1", "lr=0.001 global_aware=true", "70.00", "35.00", "70.00", "17.50", *tested]
    assert rows[1][:3] == ["2", "lr=0.0001 global_aware=true", "60.00"]
    assert rows[2] == ["nested", *[""] * 5, "55.00 ± 7.07", "27.50 ± 3.54", "55.00 ± 7.07", "13.75 ± 1.77"]


def test_tables_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    results = opened(grid(), WON)
    print_table(*grid_table(ranked(results), AXES, WON))
    print_table(*fold_table(ranked(results), results, WON))
    assert len(capsys.readouterr().out.splitlines()) == 6 + 4


def test_what_is_nested_and_what_is_not_is_told() -> None:
    results = opened(grid(), WON)
    nested, best = summary_lines(ranked(results), results, WON)
    tested = "WA 55.00 ± 7.07, UA 27.50 ± 3.54, W-F1 55.00 ± 7.07, M-F1 13.75 ± 1.77"
    assert nested == f"nested: test {tested} over 2 folds; {NESTED}"
    dev = "WA 62.50 ± 10.61, UA 31.25 ± 5.30, W-F1 62.50 ± 10.61, M-F1 15.62 ± 2.65"
    told = f"lr=0.001 global_aware=true, dev {dev}"
    assert best == f"best by mean dev: {told}; {NOT_NESTED}"


def test_open_tests_of_what_was_not_chosen_are_told() -> None:
    results = opened(grid())
    _, best, last = summary_lines(ranked(results), results, WON)
    assert "test WA 52.50 ± 10.61" in best
    assert last == ALL_TESTS


def test_a_single_fold_has_no_others_to_warn_of() -> None:
    results = [result(0, "1", 0.5, 0.4), result(1, "1", 0.4)]
    nested, best = summary_lines(ranked(results), results, {"1": 0})
    assert "WA 40.00, UA 20.00, W-F1 40.00, M-F1 10.00 over 1 fold;" in nested
    assert best.endswith(ONE_FOLD)


def test_there_may_be_no_best() -> None:
    results = opened(grid({0: (0.5, None), 1: (None, 0.5)}))
    assert len(summary_lines(ranked(results), results, dict(zip(FOLDS, (0, 1), strict=True)))) == 1


def test_models_that_are_missing_did_not_fail() -> None:
    lacking = [one for one in grid() if (one.combination, one.fold) != (1, "2")]
    assert failure_text(next(one for one in ranked(lacking) if one.combination == 1)) == "1 of 2 trained"


def test_a_long_reason_is_cut() -> None:
    assert short_reason("word " * 30) == "word word word word word word word word word..."
    assert short_reason("the loss ctc is inf in batch 1 of epoch 12") == "diverged in epoch 12"
    assert short_reason("diverged in epoch 3") == "diverged in epoch 3"
