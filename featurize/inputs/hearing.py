"""Remarks on a sound: what an encoder hears of it, after channels are mixed down.

A recording may be whole and still hold no speech: channels that cancel each other, a constant, a microphone that was
off, an input that was too loud.
"""

import numpy as np
import numpy.typing as npt

FAINT = 2 / (1 << 15)  # two steps of 16 bits: a signal that does not exceed them is noise of the converter
CANCELLED = 1e-4  # share of the power that is left after mixing down: -40 dB
PEAK = 0.9999  # of the largest value: both ends of 16 bits
CLIPPED = 0.03  # share of samples at the largest value; a full-scale sine has 0.009
LOUD = 0.1  # of full scale; a maximum below it is not called clipped

Sound = npt.NDArray[np.float32]


class Hearing:
    """Peaks, power and clipping of a sound so far; blocks are added in order.

    Args:
        channels: number of channels.
    """

    def __init__(self, channels: int) -> None:
        self._samples = 0
        self._peaks = np.zeros(channels)
        self._power = np.zeros(channels)
        self._mono_power = 0.0
        self._values: set[float] | None = set()  # of the mixed sound; None if there are more than two
        self._at_peak = 0

    def add(self, sound: Sound, mono: Sound) -> None:
        """Adds a block.

        Args:
            sound: samples of each channel, finite, ``(samples, channels)``.
            mono: the same mixed down, ``(samples,)``.
        """
        if not len(sound):
            return
        self._samples += len(sound)
        loudness = np.abs(sound)
        peaks = loudness.max(axis=0)
        if peaks.max() * PEAK > self._peaks.max():
            self._at_peak = 0
        self._peaks = np.maximum(self._peaks, peaks)
        self._at_peak += int(np.count_nonzero(loudness >= self._peaks.max() * PEAK))
        if sound.shape[1] > 1:
            self._power += np.einsum("sc,sc->c", sound, sound, dtype=np.float64)
            self._mono_power += float(np.dot(mono, mono))
        self._add_values(mono)

    def remarks(self) -> list[str]:
        """Returns the remarks; at most one about the signal as a whole."""
        return [*self._of_signal(), *self._of_channels()]

    def _add_values(self, mono: Sound) -> None:
        if self._values is None:
            return
        low, high = mono.min(), mono.max()
        found = {float(low), float(high)} | self._values
        two = len(found) <= 2 and bool(((mono == low) | (mono == high)).all())
        self._values = found if two else None

    def _of_signal(self) -> list[str]:
        peak = float(self._peaks.max())
        share = self._at_peak / max(1, self._samples * len(self._peaks))
        values = () if self._values is None else sorted(self._values)
        cancelled = len(self._peaks) > 1 and self._mono_power <= CANCELLED * self._power.max()
        remarks = (
            (peak == 0, "silent: every sample is 0"),
            (peak <= FAINT, f"nearly silent: no sample is above {peak:.2g} of full scale"),
            (cancelled, "silent after mixing down: its channels cancel each other"),
            (len(values) == 1, f"constant: every sample is {max(values, default=0.0):.4g}"),
            (len(values) == 2, "one bit: its samples have only two values"),
            (peak >= LOUD and share > CLIPPED, f"clipped: {100 * share:.0f}% of its samples are at the largest value"),
        )
        return [text for applies, text in remarks if applies and self._samples][:1]

    def _of_channels(self) -> list[str]:
        silent = [str(number) for number, peak in enumerate(self._peaks, start=1) if peak <= FAINT]
        if not silent or len(silent) == len(self._peaks):
            return []
        channels = f"channel {silent[0]} is" if len(silent) == 1 else f"channels {', '.join(silent)} are"
        return [f"{channels} silent, of {len(self._peaks)}"]
