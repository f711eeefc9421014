import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cache.errors import MmerError
from cache.utterance import Utterance
from featurize.corpora.catalog import read_corpus
from featurize.corpora.meld import read_meld
from tests.support.meld_release import FOLDERS, HEADER, TABLES, TIMES, write_tables

ROW = b"1,Hi.,Joey,joy,positive,%d,%d," + TIMES


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tables(tmp_path / "MELD.Raw")


def clip(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def audio_of(root: Path) -> dict[str, str]:
    return {utterance.id: utterance.audio for utterance in read_meld(root).utterances}


def test_rows_become_utterances_by_split(root: Path) -> None:
    clip(root, "train_splits/dia0_utt0.mp4")
    utterances = read_corpus("meld", root).utterances
    assert [utterance.id for utterance in utterances] == [
        "train_dia0_utt0",
        "train_dia0_utt1",
        "train_dia0_utt4",
        "train_dia125_utt3",
        "dev_dia0_utt0",
        "dev_dia110_utt7",
        "test_dia0_utt0",
        "test_dia38_utt4",
        "test_dia220_utt0",
    ]
    assert utterances[2] == Utterance(
        id="train_dia0_utt4",
        audio="train_splits/dia0_utt4.mp4",
        text="“Really?!” \x81",
        label="surprise",
        speaker="Chandler",
        dialogue="train_dia0",
        turn=2,  # its number is 4, but 2 and 3 are not in the release
        split="train",
        sentiment="positive",
    )


def test_leftovers_of_cp1252_become_the_characters_they_were(root: Path) -> None:
    texts = {utterance.id: utterance.text for utterance in read_meld(root).utterances}
    assert texts["train_dia0_utt0"] == "also I was the point person on my company\u2019s transition"
    assert texts["train_dia0_utt1"] == "You must\u2019ve had your hands full…"
    assert texts["dev_dia0_utt0"] == "Oh my God, he\u2019s lost it."
    assert texts["dev_dia110_utt7"] == "Did they tell you anything—café?"
    assert texts["test_dia0_utt0"] == "Why do all you\u2019re coffee mugs"


@pytest.mark.parametrize("bare", [True, False], ids=["bare", "encoded"])
def test_every_leftover_is_repaired_or_stays_for_the_cleaning(tmp_path: Path, bare: bool) -> None:
    stored = {byte: bytes([byte]) if bare else chr(byte).encode() for byte in range(0x80, 0x100)}
    rows = [ROW.replace(b"Hi.", b"a" + text + b"z") % (0, byte) for byte, text in stored.items()]
    (tmp_path / "dev_sent_emo.csv").write_bytes(HEADER + b"".join(rows))
    texts = {utterance.id: utterance.text for utterance in read_meld(tmp_path).utterances}
    for byte, text in stored.items():
        meant = bytes([byte]).decode("cp1252", "ignore") if bare or byte < 0xA0 else chr(byte)
        assert texts.pop(f"dev_dia0_utt{byte}") == f"a{meant or text.decode('utf-8', 'surrogateescape')}z", hex(byte)
    assert not texts


def test_rows_that_cannot_be_read_or_stand_there_twice_are_told(root: Path) -> None:
    notes = read_meld(root).notes
    assert "2 rows of train_sent_emo.csv cannot be read (first: line 5)" in notes
    assert "1 rows of test_sent_emo.csv are duplicates and are read once" in notes
    assert "4 rows of train found, the release has 9989" in notes


def test_two_rows_that_contradict_each_other_stop_the_reading(root: Path) -> None:
    rows = TABLES["test"] + b"9,What's that smell?,Phoebe,anger,negative,220,0," + TIMES
    (root / "test_sent_emo.csv").write_bytes(HEADER + rows)
    with pytest.raises(MmerError, match="duplicate id test_dia220_utt0 in meld"):
        read_corpus("meld", root)


def test_a_split_without_a_table_is_left_out_and_told(root: Path) -> None:
    (root / "dev_sent_emo.csv").unlink()
    reading = read_meld(root)
    assert {utterance.split for utterance in reading.utterances} == {"train", "test"}
    assert f"no dev_sent_emo.csv in {root} or below: dev is left out" in reading.notes


def test_the_table_nearest_to_the_root_is_read_and_another_one_is_told(root: Path) -> None:
    shutil.copytree(root, root / "data" / "MELD")
    assert not [note for note in read_meld(root).notes if "has other content" in note]
    (root / "data" / "MELD" / "dev_sent_emo.csv").write_bytes(HEADER + ROW % (7, 0))
    reading = read_meld(root)
    assert "dev_sent_emo.csv is read; data/MELD/dev_sent_emo.csv has other content and is ignored" in reading.notes
    assert "dev_dia7_utt0" not in {utterance.id for utterance in reading.utterances}


def without_tables(root: Path) -> None:
    for path in root.rglob("*.csv"):
        path.unlink()


def without_a_column(root: Path) -> None:
    (root / "dev_sent_emo.csv").write_bytes(HEADER.replace(b"Emotion", b"Feeling"))


def open_quote(root: Path) -> None:
    (root / "dev_sent_emo.csv").write_bytes(HEADER + b'1,"' + b"never closed " * 20_000)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_tables, "no train_sent_emo.csv, dev_sent_emo.csv or test_sent_emo.csv in .*; expected: "),
        (without_a_column, "dev_sent_emo.csv lacks the columns Emotion; use the table of the release"),
        (open_quote, r"cannot read .*dev_sent_emo.csv: field larger than .* at line \d+; use the table of the release"),
    ],
)
def test_a_table_that_cannot_be_used_stops_the_reading(
    root: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(root)
    with pytest.raises(MmerError, match=message):
        read_meld(root)


def test_the_broken_clips_of_the_release_go_along(root: Path) -> None:
    reading = read_meld(root)
    assert set(reading.defects) <= {utterance.id for utterance in reading.utterances}
    assert "issue 39" in str(reading.defects["train_dia125_utt3"])


def test_tables_without_any_clip_are_a_corpus_of_text(root: Path) -> None:
    assert set(audio_of(root).values()) == {""}


def test_a_clip_that_is_not_there_is_named_where_it_would_be(root: Path) -> None:
    clip(root, f"{FOLDERS['train']}/dia0_utt4.mp4")
    assert audio_of(root)["test_dia0_utt0"] == "output_repeated_splits_test/dia0_utt0.mp4"
    clip(root, f"{FOLDERS['train']}/dia0_utt1.mp4", "dev_wav/dia0_utt0.wav")
    assert audio_of(root)["train_dia0_utt0"] == "train/train_splits/dia0_utt0.mp4"
    assert audio_of(root)["dev_dia110_utt7"] == "dev_wav/dia110_utt7.wav"
    assert [note for note in read_meld(root).notes if note.startswith("no clip")] == [
        "no clip of test found: its turns have text only"
    ]
