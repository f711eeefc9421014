"""The encoders of a run in their order, loaded alike on every machine that takes part."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cache.errors import MmerError
from featurize.encoders.base import Encoder
from featurize.encoders.catalog import EncoderRequest, parse_requests
from featurize.encoders.load import character_targets, load_encoders
from featurize.encoders.options import EncodingOptions

MEL = "logmel80"


@dataclass(frozen=True, kw_only=True)
class Lineup:
    """Which encoders a run has.

    Attributes:
        requests: as asked for.
        options: how they run.
        mel: log-mel beside them.
        characters: CTC targets beside them.
    """

    requests: Sequence[EncoderRequest]
    options: EncodingOptions
    mel: bool
    characters: bool

    def load(self) -> tuple[list[Encoder[Any, Any]], list[str]]:
        """Loads them: those of speech, then those of transcripts; and what was noticed on the way.

        Raises:
            MmerError: if one of them is not at hand.
        """
        loaded = load_encoders(self.requests, self.options)
        mel, notes = self._mel(any(encoder.specs[0].name == MEL for encoder in loaded.speech))
        characters = [character_targets(self.options)] if self.characters else []
        return [*loaded.speech, *mel, *loaded.text, *characters], [*loaded.notes, *notes]

    def _mel(self, asked: bool) -> tuple[Sequence[Encoder[Any, Any]], list[str]]:
        """Log-mel goes with every run, unless it is not wanted, already asked for, or librosa is not installed."""
        if not self.mel or asked:
            return [], []
        try:
            return load_encoders(parse_requests([MEL]), self.options).speech, []
        except MmerError as error:
            return [], [str(error)]
