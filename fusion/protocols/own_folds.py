"""Folds of one's own: a table of utterance ids and folds, or the folds that EmoBox publishes as JSON lines.

A table has the columns ``id`` and ``fold``: each utterance is test in the fold that it names and training data in all
others. With a column ``subset`` (train, dev, test) a row is one utterance in one fold, and an utterance has a row for
each fold. A table with ``id`` and ``subset`` alone is a single fold. Other columns are ignored, so the table may be the
manifest of the corpus. Several test subsets (``test1``, ``test2``) are scored apart.

EmoBox: ``DIR/fold_N/DATASET_train_fold_N.jsonl``, ``..._valid_...`` and ``..._test_...`` (Ma et al., 2024,
arXiv:2406.07162; https://github.com/emo-box/EmoBox, data/). Ids are the keys without the prefix ``DATASET-``.

Where a fold has no development subset, dev is whole speakers outside test if test is speaker-independent, else a tenth
of the dialogues. The promises of the folds are what they keep: they are computed and printed.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from cache.errors import MmerError
from cache.files import check_regular
from cache.packs.base import read_json, read_lines, required_field
from cache.utterance import SUBSET_NAMES, Utterance
from fusion.arrays import Indices
from fusion.fingerprint import digest_of
from fusion.protocols.dev import (
    DIALOGUES,
    SPEAKERS,
    Division,
    dev_words,
    split_off_dev_by_dialogue,
    split_off_dev_by_speaker,
)
from fusion.protocols.folds import (
    DEV,
    TEST,
    TRAIN,
    Fold,
    UtteranceTable,
    subset_of,
)

OWN = "folds"  # name of the protocol of a run with folds of one's own
EMOBOX = "emobox:"  # prefix of --folds for a folder of EmoBox
ONE_FOLD = "1"  # name of the only fold of a table without the column fold
NAMED = 3  # ids that a message names
EXPECTED = "expected the columns id,fold or id,fold,subset (train, dev, test)"
_EMOBOX_FILE = re.compile(r".*_(train|valid|dev|test)_fold_\w+\.(?:jsonl|json)")
_DELIMITERS = ",;\t"


@dataclass(frozen=True, kw_only=True)
class OwnFolds:
    """Folds that a user defines.

    Attributes:
        source: file or folder that they were read from, as on the command line.
        folds: fold -> utterance id -> its subset: ``train``, ``dev``, ``test`` or a numbered test subset.
    """

    source: str
    folds: Mapping[str, Mapping[str, str]]

    def __post_init__(self) -> None:
        for name, subsets in self.folds.items():
            kinds = {subset_of(subset) for subset in subsets.values()}
            for needed in (TEST, TRAIN):
                if needed not in kinds:
                    raise MmerError(f"{self.source}: fold {name} has no {needed} utterance; every fold needs some")

    @cached_property
    def digest(self) -> str:
        """Digest of the folds, independent of the file's name, its other columns and the order of its rows."""
        return digest_of({name: sorted(subsets.items()) for name, subsets in self.folds.items()})

    def check_ids(self, ids: Sequence[str]) -> list[str]:
        """Checks that a cache has every utterance; returns a note on utterances of the cache that are in no fold.

        Args:
            ids: ids of all utterances of the cache.

        Raises:
            MmerError: if an id is unknown.
        """
        held, listed = set(ids), {name for subsets in self.folds.values() for name in subsets}
        if unknown := sorted(listed - held):
            more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
            raise MmerError(
                f"{self.source}: {len(unknown)} of {len(listed)} ids are not in the cache "
                f"({', '.join(unknown[:NAMED])}{more}); remove these rows, or pass the cache of this corpus"
            )
        missing = len(held - listed)
        return [f"{missing} of {len(held)} utterances of the cache are in no fold of {self.source}"] if missing else []

    def split(self, table: UtteranceTable, seed: int) -> Iterator[Fold]:
        """Yields the folds, restricted to the utterances that take part; draws dev where a fold has none."""
        for name, subsets in self.folds.items():
            cells = np.array([subsets.get(utterance, "") for utterance in table.ids.tolist()], dtype=np.str_)
            kinds = np.array([subset_of(cell) for cell in cells.tolist()], dtype=np.str_)
            train, dev, test = (np.flatnonzero(kinds == kind) for kind in (TRAIN, DEV, TEST))
            if not len(train) or not len(test):
                raise MmerError(
                    f"{self.source}: fold {name} has no {TEST if len(train) else TRAIN} utterance with a class of the "
                    "label set; change the folds, or --labels and --only"
                )
            given = DEV in subsets.values()
            division, unit = ((train, dev), "") if given else _draw_dev(table, train, test, seed)
            parts = {cell: np.flatnonzero(cells == cell) for cell in sorted({*cells[test].tolist()})}
            yield table.fold(name, division, test, dev_of=unit, test_parts=parts)

    def promise(self, folds: Sequence[Fold], utterances: Sequence[Utterance]) -> str:
        """Returns what the folds keep, in words.

        Args:
            folds: folds that `split` made.
            utterances: all utterances of the cache.
        """
        others = [(fold, np.concatenate([fold.train, fold.dev])) for fold in folds]
        apart = all(_apart(utterances, "speaker", fold.test, other) for fold, other in others)
        shared = any(
            _known(utterances, "dialogue", fold.test) & _known(utterances, "dialogue", other) for fold, other in others
        )
        promises = [
            f"{len(folds)} fold{'s' * (len(folds) > 1)} of {self.source} (digest {self.digest[:8]})",
            "test shares no speaker with train or dev" if apart else "not speaker-independent",
            *(["test shares dialogues with train or dev"] if shared else []),
            dev_words(folds, utterances) or "dev is that of the file",
        ]
        return "; ".join(promises)


