import pytest

from cache.errors import MmerError
from fusion.recipes.listing import list_published
from fusion.recipes.other_systems import OTHER_SYSTEMS
from fusion.recipes.published import PUBLISHED


def fields(values: object) -> str:
    return str(values)


def test_all_lists_every_figure_note_and_table_with_its_protocol() -> None:
    lines = list_published("all", fields)
    text = "\n".join(lines)
    for published in PUBLISHED.values():
        assert f"protocol of the paper: {published.protocol}" in lines
        assert [figure.what for figure in published.figures if f"published: {figure.what} " not in text] == []
        assert [note for note in published.notes if f"note: {note}" not in lines] == []
    for table in OTHER_SYSTEMS:
        start = lines.index(f"{table.table} of {table.paper}: {table.corpus}, in points as printed")
        rows = lines[start + 2 : start + 2 + len(table.rows)]
        for row, line in zip(table.rows, rows, strict=True):
            assert line.startswith(row.system)
            assert f"  {row.protocol}" in line
            assert all(f" {score}" in line for score in row.scores)


def test_a_recipe_lists_its_own_paper_alone() -> None:
    lines = list_published("multab-meld:paper", fields)
    assert [line for line in lines if line.startswith("Table ")] == [
        f"Table {number} of {PUBLISHED['multab-meld'].paper}: {corpus}, in points as printed"
        for number, corpus in ((3, "IEMOCAP"), (4, "MELD"))
    ]
    assert "recalls of Mul-TAB: neutral 89.90, disgust 8.82, 1129 of 1256" in "\n".join(lines)
    assert not [line for line in lines if "JFM" in line or "LE-MER" in line]


def test_an_unknown_recipe_is_told_with_the_nearest_ones() -> None:
    with pytest.raises(MmerError, match="unknown recipe 'jfm-iemocop'; did you mean jfm-iemocap"):
        list_published("jfm-iemocop", fields)
