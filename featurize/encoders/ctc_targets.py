"""CTC targets: the characters of a transcript in the 32-symbol vocabulary of wav2vec 2.0, or in a table of the user."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from cache.rows import Rows
from cache.stream import StreamSpec
from cache.transcripts import VARIANT, AsrReading
from featurize.encoders.base import InputPlan
from featurize.inputs.ctc_vocabulary import STANDARD, CtcVocabulary
from featurize.inputs.transcript import Turn, spoken

SYMBOL_COUNT = "symbol_count"  # recorded for a table of the user; without it there are 32


class CharacterTargets:
    """Encoder that spells transcripts; it has no weights and needs no device.

    Args:
        event_tags: ``strip`` or ``keep``.
        versions: library versions, recorded in the spec.
        transcripts: transcripts by ASR that it spells; None for the corpus' own.
        vocabulary: symbols of the targets.
    """

    def __init__(
        self,
        *,
        event_tags: str,
        versions: Mapping[str, str],
        transcripts: AsrReading | None = None,
        vocabulary: CtcVocabulary = STANDARD,
    ) -> None:
        self._event_tags = event_tags
        self.vocabulary = vocabulary
        count = {} if vocabulary.standard else {SYMBOL_COUNT: len(vocabulary.symbols)}
        self.start_weights: Mapping[str, npt.NDArray[Any]] = {}
        self.specs = [
            StreamSpec(
                name=f"ctc.chars{VARIANT if transcripts else ''}",
                role="chars",
                source="wav2vec2 characters" if vocabulary.standard else "table of characters",
                shape=(1,),
                dtype="uint8",
                preprocessing={
                    "event_tags": event_tags,
                    "symbols": "".join(vocabulary.symbols),
                    **count,
                    **(transcripts.marks if transcripts else {}),
                },
                versions=versions,
            )
        ]

    def plan(self, sizes: Sequence[Turn]) -> list[InputPlan]:
        """Counts characters; a transcript without any gets no row and is not a failure."""
        words = [self.words(turn) for turn in sizes]
        vocabulary = self.vocabulary
        return [InputPlan(rows=(len(vocabulary.ids(text)),), cost=1, note=vocabulary.note(text)) for text in words]

    def encode(self, inputs: Sequence[Turn], *, precise: bool = False) -> list[tuple[Rows, ...]]:
        """Returns the symbol indices of each transcript, uint8 ``(characters, 1)``."""
        return [(self.vocabulary.ids(self.words(turn))[:, None],) for turn in inputs]

    def words(self, turn: Turn) -> str:
        """Returns the spoken words of a transcript."""
        return spoken(turn.text, self._event_tags).text
