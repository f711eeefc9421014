"""Corpora in their true formats: a small written IEMOCAP and the real RAVDESS."""

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
RAVDESS_ARCHIVE = REPOSITORY.parent / "shared" / "data" / "ravdess16k.tar.xz"

IMPRO_EVALUATION = (
    "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\r\n"
    "\r\n"
    "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\r\n"
    "C-E2:\tNeutral;\t()\r\n"
    "C-F1:\tNeutral;\t(curious)\r\n"
    "A-E3:\tval 3; act 2; dom  2;\t()\r\n"
    "A-F1:\tval 3; act 2; dom  1;\t()\r\n"
    "\r\n"
    # Written before M000, spoken after it.
    "[11.3925 - 13.8125]\tSes01F_impro01_F001\txxx\t[2.0000, 3.5000, 4.0000]\r\n"
    "C-E2:\tFrustration; Anger;\t()\r\n"
    "\r\n"
    "[7.5000 - 10.9000]\tSes01F_impro01_M000\tfru\t[2.6667, 2.0000, 3.5000]\r\n"
    "[14.0000 - ]\tSes01F_impro01_M001\tneu\t[2.0000, 2.0000]\r\n"
)
IMPRO_TRANSCRIPT = (
    b"Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me. [LAUGHTER]  \r\n"
    b"M: [LAUGHTER]\r\n"
    b"\r\n"
    b"Ses01F_impro01_M000 [007.5000-010.9000]: Do you have your caf\xe9 forms?\r\n"
    b"Ses01F_impro01_MXX0 [009.0000-009.5000]: Yeah.\r\n"
    b"Ses01F_impro01_M000 [010.0000-010.9000]: Said over her.\r\n"
)
SCRIPT_EVALUATION = (
    "[0.5000 - 2.0000]\tSes05M_script01_1b_M000\tang\t[1.5000, 4.0000, 4.5000]\n"
    "[2.0000 - 3.0000]\tSes05M_script01_1b_F000\texc\t[4.5000, 4.0000, 3.0000]\n"
)


@pytest.fixture
def iemocap_root(tmp_path: Path) -> Path:
    """A release of Session1 and Session5 that has every known oddity."""
    first, fifth = (tmp_path / session / "dialog" for session in ("Session1", "Session5"))
    for dialog in (first, fifth):
        (dialog / "EmoEvaluation" / "Categorical").mkdir(parents=True)
        (dialog / "transcriptions").mkdir()
    (first / "EmoEvaluation" / "Ses01F_impro01.txt").write_text(IMPRO_EVALUATION, newline="")
    stray = IMPRO_EVALUATION.replace("_F000", "_F900")
    (first / "EmoEvaluation" / "._Ses01F_impro01.txt").write_bytes(b"\x00\x05\x16\x07\n" + stray.encode())
    (first / "EmoEvaluation" / "Categorical" / "Ses01F_impro01_e2_cat.txt").write_text(stray)
    (first / "transcriptions" / "Ses01F_impro01.txt").write_bytes(IMPRO_TRANSCRIPT)
    (first / "transcriptions" / "._Ses01F_impro01.txt").write_bytes(b"\x00\x05\x16\x07")
    (first / "transcriptions" / "Ses01F_impro02.txt").write_text("Ses01F_impro02_F000 [1.0-2.0]: Unrated.\n")
    (fifth / "EmoEvaluation" / "Ses05M_script01_1b.txt").write_text(SCRIPT_EVALUATION)
    return tmp_path


@pytest.fixture(scope="session")
def ravdess_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The whole of the real corpus, unpacked."""
    if not RAVDESS_ARCHIVE.is_file():
        pytest.skip(f"the real RAVDESS is not at {RAVDESS_ARCHIVE}")
    folder = tmp_path_factory.mktemp("ravdess")
    with tarfile.open(RAVDESS_ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    yield folder
    shutil.rmtree(folder)
