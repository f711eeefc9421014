from pathlib import Path

import pytest

from cache.errors import MmerError
from featurize.corpora.meld import ClipName, example_clips, find_clips


def found(root: Path, *names: str) -> tuple[dict[ClipName, Path], list[str]]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return find_clips(sorted(Path(name) for name in names), root)


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train_splits/dia0_utt1.mp4", "train"),
        ("train/train_splits/dia0_utt1.mp4", "train"),
        ("dev_splits_complete/dia0_utt1.mp4", "dev"),
        ("output_repeated_splits_test/dia0_utt1.mp4", "test"),
        ("output_repeated_splits_test_wav/dia0_utt1.wav", "test"),
        ("train_audio/dia0_utt1.FLAC", "train"),
        ("Dev16k/DIA0_UTT1.WAV", "dev"),
        ("valid/dia0_utt1.wav", "dev"),
        ("meld-validation-wavs/dia0_utt1.wav", "dev"),
        ("training/dia0_utt1.wav", "train"),
        ("test/for training/audio/dia0_utt1.wav", "train"),
        ("test/train and dev/dia0_utt1.wav", "test"),  # two splits are none
        ("latest/dev/trainer/dia0_utt1.wav", "dev"),  # only whole words are
        ("wav/train_dia0_utt1.wav", "train"),
        ("all/test/dev_dia0_utt1.wav", "dev"),
        ("test/dia00_utt01.wav", "test"),
    ],
)
def test_the_deepest_name_that_names_a_split_decides(tmp_path: Path, path: str, split: str) -> None:
    assert found(tmp_path, path) == ({ClipName(split, 0, 1): Path(path)}, [])


def test_a_converted_clip_goes_before_the_released_one(tmp_path: Path) -> None:
    names = ["a/dev/dia0_utt0.mp4", "b/dev/dia0_utt0.flac", "c/dev/dia0_utt0.wav", "a/dev/dia0_utt1.mp4"]
    clips, _ = found(tmp_path, *names, "b/dev/dia0_utt1.flac", "a/dev/dia0_utt2.mp4")
    assert [path.as_posix() for _, path in sorted(clips.items())] == [
        "c/dev/dia0_utt0.wav",
        "b/dev/dia0_utt1.flac",
        "a/dev/dia0_utt2.mp4",
    ]


def test_files_that_are_no_clip_of_a_turn_are_skipped_and_told(tmp_path: Path) -> None:
    clips, notes = found(
        tmp_path,
        "test/dia0_utt0.mp4",
        "test/dia0_utt0.csv",
        "test/dia0_utt0_vocals.wav",
        "test/final_videos_testdia0_utt0.mp4",
        "test/final_videos_testdia0_utt1.mp4",
        "wav/dia0_utt0.wav",
    )
    assert clips == {ClipName("test", 0, 0): Path("test/dia0_utt0.mp4")}
    assert notes == [
        "skipped 1 clips whose folders name no split (first: wav/dia0_utt0.wav)",
        "skipped 2 clips that are another cut of a test clip (first: test/final_videos_testdia0_utt0.mp4)",
    ]


def test_two_sets_of_one_kind_stop_the_reading(tmp_path: Path) -> None:
    with pytest.raises(MmerError, match=r"1 clips .* \(first: dev/dia0_utt0.wav and vocals/dev/dia0_utt0.wav\)"):
        found(tmp_path, "dev/dia0_utt0.wav", "vocals/dev/dia0_utt0.wav", "dev/dia0_utt1.wav")


def test_the_first_clip_of_a_split_tells_where_others_would_be(tmp_path: Path) -> None:
    clips, _ = found(tmp_path, "test_wav/dia10_utt0.wav", "test_wav/dia9_utt3.wav", "train/dia0_utt0.flac")
    assert example_clips(clips) == {
        "train": Path("train/dia0_utt0.flac"),
        "dev": Path("dev_splits_complete/dia0_utt0.mp4"),
        "test": Path("test_wav/dia9_utt3.wav"),
    }
