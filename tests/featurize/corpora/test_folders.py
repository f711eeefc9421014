"""Corpora behind links: every reader follows them, and reads each folder once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cache.errors import MmerError
from featurize.corpora.catalog import read_corpus
from featurize.corpora.folders import files_below
from fusion.end_to_end.prediction.listing import list_recordings

NAME = "03-01-05-01-01-01-01.wav"


def moved(folder: Path, disk: Path) -> None:
    """Moves a folder to another place and leaves a link."""
    disk.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder, disk)
    folder.symlink_to(disk)


def test_linked_folders_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b/2.wav", "a/1.wav", "c/d/3.wav"):
        (tmp_path / "root" / name).parent.mkdir(parents=True)
        (tmp_path / "root" / name).touch()
    plain, _ = files_below(tmp_path / "root")
    for name in ("a", "c"):
        moved(tmp_path / "root" / name, tmp_path / "disk" / name)
    moved(tmp_path / "disk/c/d", tmp_path / "disk2/d")
    assert files_below(tmp_path / "root") == (plain, [])
    (tmp_path / "link").symlink_to(tmp_path / "root")
    assert len(files_below(tmp_path / "link")[0]) == 3


def test_a_loop_and_a_second_link_are_noted_and_nothing_is_read_twice(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/1.wav").touch()
    (tmp_path / "a/b/loop").symlink_to(tmp_path / "a")
    (tmp_path / "a/again").symlink_to(tmp_path / "a/b")
    (tmp_path / "a/self").symlink_to("self")
    (tmp_path / "a/broken").symlink_to(tmp_path / "nowhere")
    files, notes = files_below(tmp_path / "a")
    assert files == [tmp_path / "a/b/1.wav"]
    assert notes == [f"skipped 2 links to a folder that is read already (first: {tmp_path}/a/again)"]


def test_a_root_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(MmerError, match=r"cannot read the folder .*: Not a directory"):
        files_below(tmp_path / "a")


def ravdess(root: Path) -> Path:
    (root / "Actor_01").mkdir(parents=True)
    (root / "Actor_01" / NAME).touch()
    return root / "Actor_01"


def meld(root: Path) -> Path:
    (root / "raw/train_splits").mkdir(parents=True)
    (root / "raw/train_splits/dia0_utt0.mp4").touch()
    header = "Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID"
    (root / "raw/train_sent_emo.csv").write_text(f"{header}\nhi,Joey,joy,positive,0,0\n")
    return root / "raw"


def iemocap(root: Path) -> Path:
    (root / "Session1/dialog/EmoEvaluation").mkdir(parents=True)
    line = "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\n"
    (root / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt").write_text(line)
    return root / "Session1"


@pytest.mark.parametrize(("name", "write"), [("ravdess", ravdess), ("meld", meld), ("iemocap", iemocap)])
def test_every_reader_follows_links(tmp_path: Path, name: str, write: Callable[[Path], Path]) -> None:
    linked = write(tmp_path / "root")
    plain = read_corpus(name, tmp_path / "root")
    moved(linked, tmp_path / "disk" / "x")
    assert read_corpus(name, tmp_path / "root").utterances == plain.utterances
    assert len(plain.utterances) == 1


def test_folders_to_predict_are_followed_too(tmp_path: Path) -> None:
    moved(ravdess(tmp_path / "root"), tmp_path / "disk")
    (recording,) = list_recordings([str(tmp_path / "root")])
    assert recording.file == str(tmp_path / "root/Actor_01" / NAME)
