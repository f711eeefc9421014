"""Manifest: the user's own corpus as a table of utterances in CSV, TSV or JSON lines.

Expects: the column ``id`` and one of ``audio`` and ``text``; cells may be empty. Optional: all other `COLUMNS`. With
``label`` and neither of the two, the corpus is for features that are imported.
Audio: paths relative to the folder of the manifest, which is the root of the corpus.
Text: unchanged. Other cells of text have no white space around them, and a whole number is one name however it is
written: speaker 1.0 is speaker 1.
Absent: null and NaN of JSON, and the words by which pandas writes a missing value; a note counts these.
"""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from shlex import quote

from cache.errors import MmerError
from cache.near_names import near_names
from cache.utterance import Utterance
from featurize.corpora.base import CorpusReading
from featurize.corpora.columns import NO_CHOICE, ColumnChoice
from featurize.corpora.table import DELIMITERS, JSON_SUFFIXES, Row, line_error, read_rows

MEDIA = ("audio", "text")  # one of the two is needed, unless features are imported
LABEL = "label"  # a table of labels alone needs none of the two
USUAL = ("id", *MEDIA, "label", "speaker", "session")
TIMES_AND_RATINGS = ("start_s", "end_s", "valence", "activation", "dominance")
COLUMNS = (*USUAL, "dialogue", "turn", "split", "style", "channel", *TIMES_AND_RATINGS, "sentiment", "votes")
NAMES = frozenset({"speaker", "session", "dialogue"})  # columns in which 1.0 is 1
FOLD = "fold"  # column that training reads from the table itself
WHOLE = re.compile(r"([0-9]+)\.0+")

# Column -> other names of it in public tables, in lower case.
ALSO_CALLED: Mapping[str, tuple[str, ...]] = {
    "id": ("name", "key", "uid", "utt", "utt_id", "utterance_id", "segment_id", "wav_id"),
    "audio": ("file", "path", "filename", "file_name", "filepath", "audio_path", "audio_file", "wav", "recording"),
    "text": ("transcript", "transcription", "sentence", "utterance", "transcripts", "words"),
    "label": ("emotion", "emo", "class", "target", "category", "labels"),
    "speaker": ("speaker_id", "spk", "spk_id", "actor", "subject", "participant", "client_id"),
    "session": ("session_id",),
    "dialogue": ("dialog", "dialogue_id", "conversation", "conversation_id"),
    "turn": ("turn_id", "utterance_index"),
    "split": ("subset", "set", "partition"),
    "start_s": ("start", "start_time", "onset", "begin"),
    "end_s": ("end", "end_time", "offset", "stop"),
    "activation": ("arousal",),
}


def read_manifest(
    path: Path, *, allow_outside: bool = False, encoding: str | None = None, columns: ColumnChoice = NO_CHOICE
) -> CorpusReading:
    """Reads a table of utterances; recordings are not opened.

    Args:
        path: a .csv or .tsv file with a header, or a .jsonl, .json or .ndjson file with one object per line.
        allow_outside: accept recordings outside the manifest's folder.
        encoding: encoding of the file; None for UTF-8, or UTF-16 with a byte order mark.
        columns: columns with other names, and further columns to keep.

    Returns:
        One utterance per row, in the order of the file; notes list unknown columns and count absent values.

    Raises:
        MmerError: if the file cannot be read, lacks a needed column or has an invalid row; the message states the line.
    """
    check_manifest(path)
    rows = read_rows(path, known=[*COLUMNS, *map(str.lower, columns.named)], encoding=encoding)
    return read_table(path, rows, allow_outside=allow_outside, columns=columns)


def read_table(
    path: Path, rows: Iterable[Row], *, allow_outside: bool = False, columns: ColumnChoice = NO_CHOICE
) -> CorpusReading:
    """Reads the records of a table as utterances.

    Args:
        path: the table; recordings are relative to its folder.
        rows: its records, after the header if its ending is that of a table with a header.
        allow_outside: accept recordings outside that folder.
        columns: columns with other names, and further columns to keep.

    Returns:
        One utterance per row, in their order; notes list unknown columns and count absent values.

    Raises:
        MmerError: if the table lacks a needed column or has an invalid row; the message states the line.
    """
    found: dict[str, None] = {}  # a set that keeps the order of the file
    absent: Counter[str] = Counter()
    utterances = []
    for row in _records(path, rows, columns, found):
        absent.update(name for name in COLUMNS if isinstance(row.cells.get(name), str) and row.is_absent(name))
        utterances.append(_utterance(row, columns.kept, allow_outside=allow_outside))
    if not utterances:
        raise MmerError(
            f"{path}: no utterance found; expected the columns id, audio or text, and any of "
            f"{', '.join(USUAL[3:])}, and one row per utterance"
        )
    unknown = [name for name in found if name not in COLUMNS and name not in columns.kept]
    notes = [_unknown_note(unknown, found)] if unknown else []
    if absent:
        cells = ", ".join(f"{count} of {name}" for name, count in absent.items())
        notes.append(f"cells with the word nan are read as empty: {cells}")
    return CorpusReading(root=path.parent, utterances=utterances, notes=notes)


def check_manifest(path: Path) -> None:
    """Checks that a path is a file with an ending of a manifest.

    Raises:
        MmerError: if it is not.
    """
    known = (*DELIMITERS, *JSON_SUFFIXES)
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "is not a regular file" if path.exists() else "does not exist"
        raise MmerError(f"the manifest {path} {problem}; expected a file ({', '.join(known)})")
    if path.suffix.lower() not in known:
        raise MmerError(f"the manifest {path} has an unknown ending {path.suffix!r}; known: {', '.join(known)}")