def read_own_folds(text: str) -> OwnFolds:
    """Reads the value of ``--folds``: a table, or ``emobox:DIR``.

    Raises:
        MmerError: if the file cannot be read, a column is missing, an id occurs twice in a fold, a subset is unknown,
            or a fold has no test or training utterance.
    """
    if text.startswith(EMOBOX):
        return _read_emobox(Path(text.removeprefix(EMOBOX)))
    return _read_table(Path(text))


def _read_table(path: Path) -> OwnFolds:
    rows = _rows(path)
    header = [cell.lower() for cell in rows[0][1]] if rows else []
    if "id" not in header or not {"fold", "subset"} & {*header}:
        near = " (pass the table with the header in its first line)" if len(header) < 2 else ""
        raise MmerError(f"{path}: the columns are {', '.join(header) or 'none'}; {EXPECTED}{near}")
    column = {name: header.index(name) for name in ("id", "fold", "subset") if name in header}
    folds: dict[str, dict[str, str]] = {}
    seen: dict[tuple[str, str], int] = {}
    for line, cells in rows[1:]:
        values = {name: cells[index] if index < len(cells) else "" for name, index in column.items()}
        fold, subset, name = values.get("fold", ONE_FOLD), values.get("subset", TEST), values["id"]
        if empty := [what for what in column if not values[what]]:
            raise MmerError(f"{path} line {line}: the cell of {empty[0]} is empty; {EXPECTED}")
        # without subsets, each utterance is test in one fold: a second row is a contradiction, whatever its fold
        key = (name, fold if "subset" in column else "")
        if key in seen:
            where = f" in fold {fold}" if "subset" in column else ""
            raise MmerError(f"{path} line {line}: id {name} occurs twice{where} (first in line {seen[key]}); keep one")
        seen[key] = line
        if not subset_of(subset):
            allowed = f"{', '.join(dict.fromkeys(SUBSET_NAMES.values()))}, or test1, test2, ... for several"
            raise MmerError(f"{path} line {line}: unknown subset {subset!r}; allowed: {allowed}")
        kind = subset_of(subset)
        folds.setdefault(fold, {})[name] = subset.lower() if kind == TEST else kind
    if not folds:
        raise MmerError(f"{path} has no row below its header; {EXPECTED}")
    if "subset" not in column:
        if len(folds) == 1:
            raise MmerError(f"{path}: all ids are in fold {next(iter(folds))}, none is left for train; name two folds")
        everyone = [name for members in folds.values() for name in members]
        folds = {fold: dict.fromkeys(everyone, TRAIN) | members for fold, members in sorted(folds.items())}
    return OwnFolds(source=str(path), folds=folds)


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Reads the rows of a table that are not empty, each with the number of its line."""
    try:
        check_regular(path)
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise MmerError(f"cannot read the folds {path} ({why}); expected a UTF-8 table with id,fold") from error
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise MmerError(f"{path} line {reader.line_num}: {error}; expected a table with id,fold") from error
    return [(line, [cell.strip() for cell in row]) for line, row in rows]


def _read_emobox(folder: Path) -> OwnFolds:
    """Reads EmoBox's folds of a dataset; JSON lines are preferred to the same records by key."""
    folds: dict[str, dict[str, str]] = {}
    for fold_folder in sorted(folder.glob("fold_*")):
        files = {
            match[1]: file for file in sorted(fold_folder.iterdir()) if (match := _EMOBOX_FILE.fullmatch(file.name))
        }
        subsets = folds.setdefault(fold_folder.name.removeprefix("fold_"), {})
        for named, file in files.items():
            for name in _emobox_ids(file):
                if name in subsets:
                    raise MmerError(f"{file}: id {name} occurs twice in {fold_folder.name}; get the folds again")
                subsets[name] = SUBSET_NAMES[named]
    if not folds:
        raise MmerError(
            f"{folder} has no folder fold_1 with files such as {folder.name}_test_fold_1.jsonl; expected "
            f"--folds {EMOBOX}EmoBox/data/DATASET"
        )
    return OwnFolds(source=f"{EMOBOX}{folder}", folds=folds)


def _emobox_ids(file: Path) -> list[str]:
    if file.suffix == ".json":
        value = read_json(file)
        records = [{"key": key, **record} for key, record in value.items()] if isinstance(value, dict) else []
    else:
        records = [record for _, record in read_lines(file)]
    prefixes = {f"{record.get('dataset', '')}-" for record in records}
    prefix = next(iter(prefixes)) if len(prefixes) == 1 else ""
    return [required_field(record, "key", str, str(file)).removeprefix(prefix) for record in records]


def _draw_dev(table: UtteranceTable, rest: Indices, test: Indices, seed: int) -> tuple[Division, str]:
    """Draws dev from what is not test: speakers if test is speaker-independent, else dialogues."""
    speakers = {*table.speakers[rest].tolist()}
    apart = "" not in speakers and not speakers & {*table.speakers[test].tolist()}
    if apart and len({*table.speaker_groups[rest].tolist()}) > 1:
        return split_off_dev_by_speaker(table, rest, seed), SPEAKERS
    return split_off_dev_by_dialogue(table, rest, seed), DIALOGUES


def _apart(utterances: Sequence[Utterance], column: str, first: Indices, second: Indices) -> bool:
    """Checks that all values of a column are known in two subsets, and that they share none."""
    values = [{str(getattr(utterances[index], column)) for index in subset.tolist()} for subset in (first, second)]
    return "" not in values[0] | values[1] and not values[0] & values[1]


def _known(utterances: Sequence[Utterance], column: str, subset: Indices) -> set[str]:
    """Returns the known values of a column in a subset."""
    return {str(getattr(utterances[index], column)) for index in subset.tolist()} - {""}
