"""How far features move by being stored as float16 or int8: the relative L2 error, the figure that cache.rows states.

Rows are Gaussian noise, log-mel of real speech, and the features of a random base-size wav2vec 2.0 and of
wav2vec2-tiny on the same speech. Run it by ``python -m benchmarks.int8_error --audio FOLDER``.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForPreTraining, Wav2Vec2Model

from benchmarks.support.measure import machine_line
from cache.rows import Rows, from_stored, to_stored
from cli.output import print_table
from featurize.encoders.acoustic import logmel80
from featurize.encoders.base import Waveform
from featurize.encoders.tiny import build_wav2vec2_tiny
from featurize.extraction.parity import deviation
from featurize.inputs.audio import RATE_HZ, cut, load, probe

DTYPES = ("float16", "int8")


def stored_error(rows: Rows, dtype: str) -> float:
    """Gives the relative L2 error of rows after being stored and read."""
    return deviation(from_stored(*to_stored(rows, dtype)), rows)[0]


def crest(rows: Rows) -> float:
    """Gives the mean ratio of a row's peak to its root mean square, which decides the error of int8."""
    return float(np.mean(np.abs(rows).max(axis=1) / np.sqrt(np.square(rows).mean(axis=1))))


def read_speech(folder: Path, recordings: int) -> list[Waveform]:
    """Loads recordings spread over a folder.

    Raises:
        SystemExit: if there are none.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".wav", ".flac"})
    if not found:
        raise SystemExit(f"no wav or flac below {folder}")
    chosen = [found[place] for place in np.linspace(0, len(found) - 1, recordings).round().astype(int)]
    return [load(cut(probe(path), None, None)).waveform for path in chosen]


def kinds_of_rows(speech: list[Waveform]) -> Iterator[tuple[str, Rows]]:
    """Yields each kind of features, float32 ``(rows, dim)``."""
    yield "Gaussian, 768 wide", np.random.default_rng(0).standard_normal((20_000, 768), dtype=np.float32)
    yield "log-mel of speech, 80 wide", np.concatenate([logmel80(waveform) for waveform in speech])
    torch.manual_seed(0)
    base = Wav2Vec2ForPreTraining(Wav2Vec2Config()).wav2vec2
    yield "random wav2vec2-base, 768 wide", frames_of(base, speech)
    yield "wav2vec2-tiny, 64 wide", frames_of(build_wav2vec2_tiny().wav2vec2, speech)


def frames_of(model: Wav2Vec2Model, speech: list[Waveform]) -> Rows:
    """Encodes recordings one by one, ``(frames, dim)``."""
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True)  # type: ignore[no-untyped-call]
    model.train(False)
    with torch.inference_mode():
        return np.concatenate(
            [
                model(extractor(one, sampling_rate=RATE_HZ, return_tensors="pt").input_values).last_hidden_state[0]
                for one in speech
            ]
        )


def main() -> None:
    """Measures and prints everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--audio", type=Path, required=True, help="folder with wav or flac of speech, such as RAVDESS")
    parser.add_argument("--recordings", type=int, default=24, help="how many of them, spread over it [default: 24]")
    asked = parser.parse_args()
    speech = read_speech(asked.audio, asked.recordings)
    print(machine_line())
    print(f"{len(speech)} recordings, {sum(map(len, speech)) / RATE_HZ:.0f} s of speech")
    print_table(
        ("rows", "count", "peak / rms", *(f"{dtype}, relative L2" for dtype in DTYPES)),
        [
            (name, len(rows), f"{crest(rows):.1f}", *(f"{stored_error(rows, dtype):.2e}" for dtype in DTYPES))
            for name, rows in kinds_of_rows(speech)
        ],
    )


if __name__ == "__main__":
    main()
