"""Formant synthesizer: speech-like sound from words and arousal.

Each letter has its own sound: up to three resonances, excited by a hum, a hiss or both. Arousal changes what it changes
in people (Scherer, 2003, doi:10.1016/S0167-6393(02)00084-5): pitch height and range, speaking rate, pauses and spectral
tilt. Loudness, the strongest cue of all, is removed: every utterance has the same RMS.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RATE_HZ = 16_000
RMS = 0.05  # of full scale; leaves 26 dB for peaks

Floats = npt.NDArray[np.float64]
Spectra = npt.NDArray[np.complex128]
Sound = tuple[float, float, float, float, float, float]

# Letter -> three resonances in Hz (0 for none), amplitude of hum and of hiss, duration in ms. Vowels follow the men of
# Peterson and Barney (1952, doi:10.1121/1.1906875); consonants are chosen to be distinct, not realistic.
SOUNDS: Mapping[str, Sound] = {
    "a": (730, 1090, 2440, 1.0, 0.0, 85),
    "b": (200, 900, 2100, 0.5, 0.1, 50),
    "c": (0, 2900, 4300, 0.0, 0.5, 60),
    "d": (250, 1700, 2700, 0.5, 0.1, 50),
    "e": (530, 1840, 2480, 1.0, 0.0, 80),
    "f": (0, 1300, 6600, 0.0, 0.4, 70),
    "g": (250, 2250, 2500, 0.5, 0.1, 50),
    "h": (600, 1500, 3600, 0.0, 0.5, 60),
    "i": (270, 2290, 3010, 1.0, 0.0, 75),
    "j": (300, 2500, 3400, 0.4, 0.3, 60),
    "k": (0, 1900, 3100, 0.0, 0.6, 50),
    "l": (360, 1300, 2900, 0.8, 0.0, 60),
    "m": (250, 1000, 2200, 0.8, 0.0, 65),
    "n": (250, 1500, 2600, 0.8, 0.0, 60),
    "o": (570, 840, 2410, 1.0, 0.0, 85),
    "p": (0, 800, 1600, 0.0, 0.6, 50),
    "q": (0, 1200, 2300, 0.0, 0.6, 50),
    "r": (420, 1300, 1600, 0.8, 0.0, 60),
    "s": (0, 4800, 6200, 0.0, 0.6, 75),
    "t": (0, 3800, 5300, 0.0, 0.6, 50),
    "u": (300, 870, 2240, 1.0, 0.0, 80),
    "v": (250, 1100, 6400, 0.5, 0.2, 60),
    "w": (300, 610, 2200, 0.8, 0.0, 60),
    "x": (0, 2400, 5800, 0.0, 0.6, 70),
    "y": (280, 2100, 3100, 0.9, 0.0, 65),
    "z": (250, 4600, 6000, 0.4, 0.4, 70),
}
GAP: Sound = (0, 0, 0, 0.0, 0.0, 45)  # between words, and before and after the utterance

ROOM = 10**-2.5  # hiss of a quiet room, 50 dB below the voice
WINDOW, HOP = 320, 80  # samples: 20 ms windows every 5 ms, so that a 50 ms consonant keeps its edges


@dataclass(frozen=True, kw_only=True)
class Voice:
    """Characteristics of a speaker's voice.

    Attributes:
        pitch_hz: median pitch at an arousal of 0.
        tract: length of the vocal tract relative to the average; resonances are divided by it.
    """

    pitch_hz: float
    tract: float


def speak(text: str, *, voice: Voice, arousal: float, generator: np.random.Generator) -> Floats:
    """Synthesizes one utterance.

    Args:
        text: words of lower-case Latin letters, separated by spaces; at least one letter.
        voice: the speaker.
        arousal: from -1 (tired) to 1 (excited).
        generator: source of all variation between utterances.

    Returns:
        The waveform at 16 kHz, ``(samples,)``, with an RMS of ``RMS``.
    """
    sounds = _frame_sounds(text, arousal, generator)
    pitch_hz = voice.pitch_hz * _pitch_contour(len(sounds), arousal, generator)
    resonances = _resonances(sounds[:, :3] / voice.tract)
    hum = sounds[:, 3, None] * _spectra(_pulses(pitch_hz)) * resonances * _tilt(arousal)
    hiss = sounds[:, 4, None] * _spectra(generator.normal(size=len(sounds) * HOP)) * resonances
    wave = _overlap_add(hum + hiss)
    wave += generator.normal(scale=ROOM * _rms(wave), size=wave.size)
    return wave * (RMS / _rms(wave))


def _frame_sounds(text: str, arousal: float, generator: np.random.Generator) -> Floats:
    """Returns the sound of every frame, ``(frames, 5)``: three resonances in Hz, hum, hiss."""
    table = np.array([GAP, *(SOUNDS.get(letter, GAP) for letter in text), GAP], dtype=np.float64)
    silent = ~table[:, 3:5].any(axis=1)
    pauses = 2.0 ** (-0.8 * arousal) * generator.uniform(0.7, 1.4, len(table))
    tempo = 0.9 * 2.0 ** (-0.2 * arousal + generator.uniform(-0.2, 0.2))
    lengths_ms = tempo * table[:, 5] * np.where(silent, pauses, 1.0)
    ends = np.round(np.cumsum(lengths_ms) * (RATE_HZ / 1000 / HOP)).astype(np.int64)
    return np.repeat(table[:, :5], np.diff(ends, prepend=0), axis=0)


def _pitch_contour(frames: int, arousal: float, generator: np.random.Generator) -> Floats:
    """Draws the pitch contour as a factor of the speaker's pitch, ``(frames,)``.

    Exponents of 2 are octaves.
    """
    seconds = np.arange(frames) * (HOP / RATE_HZ)
    accents = np.sin(2 * np.pi * (generator.uniform(1.2, 2.0) * seconds + generator.uniform()))
    height = 0.3 * arousal + generator.normal(scale=0.06)
    span = 0.16 * 2.0 ** (0.8 * arousal)
    decline = 0.15 * (0.5 - seconds / seconds[-1])
    contour: Floats = 2.0 ** (height + span * accents + decline)
    return contour


def _pulses(pitch_hz: Floats) -> Floats:
    """Returns a buzz of flat spectrum, ``(frames * HOP,)``, from the pitch of every frame."""
    samples_hz = np.repeat(pitch_hz, HOP)
    phase = np.cumsum(2 * np.pi * samples_hz / RATE_HZ)
    harmonics = np.floor(0.45 * RATE_HZ / samples_hz)
    # Sum of cos(k * phase) for k = 1 .. harmonics in closed form: no harmonic is ever above the Nyquist frequency.
    divisor = 2 * np.sin(phase / 2)
    divisor[np.abs(divisor) < 1e-9] = 1e-9
    pulses: Floats = np.sin((harmonics + 0.5) * phase) / divisor - 0.5
    return pulses


def _resonances(centres_hz: Floats) -> Floats:
    """Computes spectral magnitudes ``(frames, bins)`` from resonances ``(frames, 3)`` in Hz."""
    centres_hz = centres_hz[:, :, None]  # (frames, 3, 1)
    widths_hz = 50 + 0.06 * centres_hz  # as in speech, higher resonances are wider
    peaks = (centres_hz > 0) / (1 + ((_bins_hz() - centres_hz) / widths_hz) ** 2)
    magnitudes: Floats = peaks.sum(axis=1)
    return magnitudes


def _tilt(arousal: float) -> Floats:
    """Computes the spectral tilt of the hum, ``(bins,)``: low arousal makes the voice dull."""
    slope = -1.0 + 0.5 * arousal  # in powers of frequency above the corner at 300 Hz
    magnitudes: Floats = (1 + _bins_hz() / 300) ** slope
    return magnitudes


def _bins_hz() -> Floats:
    return np.linspace(0, RATE_HZ / 2, WINDOW // 2 + 1)


def _spectra(wave: Floats) -> Spectra:
    """Computes the spectra ``(frames, bins)`` of overlapping windows of ``(frames * HOP,)``."""
    padded = np.pad(wave, (0, WINDOW - HOP))
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    return np.fft.rfft(windows * _taper())


def _overlap_add(spectra: Spectra) -> Floats:
    """Computes the wave ``(frames * HOP + WINDOW - HOP,)`` from spectra ``(frames, bins)``."""
    windows = np.fft.irfft(spectra, WINDOW) * _taper()
    hops = WINDOW // HOP
    blocks = np.zeros((len(windows) + hops - 1, HOP))
    for hop in range(hops):
        blocks[hop : hop + len(windows)] += windows[:, hop * HOP : (hop + 1) * HOP]
    return blocks.ravel()


def _taper() -> Floats:
    """Returns a window ``(WINDOW,)`` whose squares sum to a constant at this hop."""
    taper: Floats = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    return taper


def _rms(wave: Floats) -> float:
    return float(np.sqrt(np.mean(wave**2)))
