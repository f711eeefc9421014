"""Result of a corpus reader, and the checks that apply to every corpus."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cache.corpus_facts import Defect
from cache.errors import MmerError
from cache.utterance import COLUMNS, Utterance


@dataclass(frozen=True, kw_only=True)
class CorpusReading:
    """The utterances of a corpus folder, in the order of the corpus.

    Attributes:
        root: folder that the utterances' ``audio`` paths are relative to.
        utterances: all utterances, labels as published.
        notes: observations about the folder as a whole, one line each.
        remarks: utterance id -> observation about that utterance.
        defects: utterance id -> known defect of its recording in every copy of the release.
    """

    root: Path
    utterances: Sequence[Utterance]
    notes: Sequence[str] = ()
    remarks: Mapping[str, str] = field(default_factory=dict)
    defects: Mapping[str, Defect] = field(default_factory=dict)


def with_texts(utterance: Utterance, texts: Mapping[str, str]) -> Utterance:
    """Returns an utterance with further texts: in columns of every corpus by their names, else in own columns.

    Example:
        >>> added = with_texts(Utterance(id="u1"), {"label": "sad", "gender": "f", "age": ""})
        >>> added.label, added.further
        ('sad', {'gender': 'f'})
    """
    plain: dict[str, Any] = {name: text for name, text in texts.items() if name in COLUMNS}
    further = {name: text for name, text in texts.items() if name not in COLUMNS and text}
    return replace(utterance, **plain, further={**utterance.further, **further})


def check_reading(reading: CorpusReading, corpus: str) -> None:
    """Checks that a corpus has utterances and that their ids are unique.

    Raises:
        MmerError: if there is no utterance (with the root), or an id occurs twice (with the first such id).
    """
    if not reading.utterances:
        raise MmerError(f"no utterance of {corpus} found in {reading.root}")
    counts = Counter(utterance.id for utterance in reading.utterances)
    duplicates = [name for name, count in counts.items() if count > 1]
    if duplicates:
        files = [utterance.audio for utterance in reading.utterances if utterance.id == duplicates[0]]
        raise MmerError(
            f"duplicate id {duplicates[0]} in {corpus} ({', '.join(files[:2])}; "
            f"{len(duplicates)} ids occur more than once); "
            "every utterance needs a unique id: rename or remove the copies"
        )
