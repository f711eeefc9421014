"""MELD: 13,708 turns of the series Friends in 1,432 dialogues, as video clips.

Source: Poria et al., 2019, arXiv:1810.02508, https://affective-meld.github.io. Nothing is downloaded here.
Expects: train_sent_emo.csv, dev_sent_emo.csv and test_sent_emo.csv in ROOT or below, and clips dia0_utt0.mp4 (or wav,
flac) in folders that name their split: those of the release or of a conversion.
Labels: the emotion in lower case; the sentiment beside it. Speaker: as published. Text: as published, quotes repaired.
Ids: dialogues are numbered anew in every split, so train_dia0_utt0. Turn: the place in the dialogue; numbers have gaps.
Times: none, since every turn has a clip of its own. Left out: the clips final_videos_test* of the test archive.

The clips of MELD: files named after their turn, in folders named after their split.

The archives unpack to train_splits, dev_splits_complete and output_repeated_splits_test; conversions are called
train_audio, test_wav, valid and the like. Whatever a folder is called, the deepest one that names a split decides.

The test archive also holds 132 clips final_videos_test*, which by their name are those of no turn. Some users hold them
to be the better cut of the turns they name; here the clip of a turn is the one of its name.
"""

import csv
import io
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cache.corpus_facts import MELD_UTTERANCES, broken_clips
from cache.errors import MmerError
from cache.utterance import Utterance
from featurize.corpora.base import CorpusReading

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
TREE = "{train,dev,test}_sent_emo.csv and train_splits/, dev_splits_complete/, output_repeated_splits_test/, any depth"
COLUMNS = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID")
_NUMBER = re.compile(r"[0-9]{1,9}")


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


class MeldRow(NamedTuple):
    """What a table says of one turn."""

    turn: ClipName
    text: str
    speaker: str
    emotion: str
    sentiment: str


def _leftovers() -> dict[int, str]:
    """Lists what undecoded cp1252 became, code point by code point, and what it was meant to be."""
    meant = {}
    for byte in range(0x80, 0x100):
        character = bytes([byte]).decode("cp1252", "ignore")
        if character:  # five bytes mean nothing there; they are left to the cleaning of texts
            meant[0xDC00 + byte] = character  # the bare byte, as surrogateescape gives it
            if byte < 0xA0:
                meant[byte] = character  # taken for latin-1 by somebody and saved as UTF-8
    return meant


CP1252: Mapping[int, str] = _leftovers()


def read_meld(root: Path) -> CorpusReading:
    """Reads the three tables and finds the clips; the clips themselves are not looked at.

    Args:
        root: any folder above the tables and the clips.

    Returns:
        All turns by split, as the tables list them; a turn without a clip names the file where it would be.

    Raises:
        MmerError: if there is no table, one cannot be read or lacks a column, or a clip is there twice.
    """
    # macOS puts a ._NAME beside every NAME on foreign disks
    files = [path.relative_to(root) for path in sorted(root.rglob("*")) if not path.name.startswith("._")]
    tables, notes = _tables(files, root)
    clips, clip_notes = find_clips(files, root)
    rows: list[MeldRow] = []
    for split, table in tables.items():
        found, row_notes = _rows(root / table, split)
        rows += found
        notes += [*row_notes, *_split_notes(split, len(found), clips)]
    spare = sorted(clips.keys() - {row.turn for row in rows})
    notes += [*clip_notes, *skipped_note([clips[turn].as_posix() for turn in spare], "that no row is of")]
    return CorpusReading(root=root, utterances=_utterances(rows, clips), notes=notes, defects=broken_clips("meld"))


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


def _tables(files: Sequence[Path], root: Path) -> tuple[dict[str, Path], list[str]]:
    """Returns split -> its table, the one nearest to the root."""
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
            notes.append(f"{found[0]} is read, {others[0]} is another one")
    if not tables:
        raise MmerError(f"no train_sent_emo.csv, dev_sent_emo.csv or test_sent_emo.csv in {root}; expected: {TREE}")
    return tables, notes


def _bytes(table: Path) -> bytes:
    try:
        return table.read_bytes()
    except OSError as error:
        raise MmerError(f"cannot read {table}: {error.strerror}") from error


def _rows(table: Path, split: str) -> tuple[list[MeldRow], list[str]]:
    """Returns the turns of a table, and what was noticed about rows that are none."""
    text = _bytes(table).decode("utf-8-sig", "surrogateescape").translate(CP1252)
    reader = csv.DictReader(io.StringIO(text, newline=""))
    lacking = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if lacking:
        raise MmerError(f"{table} has no column {', '.join(lacking)}; the tables of the release have")
    rows, unread = [], []
    try:
        for line in reader:
            row = _row(line, split)
            if row:
                rows.append(row)
            else:
                unread.append(reader.line_num)
    except csv.Error as error:
        raise MmerError(f"cannot read {table}: {error} at line {reader.line_num}; take that of the release") from error
    once = list(dict.fromkeys(rows))
    notes = [f"{len(unread)} rows of {table.name} cannot be read (first: line {unread[0]})"] if unread else []
    if len(once) < len(rows):
        notes.append(f"{len(rows) - len(once)} rows of {table.name} stand there twice: taken once")
    return once, notes


def _row(line: Mapping[Any, Any], split: str) -> MeldRow | None:
    """Reads one row, or gives None for one that has too few cells, too many, or no numbers where they belong."""
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
    places = places_of(clips)
    utterances = []
    for turn, text, speaker, emotion, sentiment in rows:
        place = places[turn.split]
        dialogue = f"{turn.split}_dia{turn.dialogue}"
        utterance = Utterance(
            id=f"{dialogue}_utt{turn.number}",
            audio=clips.get(turn, place.with_name(turn.clip + place.suffix)).as_posix(),
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
        notes.append(f"no clip of {split} found, its turns have text alone")
    return notes
