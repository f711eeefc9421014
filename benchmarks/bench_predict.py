"""Prediction of recordings against extraction of their features into a cache.

Claim: ``mmer-predict`` takes recordings at 0.9 or more of the rate of ``mmer-featurize``, whose work it does before it
applies the head: both load the encoder, decode, encode in the same batches, and one commits rows where the other
predicts.

Weights are random and recordings are noise of IEMOCAP-like lengths: neither changes the time. Run it by
``python -m benchmarks.bench_predict``.
"""

import argparse
import csv
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile
import torch
import transformers
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from benchmarks.support.measure import Silent, Spread, alternate, iemocap_like, machine_line, speedup, verdict
from cache.joined import open_cache
from cli.output import print_table
from featurize.encoders.options import EncodingOptions
from featurize.extraction.job import ExtractionJob
from featurize.extraction.run import run_job
from featurize.inputs.audio import RATE_HZ
from featurize.runtime.memory import keep_freed_memory
from fusion.end_to_end.prediction.run import PredictionRequest, predict_files
from fusion.experiment.request import ExperimentRequest
from fusion.run.train import train_run

MEAN_S, CPU = 4.5, torch.device("cpu")
FEATURIZE, PREDICT = "mmer-featurize", "mmer-predict"
LABELS, SPEAKERS = ("angry", "calm", "happy", "sad"), 4
SIZES: dict[str, dict[str, Any]] = {
    "base": {},
    "small": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024},
}


def write_corpus(folder: Path, seconds: float) -> float:
    """Writes noise into wav files with a manifest; returns the seconds of speech."""
    count = max(2 * len(LABELS) * SPEAKERS, round(seconds / MEAN_S))
    lengths = (iemocap_like(count, mean=seconds / count) * RATE_HZ).round().astype(int)
    random = np.random.default_rng(1)
    with (folder / "corpus.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("id", "audio", "text", "label", "speaker", "session"))
        for index, samples in enumerate(lengths):
            soundfile.write(folder / f"{index}.wav", 0.1 * random.standard_normal(samples), RATE_HZ, subtype="PCM_16")
            speaker = index // len(LABELS) % SPEAKERS
            table.writerow((f"u{index}", f"{index}.wav", "", LABELS[index % len(LABELS)], f"s{speaker}", speaker))
    return float(lengths.sum() / RATE_HZ)


def write_encoder(folder: Path, size: str) -> None:
    """Writes a wav2vec 2.0 with random weights."""
    torch.manual_seed(0)
    Wav2Vec2Model(Wav2Vec2Config(**SIZES[size])).save_pretrained(folder)
    extractor: Any = Wav2Vec2FeatureExtractor(do_normalize=True)  # type: ignore[no-untyped-call]
    extractor.save_pretrained(folder)


class Bench:
    """A corpus, an encoder and a run that reads its stream."""

    def __init__(self, folder: Path, seconds: float, size: str, batch_seconds: float) -> None:
        self.folder, self.encoder, self.batch_seconds = folder, folder / "speech", batch_seconds
        self.audio_s = write_corpus(folder, seconds)
        write_encoder(self.encoder, size)
        self.caches = 0
        cache = open_cache(self.featurize())
        request = ExperimentRequest(fusion="audio", fields={"epochs": 1}, protocol="random5")
        self.run = train_run(request.experiment(cache), cache, out=folder / "run", final=True).folder

    def featurize(self) -> Path:
        """Computes the features of the corpus into a new cache."""
        self.caches += 1
        job = ExtractionJob(
            corpus="manifest",
            root=self.folder / "corpus.csv",
            cache=self.folder / f"cache{self.caches}.h5",
            encoders=(str(self.encoder),),
            options=EncodingOptions(device=CPU, codes=False),
            audio_only=True,
            mel=False,
            batch_seconds=self.batch_seconds,
        )
        return run_job(job, Silent()).cache

    def predict(self) -> None:
        """Predicts the corpus."""
        request = PredictionRequest(
            run=self.run,
            files=[str(self.folder / "corpus.csv")],
            encoders={self.encoder.name: self.encoder},
            device="cpu",
            batch_seconds=self.batch_seconds,
        )
        assert not [row for (row,) in predict_files(request) if row.error]


def main() -> None:
    """Measures and prints everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=200.0, help="of speech in all [default: 200]")
    parser.add_argument("--size", choices=SIZES, default="base", help="of the encoder [default: base]")
    parser.add_argument("--batch-seconds", type=float, default=0.0, help="of a batch; 0 for one by one [default: 0]")
    parser.add_argument("--threads", type=int, default=2, help="of torch [default: 2]")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    keep_freed_memory()
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with TemporaryDirectory() as name:
        bench = Bench(Path(name), asked.seconds, asked.size, asked.batch_seconds)
        print(machine_line())
        print(f"{bench.audio_s:.0f} s of speech, encoder of {asked.size} size, {asked.rounds} rounds")
        seconds = alternate({FEATURIZE: bench.featurize, PREDICT: bench.predict}, rounds=asked.rounds)
        rows = [
            (arm, Spread.of([bench.audio_s / one for one in found]).text(), speedup(seconds, arm, FEATURIZE).text())
            for arm, found in seconds.items()
        ]
        print_table(("arm", "audio-s/s", "times mmer-featurize"), rows)
        rate = speedup(seconds, PREDICT, FEATURIZE).median
        print(verdict("rate of mmer-predict over mmer-featurize", rate, at_least=0.9))


if __name__ == "__main__":
    main()
