"""CMU-MOSI and CMU-MOSEI: sentences of video monologues, rated from very negative (-3) to very positive (3).

Source: Zadeh et al., 2016, arXiv:1606.06259 (MOSI, 2,199 segments); Zadeh et al., 2018, doi:10.18653/v1/P18-1208
(MOSEI).
Expects: label.csv in ROOT or below, as MMSA publishes it (https://github.com/thuiar/MMSA), with the columns video_id,
clip_id, text, label, annotation and mode, and the clips Raw/VIDEO_ID/CLIP_ID.mp4 (or wav, flac) next to it.
Labels: annotation in lower case (negative, neutral, positive); the sentiment likewise, in its own field. Valence: the
rating, -3 to 3. Split: mode (train, valid, test). Text: as published. Dialogue: the video. Turn: the number of the
clip in its video, among the clips of the table. Speaker: not in the table, so it is empty; the published split of
MOSI and MOSEI is by video and speaker. The emotions of MOSEI are not in label.csv and are not read.
"""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from cache.errors import MmerError
from cache.utterance import Utterance
from featurize.corpora.base import CorpusReading
from featurize.corpora.table import Row, nearest_file, read_released

TREE = "ROOT/label.csv and ROOT/Raw/VIDEO_ID/CLIP_ID.mp4 (or wav, flac)"
COLUMNS = ("video_id", "clip_id", "text", "label", "annotation", "mode")
SUFFIXES = (".wav", ".flac", ".mp4")  # converted files take precedence


def read_cmu_mosi(root: Path) -> CorpusReading:
    """Reads label.csv and finds the clips, which are not opened.

    Raises:
        MmerError: if there is no label.csv, or it cannot be read or lacks a column.
    """
    table = nearest_file(root, "label.csv")
    if table is None:
        raise MmerError(f"no label.csv found in {root}; expected: {TREE}")
    clips = table.parent / "Raw"
    found = (
        {video.name: {clip.name for clip in video.iterdir()} for video in clips.iterdir() if video.is_dir()}
        if (clips.is_dir())
        else {}
    )
    utterances = [_utterance(row, found) for row in read_released(table, COLUMNS)]
    notes = [] if found else [f"no folder Raw next to {table}: its sentences have text only"]
    return CorpusReading(root=table.parent, utterances=_with_turns(utterances), notes=notes)


def _utterance(row: Row, found: dict[str, set[str]]) -> Utterance:
    video, clip = row.text("video_id").strip(), row.text("clip_id").strip()
    names = [f"{stem}{suffix}" for stem in (clip, clip.zfill(4)) for suffix in SUFFIXES]
    name = next((name for name in names if name in found.get(video, ())), f"{clip}.mp4")
    annotation = row.text("annotation").strip().lower()
    return Utterance(
        id=f"{video}_{clip}",
        audio=f"Raw/{video}/{name}" if found else "",
        text=row.text("text"),
        label=annotation,
        dialogue=video,
        split=row.text("mode").strip(),
        valence=row.number("label"),
        sentiment=annotation,
    )


def _with_turns(utterances: list[Utterance]) -> list[Utterance]:
    """Numbers the clips of each video in the order of their ids, which are numbers."""
    clips: dict[str, list[str]] = defaultdict(list)
    for utterance in utterances:
        clips[utterance.dialogue].append(utterance.id)
    turns = {
        name: turn
        for ids in clips.values()
        for turn, name in enumerate(sorted(ids, key=lambda name: (len(name), name)))  # 2 before 10
    }
    return [replace(utterance, turn=turns[utterance.id]) for utterance in utterances]
