"""What a run tells whoever watches it."""

from collections.abc import Sequence
from typing import Protocol


class ExtractionProgress(Protocol):
    """Told how far a run is."""

    def note(self, notes: Sequence[str]) -> None:
        """Something was noticed before anything runs."""
        ...

    def start(self, name: str, utterances: int, seconds: float) -> None:
        """A part of the run begins, with so much to do."""
        ...

    def advance(self, utterances: int, seconds: float) -> None:
        """So much more of it is done."""
        ...


class SilentProgress:
    """Progress of a run that nothing displays."""

    def note(self, notes: Sequence[str]) -> None:
        """Does nothing."""

    def start(self, name: str, utterances: int, seconds: float) -> None:
        """Does nothing."""

    def advance(self, utterances: int, seconds: float) -> None:
        """Does nothing."""
