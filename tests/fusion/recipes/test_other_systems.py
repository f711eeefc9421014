import pytest

from fusion.recipes.other_systems import OTHER_SYSTEMS, WITHOUT_TABLES, SystemRow, SystemTable
from fusion.recipes.published import PUBLISHED

# Scores of each row, copied from the papers independently of the source.
GOLDEN = {
    ("Mul-TAB", "Table 3"): """
        MHA+DRN 67.40 - | CNN+Bi-GRU 71.72 70.39 | MSCNN-SPU 78.20 77.40 | LightSER 70.76 70.23 | Article - 76.31 |
        TIM-Net 72.50 71.65 | MMER 78.69 80.18 | Mul-TAB 81.92 83.85""",
    ("Mul-TAB", "Table 4"): """
        MTAF 48.12 | BLSTM+IA-MMTF 54.79 | M2R2 55.83 | MMGCN 58.65 | DAG-ERC 61.04 | CTNet 62.0 | Mul-TAB 63.6""",
    ("JFM", "Table 1"): """
        SCFA 63.82 62.89 59.32 57.76 | MultiEMO - 64.48 - 61.23 | JFM 64.83 64.23 62.82* 60.68 |
        SCFA 49.24 48.66 47.37 44.18 | MultiEMO - 38.89 - 33.55 | JFM 50.37* 49.76* 48.97* 45.42* |
        SCFA 67.91 66.42 64.86 63.69 | MultiEMO - 69.18 - 64.21 | JFM 68.77 68.66 65.62 64.73""",
    ("LE-MER", "Table 2"): """
        Chen et al. [7] 74.30 75.30 | Chen et al. [28] 74.92 76.64 | Hou et al. 75.60 77.60 | Wu et al. 77.57 78.41 |
        Santoso et al. 78.40 78.60 | Li et al. [6] 80.36 81.70 | score fusion 81.32 82.18 | LE-MER 82.40 83.11""",
}
TABLES = {(table.paper.partition(" (")[0], table.table): table for table in OTHER_SYSTEMS}


@pytest.mark.parametrize("key", GOLDEN, ids=" ".join)
def test_every_row_is_the_printed_one(key: tuple[str, str]) -> None:
    found = [" ".join([row.system, *row.scores]) for row in TABLES[key].rows]
    assert found == [" ".join(row.split()) for row in GOLDEN[key].split("|")]


def test_there_is_no_other_table_and_each_paper_has_one_or_a_reason() -> None:
    assert set(TABLES) == set(GOLDEN)
    five = {
        published.paper
        for name, published in PUBLISHED.items()
        if not name.startswith(("superb", "emobox", "acoustic"))
    }
    assert {table.paper for table in OTHER_SYSTEMS} | set(WITHOUT_TABLES) == five


def test_the_rows_of_a_papers_own_system_are_its_published_figures() -> None:
    def points(table: SystemTable, system: str) -> list[tuple[str, ...]]:
        return [tuple(score.rstrip("*") for score in row.scores) for row in table.rows if row.system == system]

    def figures(name: str, *metrics: str) -> list[tuple[str, ...]]:
        return [
            tuple(f"{100 * figure.scores[metric]:.2f}" for metric in metrics)
            for figure in PUBLISHED[name].figures
            if set(metrics) <= set(figure.scores)
        ]

    jfm = points(TABLES["JFM", "Table 1"], "JFM")
    iemocap, meld = (figures(f"jfm-{name}", "wa", "wf1") for name in ("iemocap", "meld"))
    both = [first + second for first, second in zip(iemocap, meld, strict=True)]
    assert jfm == [both[1], both[2], both[0]]
    lemer = figures("lemer-iemocap", "wa", "ua")
    assert points(TABLES["LE-MER", "Table 2"], "LE-MER") == lemer[:1]
    assert points(TABLES["LE-MER", "Table 2"], "score fusion") == [lemer[4]]
    headline = figures("multab-iemocap", "ua", "wa")
    assert points(TABLES["Mul-TAB", "Table 3"], "Mul-TAB") == headline


def test_a_row_has_a_score_for_each_column() -> None:
    row = SystemRow(system="a", modalities="S", scores=("1", "2"))
    with pytest.raises(ValueError, match="a must have 1 scores, got 2"):
        SystemTable(paper="b", table="c", corpus="d", columns=("UA",), rows=(row,))
