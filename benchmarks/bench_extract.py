"""Extraction with a base-size wav2vec 2.0, against the usual loops and against the machine's matmul floor.

Claim: the whole pipeline (decode, encode frames and codes, commit) is never slower than the usual one-by-one loop, 1.9
times as fast as two passes (features, then codes), at 0.85 or more of the matmul floor, with at most 5% of its time
outside the encoder; its batches give what one by one gives, zero-padded ones do not.

Weights are random and recordings are noise of IEMOCAP-like lengths: neither changes the time. The pipeline and the
usual loops begin with wav files; the pipeline writes a cache, the loops keep their features in memory, codes are made
by the pipeline and by two passes. Run it by ``python -m benchmarks.bench_extract``.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile
import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForPreTraining

from benchmarks.support.floor import MatrixProducts, count_flops
from benchmarks.support.measure import Arms, Silent, Spread, alternate, iemocap_like, machine_line, speedup, verdict
from cache.rows import Rows
from cache.stream import StreamSpec
from cache.utterance import Utterance
from cli.output import print_table
from featurize.corpora.base import CorpusReading
from featurize.encoders.base import Waveform
from featurize.encoders.layers import LayerChoice
from featurize.encoders.speech import PREPROCESSING, SpeechEncoder
from featurize.extraction.parity import deviation
from featurize.extraction.pipeline import extract
from featurize.extraction.plan import Inputs, pack_batches, plan_encoder, read_inputs
from featurize.extraction.prepare import CorpusHeader, prepared_cache
from featurize.inputs.audio import RATE_HZ, AudioSpan, load
from featurize.runtime.memory import keep_freed_memory

MEAN_S, BATCH = 4.5, 8
USUAL_TRIM = 64 << 20  # what glibc's own thresholds grow to by themselves, for all arms but the pipeline
PIPELINE, LOOP, TWO_PASSES = "pipeline, one by one", "Hugging Face, one by one", "Hugging Face, features then codes"
PADDED, EXACT, FLOOR = "Hugging Face, zero-padded batches of 8", "exact batches, encoder alone", "matrix products alone"


class TimedEncoder(SpeechEncoder):
    """A speech encoder that counts the seconds it works."""

    worked_s = 0.0

    def encode(self, inputs: Sequence[Waveform], *, precise: bool = False) -> list[tuple[Rows, ...]]:
        """Encodes as always."""
        started = time.perf_counter()
        rows = super().encode(inputs, precise=precise)
        self.worked_s += time.perf_counter() - started
        return rows


def write_recordings(folder: Path, seconds: float) -> Inputs:
    """Writes noise into wav files and reads them in as a corpus."""
    lengths = iemocap_like(max(2, round(seconds / MEAN_S)), mean=MEAN_S) * RATE_HZ
    random = np.random.default_rng(1)
    for index, samples in enumerate(lengths.round().astype(int)):
        soundfile.write(folder / f"{index}.wav", 0.1 * random.standard_normal(samples), RATE_HZ, subtype="PCM_16")
    listed = [Utterance(id=f"u{index}", audio=f"{index}.wav") for index in range(len(lengths))]
    return read_inputs(CorpusReading(root=folder, utterances=listed))


class Bench:
    """One random encoder and one corpus for all arms."""

    def __init__(self, folder: Path, seconds: float, batch_seconds: float) -> None:
        torch.manual_seed(0)
        self.model = Wav2Vec2ForPreTraining(Wav2Vec2Config())
        self.model.train(False)
        ours = Wav2Vec2ForPreTraining(Wav2Vec2Config())  # another one, since the encoder folds its weight norm
        ours.load_state_dict(self.model.state_dict())
        self.extractor: Any = Wav2Vec2FeatureExtractor(do_normalize=True)  # type: ignore[no-untyped-call]
        self.encoder = _encoder(ours)
        self.folder, self.inputs = folder, write_recordings(folder, seconds)
        self.waveforms = [load(span).waveform for span in self.inputs.spans if isinstance(span, AudioSpan)]
        self.samples = [len(waveform) for waveform in self.waveforms]
        costs = [one.cost for one in self.encoder.plan(self.samples)]
        self._everything = range(len(costs))
        self.packed = pack_batches(costs, self._everything, batch_seconds * self.encoder.specs[0].rate_hz)
        shuffled = np.random.default_rng(2).permutation(len(costs)).tolist()
        self.shuffled = [shuffled[first : first + BATCH] for first in self._everything[::BATCH]]
        self.outside: list[float] = []

    @property
    def audio_s(self) -> float:
        """Seconds of speech."""
        return sum(self.samples) / RATE_HZ

    def pipeline(self) -> None:
        """Runs the project's own pipeline from wav files to a new cache, with memory kept as the command does."""
        keep_freed_memory()
        started, worked_s = time.perf_counter(), self.encoder.worked_s
        plan = plan_encoder(self.encoder, self.inputs, max_seconds=60, chunk=False)
        header, quiet = CorpusHeader(name="noise", root=self.folder), Silent()
        with (
            TemporaryDirectory(dir=self.folder) as name,
            prepared_cache(
                Path(name) / "cache.h5", header, self.inputs, [plan], replace=False, progress=quiet
            ) as opened,
        ):
            writer, _ = opened
            extract([plan], self.inputs, writer, batch_seconds=0, progress=quiet)
            assert all(states.all() for states in writer.states.values())
        worked_s = self.encoder.worked_s - worked_s
        self.outside.append(1 - worked_s / (time.perf_counter() - started))
        keep_freed_memory(USUAL_TRIM)

    def one_by_one(self) -> list[Rows]:
        """Runs the loop that Hugging Face's documentation shows."""
        with torch.inference_mode():
            return [
                self.model.wav2vec2(self._values([index])).last_hidden_state[0].numpy() for index in self._everything
            ]

    def two_passes(self) -> list[Rows]:
        """Runs the same loop, then the pre-training model for the codes."""
        self.one_by_one()
        scores: list[torch.Tensor] = []
        quantizer: Any = self.model.quantizer
        handle = quantizer.weight_proj.register_forward_hook(lambda module, inputs, output: scores.append(output))
        with torch.inference_mode():
            for index in self._everything:
                self.model(self._values([index]))
        handle.remove()
        shape = (-1, quantizer.num_groups, quantizer.num_vars)
        return [one.reshape(shape).argmax(dim=-1).numpy() for one in scores]

    def padded_batches(self) -> list[Rows]:
        """Runs shuffled batches, padded by the feature extractor, without a mask as wav2vec2-base is used."""
        rows: dict[int, Rows] = {}
        with torch.inference_mode():
            for batch in self.shuffled:
                output = self.model.wav2vec2(self._values(batch))
                frames = [one.cost for one in self.encoder.plan([self.samples[index] for index in batch])]
                for index, hidden, count in zip(batch, output.last_hidden_state, frames, strict=True):
                    rows[index] = hidden[:count].numpy()
        return [rows[index] for index in sorted(rows)]

    def exact_batches(self) -> list[tuple[Rows, ...]]:
        """Runs the project's batches, sorted by length."""
        rows: dict[int, tuple[Rows, ...]] = {}
        for batch in self.packed:
            rows.update(zip(batch, self.encoder.encode([self.waveforms[index] for index in batch]), strict=True))
        return [rows[index] for index in sorted(rows)]

    def _values(self, indices: Sequence[int]) -> torch.Tensor:
        read = [soundfile.read(self.folder / f"{index}.wav", dtype="float32")[0] for index in indices]
        padded = self.extractor(read, sampling_rate=RATE_HZ, padding=True, return_tensors="pt")
        values: torch.Tensor = padded.input_values
        return values


