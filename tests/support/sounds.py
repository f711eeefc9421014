"""Noise, written to files of every kind and loaded back."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from featurize.inputs.audio import RATE_HZ, LoadedAudio, cut, load, probe

RATES_HZ = (8000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000)
Sound = npt.NDArray[np.float32]


def noise(samples: int, channels: int = 1, *, steps: int = 1 << 15) -> Sound:
    """Noise whose values 16-bit PCM holds exactly, ``(samples, channels)``."""
    values = np.random.default_rng(7).integers(-steps // 2, steps // 2, (samples, channels))
    return (values / steps).astype(np.float32)


def written(path: Path, sound: Sound, rate_hz: int = RATE_HZ, **how: Any) -> Path:
    soundfile.write(path, sound, rate_hz, **how)
    return path


def load_whole(path: Path) -> LoadedAudio:
    return load(cut(probe(path), None, None))
