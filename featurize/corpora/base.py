"""What every corpus reader returns, and the checks that hold for all of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cache.corpus_facts import Defect
from cache.errors import MmerError
from cache.utterance import Utterance


@dataclass(frozen=True, kw_only=True)
class CorpusReading:
    """The utterances of a corpus folder, in the order of the corpus.

    Attributes:
        root: folder that the utterances' ``audio`` paths are relative to.
        utterances: all of them, labels as published.
        notes: what the reader noticed about the folder as a whole, one line each.
        remarks: utterance id -> what the reader noticed about that utterance.
        defects: utterance id -> what is known to be wrong with its recording in every copy of the release.
    """

    root: Path
    utterances: Sequence[Utterance]
    notes: Sequence[str] = ()
    remarks: Mapping[str, str] = field(default_factory=dict)
    defects: Mapping[str, Defect] = field(default_factory=dict)


def check_reading(reading: CorpusReading, corpus: str) -> None:
    """Refuses a corpus that has no utterance or has two of one id.

    Raises:
        MmerError: in either case, with the root or the first duplicate ids.
    """
    if not reading.utterances:
        raise MmerError(f"no utterance of {corpus} found in {reading.root}")
    counts = Counter(utterance.id for utterance in reading.utterances)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        files = [utterance.audio for utterance in reading.utterances if utterance.id == twice[0]]
        raise MmerError(
            f"duplicate id {twice[0]} in {corpus} ({', '.join(files[:2])}; {len(twice)} ids occur more than once); "
            "every utterance needs an id of its own: rename or remove the copies"
        )
