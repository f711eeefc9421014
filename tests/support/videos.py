"""Video files with a sound track, written by PyAV."""

from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.support.sounds import Sound

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def write_video(path: Path, sound: Sound | None, rate_hz: int = 48_000, *, codec: str = "aac", index: str = "") -> Path:
    """Writes some pictures and a sound track.

    Args:
        path: the suffix says which container.
        sound: ``(samples, channels)``; None for a silent film.
        rate_hz: of the sound.
        codec: of the sound.
        index: ``faststart`` puts it before the sound.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": index} if index else {}) as container:
        pictures: Any = container.add_stream("mpeg4", rate=5, width=16, height=16, pix_fmt="yuv420p")
        if sound is not None:
            layout = LAYOUTS[sound.shape[1]]
            track: Any = container.add_stream(codec, rate=rate_hz, layout=layout)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T), format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate_hz, 0
            sample_format = track.codec_context.format or av.AudioFormat(track.codec.audio_formats[0].name)
            resampler = av.AudioResampler(
                sample_format, layout, rate_hz, frame_size=track.codec_context.frame_size or None
            )
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(track.encode(part))
            container.mux(track.encode(None))
        for place in range(2):
            picture = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 40 * place, dtype=np.uint8), format="rgb24")
            picture.pts = place
            container.mux(pictures.encode(picture))
        container.mux(pictures.encode(None))
    return path


def write_sound(path: Path, sound: Sound, rate_hz: int, *, codec: str) -> Path:
    """Writes a sound alone, by a coder that libsndfile lacks; the suffix says which container."""
    layout = LAYOUTS[sound.shape[1]]
    with av.open(str(path), "w") as container:
        track: Any = container.add_stream(codec, rate=rate_hz, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate_hz, 0
        track.bit_rate = 64_000
        formats = [known.name for known in track.codec.audio_formats]
        sample_format = av.AudioFormat(next((name for name in formats if name.startswith("s16")), formats[0]))
        track.format = sample_format
        resampler = av.AudioResampler(sample_format, layout, rate_hz, frame_size=track.codec_context.frame_size or None)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(track.encode(part))
        container.mux(track.encode(None))
    return path
