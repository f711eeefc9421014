"""RAVDESS: 24 actors speak and sing two statements in eight emotions.

Source: Livingstone and Russo, 2018, doi:10.1371/journal.pone.0196391. CC BY-NC-SA 4.0; nothing is downloaded here.
Expects: ROOT/Actor_01/03-01-06-01-02-01-12.wav and so on; only the file names count, in folders of any depth.
Labels: the emotion of the file name in words. Speaker: the actor. Text: the statement. No session, no dialogue.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cache.errors import MmerError
from cache.utterance import Utterance
from featurize.corpora.base import CorpusReading
from featurize.corpora.folders import files_below

TREE = "ROOT/Actor_{01..24}/03-01-06-01-02-01-12.wav (wav or flac, folders of any depth)"
AUDIO_ONLY = "03"
CHANNELS: Mapping[str, str] = {"01": "speech", "02": "song"}
EMOTIONS: Mapping[str, str] = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
STATEMENTS: Mapping[str, str] = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
_ACTORS = frozenset(f"{actor:02d}" for actor in range(1, 25))
_TWO = frozenset({"01", "02"})
# modality, channel, emotion, intensity, statement, repetition, actor
_ALLOWED = (frozenset({"01", "02", AUDIO_ONLY}), CHANNELS, EMOTIONS, _TWO, STATEMENTS, _TWO, _ACTORS)
_CODES = re.compile(r"\d\d(?:-\d\d){6}")
_SUFFIXES = (".wav", ".flac")
_LISTED = 5  # number of impossible names that a note lists


def read_ravdess(root: Path) -> CorpusReading:
    """Reads speech and song from the file names below a folder, in sorted order.

    Args:
        root: any folder above the recordings.

    Returns:
        The audio-only recordings; notes count the files with another modality or format, or an impossible code.

    Raises:
        MmerError: if no recording is found.
    """
    # On disks of other systems, macOS adds a ._NAME to every NAME; such a name does not match.
    files, folder_notes = files_below(root)
    coded = [path for path in files if _CODES.fullmatch(path.stem)]
    possible = [path for path in coded if _is_possible(path.stem)]
    audio_only = [path for path in possible if path.stem.startswith(AUDIO_ONLY)]
    recordings = [path for path in audio_only if path.suffix.lower() in _SUFFIXES]
    notes = [
        *_note_impossible([path.name for path in coded if not _is_possible(path.stem)]),
        *_note_count(len(possible) - len(audio_only), "of another modality than 03 (audio only)"),
        *_note_count(len(audio_only) - len(recordings), "that are neither wav nor flac"),
        *folder_notes,
    ]
    if not recordings:
        raise MmerError("; ".join([f"no recording of ravdess found in {root}; expected: {TREE}", *notes]))
    utterances = [_utterance(path.stem, path.relative_to(root).as_posix()) for path in recordings]
    return CorpusReading(root=root, utterances=utterances, notes=notes)


def _is_possible(stem: str) -> bool:
    return all(code in allowed for code, allowed in zip(stem.split("-"), _ALLOWED, strict=True))


def _note_impossible(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return [f"skipped {len(names)} files with an impossible code: {', '.join(names[:_LISTED])}{more}"]


def _note_count(count: int, kind: str) -> list[str]:
    return [f"skipped {count} files {kind}"] if count else []


def _utterance(stem: str, audio: str) -> Utterance:
    _, channel, emotion, _, statement, _, actor = stem.split("-")
    return Utterance(
        id=stem,
        audio=audio,
        text=STATEMENTS[statement],
        label=EMOTIONS[emotion],
        speaker=actor,
        channel=CHANNELS[channel],
    )
