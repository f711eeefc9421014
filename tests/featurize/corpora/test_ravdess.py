import csv
from collections import Counter
from pathlib import Path

import pytest

from cache.errors import MmerError
from cache.utterance import Utterance
from featurize.corpora.base import check_reading
from featurize.corpora.ravdess import read_ravdess


def make_tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_the_codes_of_a_name_become_an_utterance(tmp_path: Path) -> None:
    make_tree(tmp_path, "Actor_12/03-01-06-01-02-01-12.wav")
    assert read_ravdess(tmp_path).utterances == [
        Utterance(
            id="03-01-06-01-02-01-12",
            audio="Actor_12/03-01-06-01-02-01-12.wav",
            text="Dogs are sitting by the door",
            label="fearful",
            speaker="12",
            channel="speech",
            further={"intensity": "normal", "statement": "2", "repetition": "1", "gender": "female"},
        )
    ]


def test_recordings_of_any_depth_and_format_are_found_in_sorted_order(tmp_path: Path) -> None:
    names = [
        "audio_song/Actor_02/03-02-01-01-01-01-02.FLAC",
        "audio_speech/Actor_01/03-01-01-01-01-01-01.wav",
        "audio_speech/Actor_01/03-01-01-01-01-02-01.WAV",
    ]
    reading = read_ravdess(make_tree(tmp_path, *reversed(names)))
    assert [utterance.audio for utterance in reading.utterances] == names
    assert [utterance.channel for utterance in reading.utterances] == ["song", "speech", "speech"]
    assert reading.notes == []


def test_files_that_are_no_recordings_are_skipped_and_told(tmp_path: Path) -> None:
    make_tree(
        tmp_path,
        "03-01-01-01-01-01-01.wav",
        "._03-01-01-01-01-02-01.wav",
        "README.txt",
        "01-01-01-01-01-01-01.mp4",
        "02-01-01-01-01-01-01.mp4",
        "03-01-01-01-01-02-01.mp3",
        "03-01-09-01-01-01-01.wav",
        "03-01-01-01-01-01-25.wav",
    )
    reading = read_ravdess(tmp_path)
    assert [utterance.id for utterance in reading.utterances] == ["03-01-01-01-01-01-01"]
    assert reading.notes == [
        "skipped 2 files with an impossible code: 03-01-01-01-01-01-25.wav, 03-01-09-01-01-01-01.wav",
        "skipped 2 files of another modality than 03 (audio only)",
        "skipped 1 files that are neither wav nor flac",
    ]


@pytest.mark.parametrize("field", range(7))
@pytest.mark.parametrize("code", ["00", "99"])
def test_an_impossible_code_is_refused_in_every_field(tmp_path: Path, field: int, code: str) -> None:
    codes = ["03", "01", "01", "01", "01", "01", "01"]
    codes[field] = code
    reading = read_ravdess(make_tree(tmp_path, "03-01-01-01-01-01-01.wav", f"{'-'.join(codes)}.wav"))
    assert len(reading.utterances) == 1
    assert reading.notes == [f"skipped 1 files with an impossible code: {'-'.join(codes)}.wav"]


def test_a_long_list_of_impossible_names_is_cut(tmp_path: Path) -> None:
    make_tree(tmp_path, "03-01-01-01-01-01-01.wav", *(f"03-01-01-01-01-01-{actor}.wav" for actor in range(30, 37)))
    (note,) = read_ravdess(tmp_path).notes
    assert note.startswith("skipped 7 files")
    assert note.endswith("03-01-01-01-01-01-34.wav and 2 more")


def test_a_copy_in_another_folder_is_a_duplicate(tmp_path: Path) -> None:
    make_tree(tmp_path, "Actor_01/03-01-01-01-01-01-01.wav", "all/Actor_01/03-01-01-01-01-01-01.wav")
    with pytest.raises(MmerError, match="duplicate id 03-01-01-01-01-01-01 in ravdess"):
        check_reading(read_ravdess(tmp_path), "ravdess")


def test_a_folder_of_videos_only_says_so_and_what_is_expected(tmp_path: Path) -> None:
    make_tree(tmp_path, "01-01-01-01-01-01-01.mp4")
    with pytest.raises(MmerError, match=r"no recording of ravdess.*expected: ROOT/Actor_.*1 files of another modality"):
        read_ravdess(tmp_path)


def test_a_release_of_speech_is_read_whole(tmp_path: Path) -> None:
    emotions = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
    texts = ("Kids are talking by the door", "Dogs are sitting by the door")
    expected = {
        f"Actor_{actor:02}/03-01-{emotion:02}-{intensity:02}-{text:02}-{take:02}-{actor:02}.wav": (
            f"{actor:02}",
            emotions[emotion - 1],
            texts[text - 1],
        )
        for actor in range(1, 25)
        for emotion in range(1, 9)
        for intensity in (1, 2)
        for text in (1, 2)
        for take in (1, 2)
        if (emotion, intensity) != (1, 2)  # neutral is never strong
    }
    reading = read_ravdess(make_tree(tmp_path, *expected))
    assert {item.audio: (item.speaker, item.label, item.text) for item in reading.utterances} == expected
    assert len(reading.utterances) == 1440
    assert reading.notes == []


@pytest.mark.slow  # unpacks all 1,440 recordings
def test_the_real_corpus_agrees_with_its_own_table(ravdess_root: Path) -> None:
    reading = read_ravdess(ravdess_root)
    with (ravdess_root / "manifest.tsv").open(newline="") as file:
        table = {
            row["path"]: (row["speaker"], row["emotion"], row["text"])
            for row in csv.DictReader(file, dialect="excel-tab")
        }
    found = {item.audio: (item.speaker, item.label, item.text.lower()) for item in reading.utterances}
    assert found == table
    assert len(reading.utterances) == 1440
    assert {item.channel for item in reading.utterances} == {"speech"}
    assert set(Counter(item.speaker for item in reading.utterances).values()) == {60}
    assert reading.notes == []
