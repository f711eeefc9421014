"""Progress of an extraction: the protocol for displays, and a display that shows nothing."""

from collections.abc import Sequence
from typing import Protocol


class ExtractionProgress(Protocol):
    """A display of a run: it receives notes, and the start and the progress of each stage."""

    def note(self, notes: Sequence[str]) -> None:
        """Receives notes on corpus, encoders and cache."""
        ...

    def start(self, name: str, utterances: int, seconds: float) -> None:
        """Receives the start of a stage: its name, number of utterances and seconds of speech."""
        ...

    def advance(self, utterances: int, seconds: float) -> None:
        """Receives the utterances and seconds of speech completed since the last call."""
        ...


class SilentProgress:
    """A progress display that shows nothing."""

    def note(self, notes: Sequence[str]) -> None:
        """Does nothing."""

    def start(self, name: str, utterances: int, seconds: float) -> None:
        """Does nothing."""

    def advance(self, utterances: int, seconds: float) -> None:
        """Does nothing."""