def _records(path: Path, rows: Iterable[Row], columns: ColumnChoice, found: dict[str, None]) -> Iterator[Row]:
    """Yields the rows of utterances with renamed columns; adds the names of their columns to `found`."""
    is_header = path.suffix.lower() in DELIMITERS
    first = 1
    named: dict[str, None] = {}  # as in the table
    for original in rows:
        named |= dict.fromkeys(original.cells)
        if is_header:
            columns.check_found(named, path)
        row = replace(original, cells=columns.cells(original.cells)) if columns.renamed else original
        first = row.line if not found else first
        found |= dict.fromkeys(row.cells)
        if is_header or "id" not in row.cells:
            _check_columns(path, row.line, row.cells)
        if not is_header:
            yield row
        is_header = False
    columns.check_found(named, path)
    if found:
        _check_columns(path, first, found)


def _listed(names: Collection[str]) -> str:
    return ", ".join(name if name.isprintable() and name else ascii(name) for name in names) or "none"


def _check_columns(path: Path, line: int, found: Collection[str]) -> None:
    missing = [name for name in ("id",) if name not in found]
    wanted = [*missing]
    named = {*_near_names([name for name in found if name not in COLUMNS], found).values()}
    # a table of labels alone is for imported features, unless a column may be that of recordings or texts
    if not set(MEDIA) & {*found} and (LABEL not in found or named & set(MEDIA)):
        missing.append("audio or text (one of the two)")
        wanted += MEDIA
    if missing:
        near = _near_names([name for name in found if name not in COLUMNS], found)
        renames = [f"{name} to {meant}" for name, meant in near.items() if meant in wanted]
        options = " ".join(f"--column {quote(f'{meant}={name}')}" for name, meant in near.items() if meant in wanted)
        way_out = "add them; their cells may be empty (null in JSON)"
        if renames:
            way_out = f"rename {', '.join(renames)}, or pass {options} to mmer-featurize"
        if len(found) == 1 and re.search("[|:,]", next(iter(found))):
            way_out = "separate columns by commas, semicolons or tabs"
        problem = f"missing columns {', '.join(missing)}; found {_listed(found)}; {way_out}"
        raise line_error(path, line, problem)


def _near_names(unknown: Collection[str], found: Collection[str]) -> dict[str, str]:
    """Returns unknown column -> the column that it probably is, of those that the table lacks."""
    lacking = [name for name in COLUMNS if name not in found]
    called = {other: name for name in lacking for other in (name, *ALSO_CALLED.get(name, ()))}
    near: dict[str, str] = {}
    for name in unknown:
        plain = re.sub(r"[\s-]+", "_", name.strip().lower())
        guess = called.get(plain) or next(iter(near_names(plain, lacking)), "")
        if guess and guess not in near.values():
            near[name] = guess
    return near


def _unknown_note(unknown: Collection[str], found: Collection[str]) -> str:
    if [*unknown] == [FOLD]:
        return "the column fold is for training: mmer-train --folds with this table"
    meant = [f"{name} for {guess}" for name, guess in _near_names(unknown, found).items()]
    return f"unknown columns are ignored: {_listed(unknown)}" + (f" (meant {', '.join(meant)}?)" if meant else "")


def _utterance(row: Row, kept: Iterable[str], *, allow_outside: bool) -> Utterance:
    if not row.text("id").strip():
        raise row.error("the id is empty; every utterance needs a unique id")
    try:
        return Utterance(
            id=row.text("id"),
            audio=_audio(row, allow_outside=allow_outside),
            start_s=row.number("start_s"),
            end_s=row.number("end_s"),
            text=row.text("text"),
            label=_name(row, "label"),
            speaker=_name(row, "speaker"),
            session=_name(row, "session"),
            dialogue=_name(row, "dialogue"),
            turn=row.count("turn"),
            split=_name(row, "split"),
            style=_name(row, "style"),
            channel=_name(row, "channel"),
            valence=row.number("valence"),
            activation=row.number("activation"),
            dominance=row.number("dominance"),
            sentiment=_name(row, "sentiment"),
            votes=row.text("votes").strip(),
            further={name: value for name in kept if (value := _name(row, name))},
        )
    except ValueError as error:
        raise row.error(str(error)) from None


def _name(row: Row, column: str) -> str:
    """Returns a cell without white space around it, a whole number without its decimals."""
    cell = row.text(column).strip()
    whole = WHOLE.fullmatch(cell)
    return whole[1] if whole and (column in NAMES or not isinstance(row.cells[column], str)) else cell


def _audio(row: Row, *, allow_outside: bool) -> str:
    """Returns the recording's path, relative to the manifest's folder if it lies inside."""
    named = row.text("audio")
    if not named:
        return ""
    # Compares the written paths without resolving symlinks: the check guards against a table that refers to files
    # outside its folder, while links to recordings on another disk are common and the user's choice.
    folder = os.path.normpath(row.path.parent.absolute())
    target = PurePath(os.path.normpath(Path(folder, named)))
    if target.is_relative_to(folder):
        return target.relative_to(folder).as_posix()
    if not allow_outside:
        raise row.error(f"audio {named!r} lies outside the manifest's folder; pass --allow-outside to accept it")
    return PurePath(os.path.normpath(named)).as_posix()
