"""MELD: 13,708 turns of the series Friends in 1,432 dialogues, as video clips.

Source: Poria et al., 2019, arXiv:1810.02508, https://affective-meld.github.io. Nothing is downloaded here.
Expects: train_sent_emo.csv, dev_sent_emo.csv and test_sent_emo.csv in ROOT or below, and clips dia0_utt0.mp4 (or wav,
flac) in folders that name their split: those of the release or of a conversion.
Labels: the emotion in lower case; the sentiment likewise, in its own field. Speaker: as published. Text: as published,
quotes repaired.
Ids: dialogue numbers restart in every split, so ids have the form train_dia0_utt0. Turn: the index in the dialogue; the
published numbers have gaps.
Times: none, since every turn has its own clip.

Clips: the archives unpack to train_splits, dev_splits_complete and output_repeated_splits_test; folders of conversions
have names such as train_audio, test_wav or valid. The deepest folder whose name contains a split determines the split.

Left out: 132 clips final_videos_test* of the test archive, whose names are not those of a turn. Some users consider
them the better cut of the turns in their names; here the clip of a turn is the file with exactly its name.
"""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from cache.corpus_facts import MELD_UTTERANCES, broken_clips
from cache.errors import MmerError
from cache.utterance import Utterance
from featurize.corpora.base import CorpusReading
from featurize.corpora.folders import files_below

# Split -> folder that the release's archive unpacks its clips to.
RELEASED: Mapping[str, str] = {
    "train": "train_splits",
    "dev": "dev_splits_complete",
    "test": "output_repeated_splits_test",
}
SUFFIXES = (".wav", ".flac", ".mp4")  # converted files take precedence over the released ones
OTHER_CUT = "final_videos_test"
_NAME = re.compile(r"(?:(?P<split>train|dev|test)_)?dia(?P<dialogue>\d+)_utt(?P<number>\d+)", re.IGNORECASE)
_WORDS = r"(?P<train>train(?:ing)?)|(?P<dev>dev|val(?:id(?:ation)?)?)|(?P<test>test(?:ing)?)"
_SPLIT_WORD = re.compile(rf"(?<![a-z])(?:{_WORDS})(?![a-z])")
TREE = "{train,dev,test}_sent_emo.csv and train_splits/, dev_splits_complete/, output_repeated_splits_test/, any depth"
COLUMNS = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID")
_NUMBER = re.compile(r"[0-9]{1,9}")


class ClipName(NamedTuple):
    """A turn, identified as in the name of its clip."""

    split: str
    dialogue: int
    number: int

    @property
    def clip(self) -> str:
        """Name of the clip, without a suffix."""
        return f"dia{self.dialogue}_utt{self.number}"


def find_clips(files: Sequence[Path], root: Path) -> tuple[dict[ClipName, Path], list[str]]:
    """Finds the clip of every turn, preferring wav to flac to mp4.

    Args:
        files: all files below the root, relative to it, sorted.
        root: folder of the corpus.

    Returns:
        Turn -> its clip, relative to the root; and notes on skipped files.

    Raises:
        MmerError: if a turn has two clips of one kind.
    """
    found: dict[tuple[ClipName, int], list[Path]] = defaultdict(list)
    without_split = []
    for path in files:
        name, suffix = _NAME.fullmatch(path.stem), path.suffix.lower()
        if not name or suffix not in SUFFIXES:
            continue
        split = (name["split"] or _split_of(path.parent)).lower()
        if split:
            turn = ClipName(split, int(name["dialogue"]), int(name["number"]))
            found[turn, SUFFIXES.index(suffix)].append(path)
        else:
            without_split.append(path.as_posix())
    _check_copies(list(found.values()), root)
    other_cuts = [path.as_posix() for path in files if path.name.startswith(OTHER_CUT)]
    notes = [
        *skipped_note(without_split, "whose folders name no split"),
        *skipped_note(other_cuts, "that are another cut of a test clip"),
    ]
    # In reverse order, so that the preferred suffix overwrites the others.
    return {turn: found[turn, rank][0] for turn, rank in sorted(found, reverse=True)}, notes