def _encoder(model: Wav2Vec2ForPreTraining) -> TimedEncoder:
    spec = StreamSpec(
        name="wav2vec2-base",
        role="audio",
        source="random weights",
        shape=(1,),
        dtype="float16",
        rate_hz=50.0,
        preprocessing={**PREPROCESSING, "normalize": True},
    )
    return TimedEncoder(
        base=model.wav2vec2,
        quantizer=model.quantizer,
        start_weights={},
        spec=spec,
        choices=[LayerChoice(text="last")],
        normalize=True,
        device=torch.device("cpu"),
        precision=torch.float32,
    )


def compare_values(bench: Bench) -> None:
    """Prints how far every kind of batch is from one by one."""
    alone, exact = bench.one_by_one(), bench.exact_batches()
    for name, rows in ((PADDED, bench.padded_batches()), (EXACT, [one[0] for one in exact])):
        whole, largest = deviation(np.concatenate(rows), np.concatenate(alone))
        worst = max(deviation(here, there)[0] for here, there in zip(rows, alone, strict=True))
        print(f"{name}: relative L2 {whole:.1e}, worst utterance {worst:.1e}, largest difference {largest:.1e}")
    codes = np.concatenate([one[1] for one in exact])
    print(f"{EXACT}: {np.mean(codes == np.concatenate(bench.two_passes())):.4%} of the codes as from two passes")


