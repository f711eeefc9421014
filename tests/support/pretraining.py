"""A corpus of tones in three sessions, its cache with convolutional features, and pre-trainings over it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import soundfile
import torch
from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining

from cache.joined import open_cache
from featurize.encoders.options import EncodingOptions
from featurize.extraction.job import ExtractionJob
from featurize.extraction.run import run_job
from fusion.end_to_end.pretraining.config import PretrainConfig
from fusion.end_to_end.pretraining.pretrain import PretrainedRun, PretrainRequest, pretrain_encoder
from fusion.training.checkpoint import EpochScores
from tests.support.checkpoints import QUANTIZER_SIZE
from tests.support.models import CPU, SPEECH_SIZE
from tests.support.voices import RATE_HZ, Silent, tone, write_corpus

TINY = ("wav2vec2-tiny", "wav2vec2-tiny@conv")
QUICK: dict[str, Any] = {"epochs": 1, "batch_size": 4, "lr": 0.001, "negatives": 10}
COUNT = 24


def write_sessions(folder: Path) -> Path:
    """Writes 24 tones of two speakers, two dialogues and two labels in each of three sessions, and the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(COUNT):
        session, place = divmod(index, COUNT // 3)
        name = f"u{index:02}"
        sound = tone(0.26 + 0.01 * index, pitch_hz=100 + 7 * index, seed=index)
        soundfile.write(folder / f"{name}.wav", sound, RATE_HZ)
        row = {"id": name, "label": ("sad", "happy")[place % 2], "speaker": f"{session + 1}{'FM'[place // 2 % 2]}"}
        rows.append({**row, "session": str(session + 1), "dialogue": f"d{session}{place // 4}"})
    return write_corpus(folder, rows)


def featurize_sessions(manifest: Path, cache: Path, *encoders: str, **options: Any) -> Path:
    """Featurizes the corpus, speech only."""
    run_job(
        ExtractionJob(
            corpus="manifest",
            root=manifest,
            cache=cache,
            encoders=encoders or TINY,
            options=EncodingOptions(device=CPU, **options),
            audio_only=True,
            mel=False,
        ),
        Silent(),
    )
    return cache


class Watcher:
    """Progress that is kept."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.started: list[tuple[str, int]] = []
        self.steps: list[int] = []
        self.epochs: list[EpochScores] = []
        self.ended = 0

    def note(self, note: str) -> None:
        self.notes.append(note)

    def start(self, fold: str, steps: int) -> None:
        self.started.append((fold, steps))

    def step(self, done: int) -> None:
        self.steps.append(done)

    def epoch(self, scores: EpochScores) -> None:
        self.epochs.append(scores)

    def end(self, scores: EpochScores) -> None:
        self.ended += 1


def pretrained(
    cache: Path,
    out: Path,
    watcher: Watcher | None = None,
    *,
    encoder: str = "wav2vec2-tiny",
    save_every_s: float = 60.0,
    replace: bool = False,
    stopping: Callable[[], bool] = lambda: False,
    config: dict[str, Any] | None = None,
    **request: Any,
) -> PretrainedRun:
    """Pre-trains quickly, on the first fold by default."""
    settings = PretrainConfig(**{**QUICK, **(config or {})})
    return pretrain_encoder(
        PretrainRequest(encoder=encoder, config=settings, **{"folds": ("1",), **request}),
        open_cache(cache),
        out=out,
        progress=watcher or Watcher(),
        save_every_s=save_every_s,
        replace=replace,
        stopping=stopping,
    )


def small_model(kind: Any = Wav2Vec2ForPreTraining, config: Any = Wav2Vec2Config, **changes: Any) -> Any:
    """A model for pre-training of 32 values, with dropout of every kind."""
    torch.manual_seed(0)
    size = {**SPEECH_SIZE, **QUANTIZER_SIZE, "num_negatives": 12, "attn_implementation": "sdpa"}
    drops = {"hidden_dropout": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.1, "layerdrop": 0.3}
    features = {"feat_proj_dropout": 0.1, "feat_quantizer_dropout": 0.1}
    return kind(config(**{**size, **drops, **features, **changes}))
