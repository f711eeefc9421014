"""One turn of speech with everything the corpus says about it, and the columns it is kept in."""

from collections.abc import Mapping
from dataclasses import dataclass

TEXT, NUMBER, COUNT = "text", "number", "count"

# Column of the cache file -> how it is stored: UTF-8, float64 with NaN for absent, int64 with -1 for absent.
COLUMNS: Mapping[str, str] = {
    "id": TEXT,
    "audio": TEXT,
    "start_s": NUMBER,
    "end_s": NUMBER,
    "duration_s": NUMBER,
    "text": TEXT,
    "label": TEXT,
    "speaker": TEXT,
    "session": TEXT,
    "dialogue": TEXT,
    "turn": COUNT,
    "split": TEXT,
    "style": TEXT,
    "channel": TEXT,
    "valence": NUMBER,
    "activation": NUMBER,
    "dominance": NUMBER,
    "sentiment": TEXT,
}
ADDED = frozenset({"sentiment"})  # columns that files of earlier releases lack


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """What a corpus says of one utterance; labels stay as published.

    Attributes:
        id: unique in the corpus.
        audio: path of the recording, relative to the corpus root, with forward slashes.
        start_s: start of the utterance in the recording; None for its beginning.
        end_s: end of the utterance in the recording; None for its end.
        duration_s: seconds of speech, known once the recording was probed.
        text: transcript, empty where the corpus has none.
        label: raw label of the corpus.
        speaker: speaker id, unique in the corpus.
        session: recording session.
        dialogue: conversation that the utterance is a turn of.
        turn: position in the dialogue, from 0.
        split: part of the published split.
        style: ``scripted`` or ``improvised``.
        channel: ``speech`` or ``song``.
        valence: rated valence on the corpus' own scale.
        activation: rated activation (arousal) on the corpus' own scale.
        dominance: rated dominance on the corpus' own scale.
        sentiment: raw sentiment of the corpus, such as ``positive``.
    """

    id: str
    audio: str = ""
    start_s: float | None = None
    end_s: float | None = None
    duration_s: float | None = None
    text: str = ""
    label: str = ""
    speaker: str = ""
    session: str = ""
    dialogue: str = ""
    turn: int | None = None
    split: str = ""
    style: str = ""
    channel: str = ""
    valence: float | None = None
    activation: float | None = None
    dominance: float | None = None
    sentiment: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("an utterance needs an id, got an empty one")
        start_s = 0.0 if self.start_s is None else self.start_s
        if start_s < 0:
            raise ValueError(f"start_s of {self.id} must not be negative, got {self.start_s}")
        if self.end_s is not None and not self.end_s > start_s:
            raise ValueError(f"end_s of {self.id} must lie after start_s {start_s}, got {self.end_s}")
        if self.turn is not None and self.turn < 0:
            raise ValueError(f"turn of {self.id} must not be negative, got {self.turn}")
