"""The clips of MELD: files named after their turn, in folders named after their split.

The archives unpack to train_splits, dev_splits_complete and output_repeated_splits_test; conversions are called
train_audio, test_wav, valid and the like. Whatever a folder is called, the deepest one that names a split decides.

The test archive also holds 132 clips final_videos_test*, which by their name are those of no turn. Some users hold them
to be the better cut of the turns they name; here the clip of a turn is the one of its name.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cache.errors import MmerError

# Split -> where the archives of the release unpack its clips.
RELEASED: Mapping[str, str] = {
    "train": "train_splits",
    "dev": "dev_splits_complete",
    "test": "output_repeated_splits_test",
}
SUFFIXES = (".wav", ".flac", ".mp4")  # what somebody converted goes before what was released
OTHER_CUT = "final_videos_test"

_NAME = re.compile(r"(?:(?P<split>train|dev|test)_)?dia(?P<dialogue>\d+)_utt(?P<number>\d+)", re.IGNORECASE)
_WORDS = r"(?P<train>train(?:ing)?)|(?P<dev>dev|val(?:id(?:ation)?)?)|(?P<test>test(?:ing)?)"
_SPLIT_WORD = re.compile(rf"(?<![a-z])(?:{_WORDS})(?![a-z])")


class ClipName(NamedTuple):
    """Names a turn the way its clip is named."""

    split: str
    dialogue: int
    number: int

    @property
    def clip(self) -> str:
        """Name of its clip, without a suffix."""
        return f"dia{self.dialogue}_utt{self.number}"


def find_clips(files: Sequence[Path], root: Path) -> tuple[dict[ClipName, Path], list[str]]:
    """Finds the clip of every turn, wav before flac before mp4, and says which files were skipped.

    Args:
        files: below the root and relative to it, sorted.
        root: folder of the corpus.

    Raises:
        MmerError: if a turn has two clips of one kind.
    """
    found: dict[tuple[ClipName, int], list[Path]] = defaultdict(list)
    homeless = []
    for path in files:
        name, suffix = _NAME.fullmatch(path.stem), path.suffix.lower()
        if not name or suffix not in SUFFIXES or not (root / path).is_file():
            continue
        split = (name["split"] or _split_of(path.parent)).lower()
        if split:
            turn = ClipName(split, int(name["dialogue"]), int(name["number"]))
            found[turn, SUFFIXES.index(suffix)].append(path)
        else:
            homeless.append(path.as_posix())
    _refuse_copies(list(found.values()), root)
    other_cuts = [path.as_posix() for path in files if path.name.startswith(OTHER_CUT)]
    notes = [
        *skipped_note(homeless, "whose folders name no split"),
        *skipped_note(other_cuts, "that are another cut of a test clip"),
    ]
    # the suffix that counts most is written last
    return {turn: found[turn, rank][0] for turn, rank in sorted(found, reverse=True)}, notes


def places_of(clips: Mapping[ClipName, Path]) -> dict[str, Path]:
    """Gives a clip of each split, its first: where others of it would be, and of what kind."""
    released = {split: Path(folder, "dia0_utt0.mp4") for split, folder in RELEASED.items()}
    return released | {turn.split: clips[turn] for turn in sorted(clips, reverse=True)}


def skipped_note(names: Sequence[str], kind: str) -> list[str]:
    """Says in one line how many clips of a kind were skipped; nothing if none was."""
    return [f"skipped {len(names)} clips {kind} (first: {names[0]})"] if names else []


def _split_of(folder: Path) -> str:
    """Finds the split that a folder is of: the deepest part of its path that names just one; empty if none does."""
    for part in reversed(folder.parts):
        named = {split for match in _SPLIT_WORD.finditer(part.lower()) for split in RELEASED if match[split]}
        if len(named) == 1:
            return named.pop()
    return ""


def _refuse_copies(found: Sequence[Sequence[Path]], root: Path) -> None:
    copies = [paths for paths in found if len(paths) > 1]
    if copies:
        raise MmerError(
            f"{len(copies)} clips of meld are in {root} more than once (first: {copies[0][0]} and {copies[0][1]}), "
            "and which one is meant cannot be told; point --root at a folder that holds one set, beside the tables"
        )
