"""A small MELD in the format of the release, with every known oddity."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.support.videos import write_video
from tests.support.voices import tone

HEADER = b"Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\r\n"
TIMES = b'8,21,"00:16:16,059","00:16:21,731"\r\n'
TABLES: Mapping[str, bytes] = {
    # U+0092 encoded as UTF-8, as in the release; numbers of turns and dialogues with gaps; a row that is none
    "train": b'1,"also I was the point person on my company\xc2\x92s transition",Chandler,neutral,neutral,0,0,' + TIMES
    + b"2,You must\xc2\x92ve had your hands full\xc2\x85,The Interviewer,neutral,neutral,0,1," + TIMES
    + b'5,"\xc2\x93Really?!\xc2\x94 \xc2\x81",Chandler,Surprise,positive,0,4,' + TIMES
    + b"6,Hello, without quotes,Joey,joy,positive,0,5," + TIMES
    + b"7,Nobody knows when,Joey,joy,positive,zero,6," + TIMES
    + b"656,My duties?,Phoebe,surprise,positive,125,3," + TIMES,
    # bare cp1252, not UTF-8 at all
    "dev": b'1,"Oh my God, he\x92s lost it.",Phoebe,sadness,negative,0,0,' + TIMES
    + b"2,Did they tell you anything\x97caf\xe9?,Phoebe,neutral,neutral,110,7," + TIMES,
    # proper UTF-8
    "test": "1,Why do all you\u2019re coffee mugs,Mark,surprise,positive,0,0,".encode() + TIMES
    + b'2,"Oh it\'s great, it\'s a role on",Joey,joy,positive,38,4,' + TIMES
    + b"3,What's that smell?,Phoebe,disgust,negative,220,0," + TIMES
    + b"3,What's that smell?,Phoebe,disgust,negative,220,0," + TIMES,
}  # fmt: skip
FOLDERS = {"train": "train/train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
RATE_HZ = 48_000


def write_tables(root: Path) -> Path:
    """Writes the three tables where the archives have them: that of train beside its clips."""
    for split, rows in TABLES.items():
        place = root / "train" if split == "train" else root
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{split}_sent_emo.csv").write_bytes(HEADER + rows)
    return root


def write_release(root: Path) -> Path:
    """Writes tables and clips: stereo, 5.1, a corrupt one, one of a minute and more, one that has been repaired.

    There is no clip of dev_dia110_utt7 and none of train_dia0_utt1.
    """
    write_tables(root)
    for seed, (split, name, channels) in enumerate(
        [
            ("train", "dia0_utt0", 2),
            ("train", "dia0_utt4", 6),
            ("train", "dia125_utt3", 2),
            ("dev", "dia0_utt0", 2),
            ("dev", "dia66_utt9", 2),
            ("test", "dia0_utt0", 2),
            ("test", "dia220_utt0", 2),
            ("test", "final_videos_testdia0_utt0", 2),
        ]
    ):
        sound = tone(0.4 + 0.05 * seed, rate_hz=RATE_HZ, seed=seed)[:, None]
        write_video(root / FOLDERS[split] / f"{name}.mp4", np.repeat(sound, channels, axis=1), RATE_HZ)
    write_video(root / FOLDERS["test"] / "dia38_utt4.mp4", tone(61.0, rate_hz=8000)[:, None], 8000)
    corrupt = root / FOLDERS["train"] / "dia125_utt3.mp4"
    corrupt.write_bytes(corrupt.read_bytes()[:2000])
    (root / FOLDERS["dev"] / "._dia0_utt0.mp4").write_bytes(b"\x00\x05\x16\x07")
    return root
