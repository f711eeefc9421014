"""Other systems in the result tables of the five papers: scores as each paper prints them, with the protocol it states.

The tables quote other publications; mmer does not implement these systems and compares no run with them. Numbers are
points, as printed; an asterisk is the paper's mark of significance (p < 0.05, t-test), a dash stands for what a table
does not print. Column names are the paper's, even where an audit found that it exchanges them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fusion.recipes.published import BIMODAL, GCF2NET, JFM, LEMER, MULTAB

MISSING = "-"
TEN_FOLDS, FIVE_FOLDS = "10 folds", "5 folds"
SESSIONS = "leave one session out, 5 folds"
SPEECH, TEXT, BOTH, THREE = "S", "T", "S, T", "S, T, V"


@dataclass(frozen=True, kw_only=True)
class SystemRow:
    """One row of a table: a system and its scores as printed.

    Attributes:
        system: name of the system.
        modalities: speech (S), text (T), video (V), as printed; `MISSING` if the table does not print them.
        scores: scores in points by the columns of the table; `MISSING` for none.
        protocol: protocol that the paper prints for the row; `MISSING` for none.
        remark: facts to know, empty for none.
    """

    system: str
    modalities: str
    scores: tuple[str, ...]
    protocol: str = MISSING
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class SystemTable:
    """One table of other systems.

    Attributes:
        paper: name of the paper, journal or authors, year and link.
        table: number of the table.
        corpus: corpus, or corpora, of the scores.
        columns: names of the scores as printed.
        rows: rows in the order of the table; the paper's own system is one of them.
        remarks: what an audit found, one line each.
    """

    paper: str
    table: str
    corpus: str
    columns: tuple[str, ...]
    rows: tuple[SystemRow, ...]
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.scores) != len(self.columns):
                raise ValueError(f"{row.system} must have {len(self.columns)} scores, got {len(row.scores)}")


OTHER_SYSTEMS: tuple[SystemTable, ...] = (
    SystemTable(
        paper=MULTAB,
        table="Table 3",
        corpus="IEMOCAP",
        columns=("UAR", "WAR"),
        rows=(
            SystemRow(system="MHA+DRN", modalities=SPEECH, scores=("67.40", MISSING)),
            SystemRow(system="CNN+Bi-GRU", modalities=SPEECH, scores=("71.72", "70.39")),
            SystemRow(system="MSCNN-SPU", modalities=BOTH, scores=("78.20", "77.40"), protocol=TEN_FOLDS),
            SystemRow(system="LightSER", modalities=SPEECH, scores=("70.76", "70.23"), protocol=TEN_FOLDS),
            SystemRow(system="Article", modalities=BOTH, scores=(MISSING, "76.31"), protocol=FIVE_FOLDS),
            SystemRow(system="TIM-Net", modalities=SPEECH, scores=("72.50", "71.65"), protocol=TEN_FOLDS),
            SystemRow(
                system="MMER",
                modalities=BOTH,
                scores=("78.69", "80.18"),
                protocol=FIVE_FOLDS,
                remark="trained again by the paper, without augmented data",
            ),
            SystemRow(
                system="Mul-TAB",
                modalities=BOTH,
                scores=("81.92", "83.85"),
                protocol=FIVE_FOLDS,
                remark="session 2 alone, the best fold; the mean of the five folds is 78.76",
            ),
        ),
        remarks=(
            "UAR and WAR of Mul-TAB are very probably exchanged: 81.92 is 838 of 1023 utterances, 83.85 is not an "
            "accuracy of 1023",
        ),
    ),
    SystemTable(
        paper=MULTAB,
        table="Table 4",
        corpus="MELD",
        columns=("UAR",),
        rows=(
            SystemRow(system="MTAF", modalities=BOTH, scores=("48.12",)),
            SystemRow(system="BLSTM+IA-MMTF", modalities=BOTH, scores=("54.79",)),
            SystemRow(system="M2R2", modalities=THREE, scores=("55.83",)),
            SystemRow(system="MMGCN", modalities=THREE, scores=("58.65",)),
            SystemRow(system="DAG-ERC", modalities=SPEECH, scores=("61.04",)),
            SystemRow(system="CTNet", modalities=BOTH, scores=("62.0",)),
            SystemRow(system="Mul-TAB", modalities=BOTH, scores=("63.6",)),
        ),
        remarks=(
            "the column is accuracy for Mul-TAB: with its printed recalls no UAR can exceed 56.2",
            "the paper prints the score of Mul-TAB on MELD as 62.7, 63.6 and 63.9",
        ),
    ),
    SystemTable(
        paper=JFM,
        table="Table 1",
        corpus="IEMOCAP; MELD",
        columns=("IEMOCAP Acc", "IEMOCAP W-F1", "MELD Acc", "MELD W-F1"),
        rows=(
            SystemRow(system="SCFA", modalities=TEXT, scores=("63.82", "62.89", "59.32", "57.76")),
            SystemRow(system="MultiEMO", modalities=TEXT, scores=(MISSING, "64.48", MISSING, "61.23")),
            SystemRow(system="JFM", modalities=TEXT, scores=("64.83", "64.23", "62.82*", "60.68")),
            SystemRow(system="SCFA", modalities=SPEECH, scores=("49.24", "48.66", "47.37", "44.18")),
            SystemRow(system="MultiEMO", modalities=SPEECH, scores=(MISSING, "38.89", MISSING, "33.55")),
            SystemRow(system="JFM", modalities=SPEECH, scores=("50.37*", "49.76*", "48.97*", "45.42*")),
            SystemRow(system="SCFA", modalities=BOTH, scores=("67.91", "66.42", "64.86", "63.69")),
            SystemRow(system="MultiEMO", modalities=BOTH, scores=(MISSING, "69.18", MISSING, "64.21")),
            SystemRow(system="JFM", modalities=BOTH, scores=("68.77", "68.66", "65.62", "64.73")),
        ),
        remarks=(
            "SCFA and MultiEMO report six classes of IEMOCAP; the class set of JFM is not stated (J-16)",
            "its text claims +4.50 Acc over SCFA for text on MELD, the table has +3.50",
        ),
    ),
    SystemTable(
        paper=LEMER,
        table="Table 2",
        corpus="IEMOCAP",
        columns=("WA", "UA"),
        rows=(
            SystemRow(system="Chen et al. [7]", modalities=MISSING, scores=("74.30", "75.30")),
            SystemRow(system="Chen et al. [28]", modalities=MISSING, scores=("74.92", "76.64")),
            SystemRow(system="Hou et al.", modalities=MISSING, scores=("75.60", "77.60")),
            SystemRow(system="Wu et al.", modalities=MISSING, scores=("77.57", "78.41")),
            SystemRow(system="Santoso et al.", modalities=MISSING, scores=("78.40", "78.60")),
            SystemRow(system="Li et al. [6]", modalities=MISSING, scores=("80.36", "81.70")),
            SystemRow(
                system="score fusion",
                modalities=MISSING,
                scores=("81.32", "82.18"),
                protocol=SESSIONS,
                remark="the sum of A5 and B5 of the paper (L-12)",
            ),
            SystemRow(
                system="LE-MER",
                modalities=MISSING,
                scores=("82.40", "83.11"),
                protocol=SESSIONS,
            ),
        ),
    ),
)

# Paper -> why no table of other systems of it is listed.
WITHOUT_TABLES: Mapping[str, str] = {
    GCF2NET: "its tables are images or missing in the available copy",
    BIMODAL: "its tables of other systems are missing in the available copy; WA 75.9, UA 75.0 of Padi et al. (2022) on "
    "IEMOCAP follow from the differences in its text",
}
