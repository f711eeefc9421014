"""Small corpora of real files to featurize, and jobs over them."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch

from cache.audit import verify
from cache.store import FeatureCache
from cache.writer import Row
from featurize.encoders.options import EncodingOptions
from featurize.extraction.job import ExtractionJob
from featurize.extraction.pipeline import CommitThread
from featurize.extraction.report import ExtractionReport
from featurize.extraction.run import run_job

RATE_HZ = 16_000
STREAMS = ["ctc.chars", "logmel80", "roberta-tiny", "roberta-tiny.tokens", "wav2vec2-tiny", "wav2vec2-tiny.codes"]
COLUMNS = ("id", "audio", "text", "label", "speaker", "session")


class Silent:
    """Progress that is only counted."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.started: dict[str, int] = {}
        self.advanced = 0

    def note(self, notes: Sequence[str]) -> None:
        self.notes += notes

    def start(self, name: str, utterances: int, seconds: float) -> None:
        self.started[name] = utterances

    def advance(self, utterances: int, seconds: float) -> None:
        self.advanced += utterances


def tone(seconds: float, *, pitch_hz: float = 150.0, rate_hz: int = RATE_HZ, seed: int = 0) -> npt.NDArray[np.float32]:
    """A buzz with some noise, so that no two seeds are alike."""
    times = np.arange(int(seconds * rate_hz)) / rate_hz
    noise = np.random.default_rng(seed).standard_normal(len(times))
    return np.asarray(0.2 * np.sign(np.sin(2 * np.pi * pitch_hz * times)) + 0.01 * noise, dtype=np.float32)


def write_corpus(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Writes ``corpus.csv`` into a folder; what a row does not say is filled in."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)]))
    with (folder / "corpus.csv").open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in rows:
            filled = {"audio": f"{row['id']}.wav", "text": f"this is {row['id']}", "label": "sad", "speaker": "s"}
            writer.writerow({"session": "1", **filled, **row})
    return folder / "corpus.csv"


def write_voices(folder: Path, names: str) -> Path:
    """Writes one recording per letter, each of another length, and their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(names):
        soundfile.write(folder / f"{name}.wav", tone(0.2 + 0.1 * place, pitch_hz=100 + 20 * place, seed=place), RATE_HZ)
    return write_corpus(folder, [{"id": name} for name in names])


def job_over(manifest: Path, cache: Path, **changes: Any) -> ExtractionJob:
    """The tiny encoders over a manifest."""
    names = EncodingOptions.__dataclass_fields__.keys() & changes.keys()
    options = EncodingOptions(device=torch.device("cpu"), **{name: changes.pop(name) for name in names})
    encoders = changes.pop("encoders", ("wav2vec2-tiny", "roberta-tiny"))
    return ExtractionJob(corpus="manifest", root=manifest, cache=cache, encoders=encoders, options=options, **changes)


def featurized(manifest: Path, cache: Path, **changes: Any) -> ExtractionReport:
    """Runs such a job."""
    return run_job(job_over(manifest, cache, **changes), Silent())


def contents(path: Path) -> dict[tuple[str, str], tuple[Any, ...]]:
    """Everything that a run decides of a cache: state, rows, digest and note by stream and utterance."""
    cache = FeatureCache(path)
    return {
        (name, utterance): (
            int(stream.state[index]),
            stream.stored(index).values.tobytes() if stream.state[index] == 1 else b"",
            bytes(stream.input_digest[index]),
            stream.reason(index),
        )
        for name, stream in cache.streams.items()
        for index, utterance in enumerate(cache.ids)
    }


def computed_anew(corpus: Path, cache: Path, **changes: Any) -> dict[str, int]:
    """How many utterances a run writes to each stream."""
    written: Counter[str] = Counter()
    put = CommitThread.put

    def counted(commits: CommitThread, rows: list[Row]) -> None:
        written.update(row.stream for row in rows)
        put(commits, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CommitThread, "put", counted)
        featurized(corpus, cache, **changes)
    assert verify(FeatureCache(cache)) == []
    return dict(written)
