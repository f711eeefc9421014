"""Corpora whose file names carry the labels: one reader for all, and a literal table of file-name fields for each."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cache.errors import MmerError
from cache.utterance import Utterance
from featurize.corpora.base import CorpusReading, with_texts
from featurize.corpora.folders import files_below

SUFFIXES = (".wav", ".flac")
_LISTED = 5  # number of impossible names that a note lists


@dataclass(frozen=True, kw_only=True)
class FileNames:
    """The file names of a corpus, and the columns that their parts fill.

    Attributes:
        corpus: name of the corpus.
        tree: expected files below the root, in one clause.
        pattern: a file name without its suffix, behind `folders` names of folders; the groups are codes.
        columns: column of utterances, or own column -> its group, and code -> value: None for the code itself, a text
            with ``{}`` for a text around the code. A code without a value is impossible.
        skipped: group -> code -> the kind of such files, which are no utterances; empty for those that are.
        folders: number of folders whose names belong to the file name.
        identity: id of an utterance, from the names of groups in braces; empty for the file name.
    """

    corpus: str
    tree: str
    pattern: re.Pattern[str]
    columns: Mapping[str, tuple[str, Mapping[str, str] | str | None]]
    skipped: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    folders: int = 0
    identity: str = ""

    def codes(self, path: Path) -> Mapping[str, str] | None:
        """Returns the codes of a file name by group; None if it is not that of a recording."""
        match = self.pattern.fullmatch("/".join(path.with_suffix("").parts[-(self.folders + 1) :]))
        return {name: code or "" for name, code in match.groupdict().items()} if match else None

    def is_possible(self, codes: Mapping[str, str]) -> bool:
        """Returns True if every code has a value."""
        tables = [*self.columns.values(), *self.skipped.items()]
        return all(codes[group] in values for group, values in tables if isinstance(values, Mapping))

    def utterance(self, codes: Mapping[str, str], audio: Path) -> Utterance:
        """Builds the utterance of a recording, whose path is relative to the root."""
        texts: dict[str, str] = {}
        for column, (group, values) in self.columns.items():
            code = codes[group]
            if isinstance(values, str):
                texts[column] = values.format(code)
            else:
                texts[column] = code if values is None else values[code]
        return with_texts(Utterance(id=self.identity.format_map(codes) or audio.stem, audio=audio.as_posix()), texts)


def read_file_names(root: Path, names: FileNames) -> CorpusReading:
    """Reads the labels of all recordings below a folder from their names, in sorted order.

    Args:
        root: any folder above the recordings.
        names: how the recordings are named.

    Returns:
        The recordings; notes count the files with an impossible code, of another kind or of another format.

    Raises:
        MmerError: if no recording is found.
    """
    # On disks of other systems, macOS adds a ._NAME to every NAME; such a name does not match.
    files, folder_notes = files_below(root)
    coded = [(path, codes) for path in files if (codes := names.codes(path))]
    impossible = [path.name for path, codes in coded if not names.is_possible(codes)]
    kinds: Counter[str] = Counter()
    utterances = []
    others = 0
    for path, codes in coded:
        if not names.is_possible(codes):
            continue
        kind = next(filter(None, (kinds_of[codes[group]] for group, kinds_of in names.skipped.items())), "")
        if kind:
            kinds[kind] += 1
        elif path.suffix.lower() not in SUFFIXES:
            others += 1
        else:
            utterances.append(names.utterance(codes, path.relative_to(root)))
    notes = [
        *_note_impossible(impossible),
        *(f"skipped {count} files {kind}" for kind, count in kinds.items()),
        *([f"skipped {others} files that are neither wav nor flac"] if others else []),
        *folder_notes,
    ]
    if not utterances:
        raise MmerError("; ".join([f"no recording of {names.corpus} found in {root}; expected: {names.tree}", *notes]))
    return CorpusReading(root=root, utterances=utterances, notes=notes)


def _note_impossible(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return [f"skipped {len(names)} files with an impossible code: {', '.join(names[:_LISTED])}{more}"]