def example_clips(clips: Mapping[ClipName, Path]) -> dict[str, Path]:
    """Returns split -> its first clip, which shows the folder and the suffix of missing clips."""
    released = {split: Path(folder, "dia0_utt0.mp4") for split, folder in RELEASED.items()}
    return released | {turn.split: clips[turn] for turn in sorted(clips, reverse=True)}


def skipped_note(names: Sequence[str], kind: str) -> list[str]:
    """Returns one line with the number of skipped clips; an empty list if none was skipped."""
    return [f"skipped {len(names)} clips {kind} (first: {names[0]})"] if names else []


class MeldRow(NamedTuple):
    """One row of a table: a turn, its text and its labels."""

    turn: ClipName
    text: str
    speaker: str
    emotion: str
    sentiment: str


def _cp1252_repairs() -> dict[int, str]:
    """Returns the code points that undecoded cp1252 bytes became -> the intended character."""
    repairs = {}
    for byte in range(0x80, 0x100):
        character = bytes([byte]).decode("cp1252", "ignore")
        if character:  # cp1252 leaves five bytes undefined; the text stage removes them
            repairs[0xDC00 + byte] = character  # the raw byte, as surrogateescape decodes it
            if byte < 0xA0:
                repairs[byte] = character  # the byte was decoded as latin-1 and saved as UTF-8
    return repairs


CP1252: Mapping[int, str] = _cp1252_repairs()


def read_meld(root: Path) -> CorpusReading:
    """Reads the three tables and finds the clips; clips are not opened.

    Args:
        root: any folder above the tables and the clips.

    Returns:
        All turns by split, in the order of the tables; a turn without a clip has the path that its clip would have,
        or none if there is no clip at all.

    Raises:
        MmerError: if there is no table, a table cannot be read or lacks a column, or a clip exists twice.
    """
    # On disks of other systems, macOS adds a ._NAME to every NAME.
    found_files, folder_notes = files_below(root)
    files = [path.relative_to(root) for path in found_files if not path.name.startswith("._")]
    tables, notes = _tables(files, root)
    clips, clip_notes = find_clips(files, root)
    rows: list[MeldRow] = []
    for split, table in tables.items():
        found, row_notes = _rows(root / table, split)
        rows += found
        notes += [*row_notes, *_split_notes(split, len(found), clips)]
    spare = sorted(clips.keys() - {row.turn for row in rows})
    notes += [
        *folder_notes,
        *clip_notes,
        *skipped_note([clips[turn].as_posix() for turn in spare], "without a row in the tables"),
    ]
    utterances = _utterances(rows, clips)
    if not clips:  # the tables alone: a corpus of text
        utterances = [replace(utterance, audio="") for utterance in utterances]
    return CorpusReading(root=root, utterances=utterances, notes=notes, defects=broken_clips("meld"))


def _split_of(folder: Path) -> str:
    """Returns the split in the deepest folder name that contains exactly one split, or ""."""
    for name in reversed(folder.parts):
        named = {split for match in _SPLIT_WORD.finditer(name.lower()) for split in RELEASED if match[split]}
        if len(named) == 1:
            return named.pop()
    return ""


def _check_copies(found: Sequence[Sequence[Path]], root: Path) -> None:
    copies = [paths for paths in found if len(paths) > 1]
    if copies:
        raise MmerError(
            f"{len(copies)} clips of meld are in {root} more than once (first: {copies[0][0]} and {copies[0][1]}), "
            "and the intended ones are unknown; point --root at a folder that holds the tables and one set of clips"
        )


