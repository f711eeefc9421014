"""One epoch of fine-tuning from the cache, against the usual loop that starts from waveforms in every epoch.

Claims, for an encoder of base size (wav2vec2-base, random weights) under a linear head:

- Training the top 3 layers from the cached stream below them is at least 3 times as fast as the usual loop, which runs
  the whole encoder and trains the same layers.
- Training all layers from the cached features of the convolutions is at least 1.3 times as fast as the usual loop with
  frozen convolutions.

The usual loop is what tutorials show: shuffled batches of waveforms, padded to the longest, through the model of
Hugging Face with its attention mask. Lengths are those of IEMOCAP's turns. Every arm runs in a process of its own, in
turn, with the dropouts of the configuration; peak memory is that of the process on a CPU and of tensors on a GPU. Run
it by ``python -m benchmarks.bench_finetune``.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from benchmarks.support.arm import Arm, resident_peak_mb
from benchmarks.support.iemocap import MEAN_FRAMES
from benchmarks.support.measure import Spread, alternate, iemocap_like, machine_line, speedup, verdict
from benchmarks.support.noise import fill_cache
from cache.joined import open_cache
from cache.layout import StreamPlan
from cache.stream import StreamSpec
from cache.utterance import Utterance
from cli.output import print_table
from featurize.encoders.layers import parse_layers
from featurize.runtime.memory import keep_freed_memory
from fusion.data.batches import training_batches
from fusion.data.features import CachedFeatures
from fusion.data.memory import peak_memory
from fusion.end_to_end.learning.model import TunedModel, learning_encoder
from fusion.end_to_end.learning.source import LoadedEncoder
from fusion.end_to_end.learning.start import Start
from fusion.end_to_end.learning.tune import Tune
from fusion.head_config import AUDIO, HeadInputs
from fusion.heads.build import build_head
from fusion.heads.catalog import config_for
from fusion.nn.dropout import set_step
from fusion.training.config import TrainConfig
from fusion.training.steps import build_optimizer

LAYERS, TOP, CLASSES, BATCH = 12, 3, 4, 8
CONV, HIDDEN = 512, 768
STREAMS = {"conv": CONV, str(LAYERS - TOP): HIDDEN}
ARMS = (("cache", TOP), ("usual", TOP), ("cache", 0), ("usual", 0))
HOUR = 3600


def name_of(kind: str, layers: int) -> str:
    return f"{'from the cache' if kind == 'cache' else 'usual loop'}, {f'top {layers}' if layers else 'all'} layers"


def frames_of(utterances: int) -> Any:
    return iemocap_like(utterances, mean=MEAN_FRAMES).round().astype(np.int64).clip(min=8)


class OurEpoch:
    """An epoch as the trainer does it."""

    def __init__(self, folder: Path, layers: int, device: torch.device) -> None:
        model: Any = Wav2Vec2Model(Wav2Vec2Config())
        model.eval()
        cache = open_cache(folder / "cache.h5")
        name = str(LAYERS - layers) if layers else "conv"
        labels = np.arange(len(cache)) % CLASSES
        self.source = CachedFeatures(cache, {AUDIO: name}, labels, device=device)
        start = Start(
            tune=Tune(role=AUDIO, layers=layers),
            spec=cache.stream(name).spec,
            first=LAYERS - layers if layers else None,
            choice=parse_layers("last", layers=LAYERS, encoder="base"),
            dim=HIDDEN,
            weights="",
        )
        config = TrainConfig()
        inputs = HeadInputs(classes=tuple("abcd"), shapes={AUDIO: (HIDDEN,)}, tuned=frozenset({AUDIO}))
        head = build_head("audio", config_for("audio", {}), inputs, seed=0)
        encoder = learning_encoder(start, model, config)
        loaded = LoadedEncoder(whole=model, companion=None)
        self.model = TunedModel(head, {AUDIO: encoder}, {AUDIO: loaded}, {AUDIO: start}, config).to(device).train()
        self.optimizer = build_optimizer(self.model, name="adamw", lr=1e-4, weight_decay=0.01)
        self.step = 0

    def run(self) -> None:
        everything = np.arange(len(self.source.ids))
        lengths = self.source.lengths(everything, [AUDIO])
        groups = training_batches(lengths, batch_size=BATCH, data_seed=0, epoch=1)
        for batch in self.source.batches(groups, [AUDIO]):
            set_step(self.model, self.step)
            loss = nn.functional.cross_entropy(self.model(batch).logits, batch.labels)
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.step += 1


class UsualEpoch:
    """An epoch from waveforms."""

    def __init__(self, folder: Path, layers: int, device: torch.device) -> None:
        self.model, self.device = Wav2Vec2Model(Wav2Vec2Config()).to(device).train(), device  # type: ignore[arg-type]
        frozen: list[Any] = [self.model.feature_extractor, self.model.feature_projection.layer_norm]
        if layers:
            below = [self.model.encoder.pos_conv_embed, self.model.encoder.layer_norm]
            frozen += [self.model.feature_projection, *below, *self.model.encoder.layers[: LAYERS - layers]]
        for module in frozen:
            module.requires_grad_(False)
        self.classifier = nn.Linear(HIDDEN, CLASSES).to(device)
        self.trained = [
            weight for weight in [*self.model.parameters(), *self.classifier.parameters()] if weight.requires_grad
        ]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-5)
        random = np.random.default_rng(1)
        frames = frames_of(len(open_cache(folder / "cache.h5")))
        self.waves = [torch.from_numpy(random.standard_normal(320 * count + 80, dtype=np.float32)) for count in frames]

    def run(self) -> None:
        order = np.random.default_rng(2).permutation(len(self.waves))
        for first in range(0, len(order), BATCH):
            waves = [self.waves[index] for index in order[first : first + BATCH]]
            batch = nn.utils.rnn.pad_sequence(waves, batch_first=True).to(self.device)
            lengths = torch.tensor([len(wave) for wave in waves], device=self.device)
            mask = torch.arange(batch.shape[1], device=self.device) < lengths[:, None]
            hidden = self.model(batch, attention_mask=mask.long()).last_hidden_state
            valid = self.model._get_feature_vector_attention_mask(hidden.shape[1], mask.long()).bool()
            pooled = hidden.masked_fill(~valid[:, :, None], 0).sum(dim=1) / valid.sum(dim=1)[:, None]
            labels = torch.from_numpy(order[first : first + BATCH] % CLASSES).to(self.device)
            loss = nn.functional.cross_entropy(self.classifier(pooled), labels)
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(self.trained, 1.0)
            self.optimizer.step()


def serve(kind: str, layers: int, folder: Path, device_name: str, answers: Any) -> None:
    """Trains epochs and answers with the peak memory until it is asked to end."""
    device = torch.device(device_name)
    if kind == "cache":
        keep_freed_memory()
    epoch = (OurEpoch if kind == "cache" else UsualEpoch)(folder, layers, device)
    while answers.recv() != "end":
        epoch.run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        answers.send(peak_memory(device) / 2**20 if device.type == "cuda" else resident_peak_mb())


def write_streams(folder: Path, utterances: int) -> None:
    """Writes a cache of noise with the two streams from which learning starts."""
    plans = [
        StreamPlan(
            spec=StreamSpec(
                name=name, role=AUDIO, source="noise", layers=name, shape=(width,), dtype="float16", rate_hz=50.0
            ),
            lengths=frames_of(utterances),
            failures={},
        )
        for name, width in STREAMS.items()
    ]
    fill_cache(folder / "cache.h5", [Utterance(id=str(index)) for index in range(utterances)], plans)


def disk_mb(kind: str, layers: int) -> float:
    """Gives the size of what an epoch reads, for an hour of speech."""
    bytes_per_s = 50 * 2 * (HIDDEN if layers else CONV) if kind == "cache" else 16_000 * 2
    return bytes_per_s * HOUR / 1e6


def measure(folder: Path, *, rounds: int, device: str) -> tuple[list[list[object]], list[str]]:
    """Trains all arms in turn; gives table rows and verdicts."""
    arms = {name_of(kind, layers): Arm(serve, kind, layers, folder, device) for kind, layers in ARMS}
    seconds = alternate({name: partial(arm, "epoch") for name, arm in arms.items()}, rounds=rounds)
    table: list[list[object]] = []
    ratios: dict[int, Spread] = {}
    for kind, layers in ARMS:
        name = name_of(kind, layers)
        ratio = speedup(seconds, name, name_of("usual", layers))
        ratios |= {layers: ratio} if kind == "cache" else {}
        peak = arms[name]("epoch")
        table.append(
            [name, Spread.of(seconds[name]).text(), ratio.text(), f"{peak:,.0f}", f"{disk_mb(kind, layers):,.0f}"]
        )
    for arm in arms.values():
        arm.end()
    return table, [
        verdict("epoch of the top 3 layers, times the usual loop", ratios[TOP].median, at_least=3.0),
        verdict("epoch of all layers, times the usual loop", ratios[0].median, at_least=1.3),
    ]


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--utterances", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args(given)
    print(machine_line())
    with TemporaryDirectory() as folder:
        write_streams(Path(folder), asked.utterances)
        table, verdicts = measure(Path(folder), rounds=asked.rounds, device=asked.device)
    print_table(("arm", "s for an epoch", "times as fast", "peak, MB", "read, MB for 1 h"), table)
    print(*verdicts, sep="\n")


if __name__ == "__main__":
    main()
