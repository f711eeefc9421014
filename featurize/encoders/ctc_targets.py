"""CTC targets: the characters of a transcript in the 32-symbol vocabulary of wav2vec 2.0."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from cache.rows import Rows
from cache.stream import StreamSpec
from cache.transcripts import VARIANT, AsrReading
from featurize.encoders.base import InputPlan
from featurize.inputs.transcript import CTC_SYMBOLS, Turn, ctc_ids, ctc_note, spoken


class CharacterTargets:
    """Encoder that spells transcripts; it has no weights and needs no device.

    Args:
        event_tags: ``strip`` or ``keep``.
        versions: library versions, recorded in the spec.
        transcripts: transcripts by ASR that it spells; None for the corpus' own.
    """

    def __init__(self, *, event_tags: str, versions: Mapping[str, str], transcripts: AsrReading | None = None) -> None:
        self._event_tags = event_tags
        self.start_weights: Mapping[str, npt.NDArray[Any]] = {}
        self.specs = [
            StreamSpec(
                name=f"ctc.chars{VARIANT if transcripts else ''}",
                role="chars",
                source="wav2vec2 characters",
                shape=(1,),
                dtype="uint8",
                preprocessing={
                    "event_tags": event_tags,
                    "symbols": "".join(CTC_SYMBOLS),
                    **(transcripts.marks if transcripts else {}),
                },
                versions=versions,
            )
        ]

    def plan(self, sizes: Sequence[Turn]) -> list[InputPlan]:
        """Counts characters; a transcript without any gets no row and is not a failure."""
        words = [spoken(turn.text, self._event_tags).text for turn in sizes]
        counts = [len(ctc_ids(text)) for text in words]
        return [
            InputPlan(rows=(count,), cost=1, note=ctc_note(text)) for count, text in zip(counts, words, strict=True)
        ]

    def encode(self, inputs: Sequence[Turn], *, precise: bool = False) -> list[tuple[Rows, ...]]:
        """Returns the symbol indices of each transcript, uint8 ``(characters, 1)``."""
        return [(ctc_ids(spoken(turn.text, self._event_tags).text)[:, None],) for turn in inputs]