def _tables(files: Sequence[Path], root: Path) -> tuple[dict[str, Path], list[str]]:
    """Returns split -> its table nearest to the root, and notes on missing and other tables."""
    tables, notes = {}, []
    for split in RELEASED:
        name = f"{split}_sent_emo.csv"
        found = sorted((path for path in files if path.name == name), key=lambda path: len(path.parts))
        if found:
            tables[split] = found[0]
        else:
            notes.append(f"no {name} in {root} or below: {split} is left out")
        others = [path for path in found[1:] if _bytes(root / path) != _bytes(root / found[0])]
        if others:
            notes.append(f"{found[0]} is read; {others[0]} has other content and is ignored")
    if not tables:
        raise MmerError(f"no train_sent_emo.csv, dev_sent_emo.csv or test_sent_emo.csv in {root}; expected: {TREE}")
    return tables, notes


def _bytes(table: Path) -> bytes:
    try:
        return table.read_bytes()
    except OSError as error:
        raise MmerError(f"cannot read {table}: {error.strerror}") from error


def _rows(table: Path, split: str) -> tuple[list[MeldRow], list[str]]:
    """Returns the turns of a table, and notes on unreadable and repeated rows."""
    text = _bytes(table).decode("utf-8-sig", "surrogateescape").translate(CP1252)
    reader = csv.DictReader(io.StringIO(text, newline=""))
    lacking = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if lacking:
        raise MmerError(f"{table} lacks the columns {', '.join(lacking)}; use the table of the release")
    rows, unread = [], []
    try:
        for line in reader:
            row = _row(line, split)
            if row:
                rows.append(row)
            else:
                unread.append(reader.line_num)
    except csv.Error as error:
        raise MmerError(
            f"cannot read {table}: {error} at line {reader.line_num}; use the table of the release"
        ) from error
    unique = list(dict.fromkeys(rows))
    notes = [f"{len(unread)} rows of {table.name} cannot be read (first: line {unread[0]})"] if unread else []
    if len(unique) < len(rows):
        notes.append(f"{len(rows) - len(unique)} rows of {table.name} are duplicates and are read once")
    return unique, notes


def _row(line: Mapping[Any, Any], split: str) -> MeldRow | None:
    """Reads one row; returns None if it has a wrong number of cells or a non-numeric id."""
    if None in line or None in line.values():
        return None
    text, speaker, emotion, sentiment, dialogue, number = (line[column].strip() for column in COLUMNS)
    if not (_NUMBER.fullmatch(dialogue) and _NUMBER.fullmatch(number)):
        return None
    turn = ClipName(split, int(dialogue), int(number))
    return MeldRow(turn, text, speaker, emotion.lower(), sentiment.lower())


def _utterances(rows: Sequence[MeldRow], clips: Mapping[ClipName, Path]) -> list[Utterance]:
    dialogues: dict[tuple[str, int], list[int]] = defaultdict(list)
    for turn in sorted({row.turn for row in rows}):
        dialogues[turn[:2]].append(turn.number)
    examples = example_clips(clips)
    utterances = []
    for turn, text, speaker, emotion, sentiment in rows:
        example = examples[turn.split]
        dialogue = f"{turn.split}_dia{turn.dialogue}"
        utterance = Utterance(
            id=f"{dialogue}_utt{turn.number}",
            audio=clips.get(turn, example.with_name(turn.clip + example.suffix)).as_posix(),
            text=text,
            label=emotion,
            speaker=speaker,
            dialogue=dialogue,
            turn=dialogues[turn[:2]].index(turn.number),
            split=turn.split,
            sentiment=sentiment,
        )
        utterances.append(utterance)
    return utterances


def _split_notes(split: str, rows: int, clips: Mapping[ClipName, Path]) -> list[str]:
    notes = []
    if rows != MELD_UTTERANCES[split]:
        notes.append(f"{rows} rows of {split} found, the release has {MELD_UTTERANCES[split]}")
    if not any(turn.split == split for turn in clips):
        notes.append(f"no clip of {split} found: its turns have text only")
    return notes
