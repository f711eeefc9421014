"""Recordings that a page holds: MP3 as data URIs, within a number and a size."""

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fusion.report.finished import FinishedRun

RATE_HZ = 16_000
LONGEST_S = 20.0  # of one recording; what is longer is cut
MOST_BYTES = 12_000_000  # of all recordings of a page


class Sounds:
    """The recordings of one page.

    Args:
        count: greatest number of whole recordings; 0 for no sound. Parts of recordings are not counted.
    """

    def __init__(self, count: int) -> None:
        self.count = self.left = count
        self.size_bytes = 0
        self.missing: list[str] = []
        self._held: dict[tuple[str, str, float], str] = {}

    @property
    def notes(self) -> list[str]:
        """Notes on recordings that the page does not hold."""
        if not self.missing:
            return []
        return [f"{len(self.missing)} recordings are not in the page: {self.missing[0]}"]

    def of(self, run: FinishedRun, name: str, *, middle_s: float | None = None, width_s: float = 0.0) -> str:
        """Returns the recording of an utterance as a data URI; empty if it is not wanted or not found.

        Args:
            run: run whose cache names the recording.
            name: id of the utterance.
            middle_s: middle of a part of the utterance, in seconds from its start; None for all of it.
            width_s: duration of the part in seconds.
        """
        key = (str(run.folder.path), name, -1.0 if middle_s is None else middle_s)
        if key in self._held:
            return self._held[key]
        whole = middle_s is None
        if self.size_bytes > MOST_BYTES or (self.left < 1 if whole else not self.count):
            return ""
        wave = self._waveform(run, name)
        if wave is None:
            return ""
        if middle_s is not None:
            start = max(0, round((middle_s - width_s / 2) * RATE_HZ))
            wave = wave[start : start + round(width_s * RATE_HZ)]
        encoded = _mp3(wave[: round(LONGEST_S * RATE_HZ)])
        self.left, self.size_bytes = self.left - whole, self.size_bytes + len(encoded)
        self._held[key] = encoded
        return encoded

    def _waveform(self, run: FinishedRun, name: str) -> npt.NDArray[Any] | None:
        from fusion.end_to_end.prediction.recordings import Recording, decode  # imports decoders, which few need

        utterance = run.utterances.get(name)
        root = Path(str(run.cache.header["corpus"].get("root", ""))) if run.cache else Path()
        if utterance is None or not utterance.audio:
            self.missing.append(f"{name} has no recording in the cache")
            return None
        path = (root / utterance.audio).resolve()
        if not path.is_relative_to(root.resolve()):
            self.missing.append(f"{utterance.audio} of {name} is not below the folder of the corpus")
            return None
        wave = decode(Recording(file=name, source=path, start_s=utterance.start_s, end_s=utterance.end_s))
        if isinstance(wave, str):
            self.missing.append(f"{path} ({wave})")
            return None
        return wave


def _mp3(wave: npt.NDArray[Any]) -> str:
    import soundfile

    buffer = BytesIO()
    soundfile.write(buffer, np.clip(wave, -1, 1), RATE_HZ, format="MP3", subtype="MPEG_LAYER_III")
    return f"data:audio/mpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