def compare_speed(bench: Bench, rounds: int) -> None:
    """Measures all arms in turn and prints their speed beside the floor."""
    products = MatrixProducts(bench.model.wav2vec2, bench.samples)
    flops = count_flops(bench.samples)
    arms: Arms = {
        PIPELINE: bench.pipeline,
        LOOP: bench.one_by_one,
        TWO_PASSES: bench.two_passes,
        PADDED: bench.padded_batches,
        EXACT: bench.exact_batches,
        FLOOR: products.run,
    }
    seconds = alternate(arms, rounds=rounds)
    seconds[FLOOR] = [one * flops / products.flops for one in seconds[FLOOR]]
    print(f"{flops / 1e9 / bench.audio_s:.1f} GFLOP per audio second, {products.flops / flops:.0%} of them as products")
    rows = []
    for name, found in seconds.items():
        speed = Spread.of([bench.audio_s / one for one in found]).text()
        ratios = (speedup(seconds, name, over).text() for over in (LOOP, TWO_PASSES, FLOOR))
        rows.append((name, speed, *ratios))
    print_table(("arm", "audio-s/s", "times one by one", "times two passes", "of the floor"), rows)
    outside = Spread.of(bench.outside[1:])  # the first was the warm-up
    print(
        f"pipeline outside the encoder: {100 * outside.median:.1f}% of its time, at most {100 * outside.greatest:.1f}%"
    )
    print(verdict("pipeline over one by one", speedup(seconds, PIPELINE, LOOP).median, at_least=1))
    print(verdict("pipeline over two passes", speedup(seconds, PIPELINE, TWO_PASSES).median, at_least=1.9))
    print(verdict("pipeline as a share of the floor", speedup(seconds, PIPELINE, FLOOR).median, at_least=0.85))
    print(verdict("share of the pipeline outside the encoder", outside.median, at_most=0.05))


def main() -> None:
    """Measures and prints everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=100.0, help="of speech in all [default: 100]")
    parser.add_argument("--batch-seconds", type=float, default=20.0, help="of an exact batch [default: 20]")
    parser.add_argument("--threads", type=int, default=2, help="of torch [default: 2]")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with TemporaryDirectory() as name:
        bench = Bench(Path(name), asked.seconds, asked.batch_seconds)
        print(machine_line())
        print(f"{len(bench.samples)} utterances, {bench.audio_s:.1f} s of speech, {asked.rounds} rounds")
        compare_values(bench)
        compare_speed(bench, asked.rounds)


if __name__ == "__main__":
    main()
