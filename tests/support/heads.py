"""Small utterances with rows of every role, batches of them, and what heads are built from.

They are drawn once and shared by all tests of a process: nobody writes to them.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fusion.head import Batch
from fusion.head_config import HeadInputs

CLASSES = ("angry", "happy", "sad", "calm")
AUDIO, TEXT, PATCH = 24, 24, 16  # widths of the streams: 24 can be divided among 8 heads and among 12
GROUPS, CODES = 2, 8  # of the quantizer
SYMBOLS = 32  # of CTC; the blank is 0
TEXT_LAYER = 4  # the hidden state that the text stream holds: its start layers go on from there
WORDS = ("rage hate fury storm yell", "joy laugh glad smile cheer", "tears grief loss lonely gloom", "still rest soft")
COMMON = "the and then room door"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One utterance: its rows by role, ``(rows, ...)``, its class and its transcript."""

    rows: Mapping[str, Tensor]
    label: int
    text: str


def head_inputs(*, audio: tuple[int, ...] = (AUDIO,), text: tuple[int, ...] = (TEXT,)) -> HeadInputs:
    """Tells of streams of every role; text and ViT bring start layers, audio brings its quantizer."""
    shapes = {
        "audio": audio,
        "text": text,
        "mel": (80,),
        "patches": (PATCH,),
        "codes": (GROUPS,),
        "tokens": (3,),
        "chars": (1,),
        "audio.view": audio,
        "text.view": text,
    }
    quantizer = quantizer_weights(audio[-1])
    vit = vit_weights()
    return HeadInputs(
        classes=CLASSES,
        shapes=shapes,
        weights={
            "audio": quantizer,
            "codes": quantizer,
            "text": _text_weights(text[-1]),
            "mel": vit,
            "patches": vit,
        },
        layers={"audio": "last", "text": str(TEXT_LAYER), "patches": "last"},
    )


def samples(count: int, inputs: HeadInputs | None = None, *, seed: int = 0) -> list[Sample]:
    """Makes utterances whose classes take turns; features are noise, words and codes tell of their class."""
    shapes = (inputs or head_inputs()).shapes
    return list(_samples(tuple(shapes.items()), count, seed))


def collate(
    chosen: Sequence[Sample], *, extra: Mapping[str, int] | int = 0, noise: float = 0.0, dtype: Any = torch.float32
) -> Batch:
    """Pads samples to the longest, and by `extra` rows more, with random values up to `noise`."""
    roles = chosen[0].rows
    features, masks = {}, {}
    for role in roles:
        lengths = [len(one.rows[role]) for one in chosen]
        rows = max(lengths) + (extra if isinstance(extra, int) else extra.get(role, 0))
        whole = _padding((len(chosen), rows, *roles[role].shape[1:]), roles[role].dtype, noise)
        for place, one in enumerate(chosen):
            whole[place, : lengths[place]] = one.rows[role]
        features[role] = whole.to(dtype) if whole.is_floating_point() else whole
        masks[role] = torch.arange(rows) < torch.tensor(lengths)[:, None]
    labels = torch.tensor([one.label for one in chosen])
    return Batch(features=features, masks=masks, labels=labels, indices=torch.arange(len(chosen)))


def batch_of(count: int, inputs: HeadInputs | None = None, *, seed: int = 0) -> Batch:
    """Makes a batch of as many utterances."""
    return collate(samples(count, inputs, seed=seed))


def replaced(batch: Batch, role: str, features: Tensor) -> Batch:
    """Gives the batch with other features of one role."""
    return replace(batch, features={**batch.features, role: features})


@dataclass
class ToyRows:
    """The training part of a fold, as `prepare` sees it."""

    chosen: Sequence[Sample]
    labels: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.labels = np.array([one.label for one in self.chosen], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.chosen)

    def text(self, place: int) -> str:
        return self.chosen[place].text

    def length(self, role: str, place: int) -> int:
        return len(self.chosen[place].rows[role])

    def rows(self, role: str, place: int) -> npt.NDArray[Any]:
        return np.asarray(self.chosen[place].rows[role].numpy())


def layer_weights(dim: int, layers: Sequence[int], *, heads: int, norm_first: bool) -> dict[str, npt.NDArray[Any]]:
    """Makes the weights of Transformer layers as `featurize.encoders.start_weights` gives them."""
    weights: dict[str, npt.NDArray[Any]] = {
        "heads": np.array(heads),
        "norm_eps": np.array(1e-12),
        "norm_first": np.array(int(norm_first)),
    }
    with torch.device("meta"):
        layer = torch.nn.TransformerEncoderLayer(dim, heads, 2 * dim, batch_first=True)
    for index in layers:
        random = np.random.default_rng(index)
        for name, part in layer.state_dict().items():
            scale = 0.02 if part.ndim == 1 else 0.2
            values = random.standard_normal(part.shape) * scale + (name.startswith("norm") and "weight" in name)
            weights[f"layers.{index}.{name}"] = values.astype(np.float32)
    return weights


@functools.cache
def vit_weights() -> dict[str, npt.NDArray[Any]]:
    """Makes what a ViT over log-mel leaves in the cache."""
    random = np.random.default_rng(0)
    shapes = {
        "cls": (PATCH,),
        "patch.weight": (PATCH, 16, 16),
        "patch.bias": (PATCH,),
        "positions": (1 + 5 * 94, PATCH),
        "position_grid": (14, 14, PATCH),
        "norm.bias": (PATCH,),
    }
    drawn = {name: (random.standard_normal(shape) * 0.1).astype(np.float32) for name, shape in shapes.items()}
    norm = {"norm.weight": np.ones(PATCH, dtype=np.float32)}
    return drawn | norm | layer_weights(PATCH, range(3), heads=4, norm_first=True)


@functools.cache
def quantizer_weights(audio: int) -> dict[str, npt.NDArray[Any]]:
    """Makes what a quantizer of a wav2vec 2.0 leaves in the cache; codes and contexts meet in 12 dimensions."""
    random = np.random.default_rng(1)
    shapes = {
        "codevectors": (GROUPS * CODES, 5),
        "project_q.weight": (12, GROUPS * 5),
        "project_q.bias": (12,),
        "project_hid.weight": (12, audio),
        "project_hid.bias": (12,),
    }
    return {name: (random.standard_normal(shape) * 0.3).astype(np.float32) for name, shape in shapes.items()}


@functools.cache
def _text_weights(dim: int) -> dict[str, npt.NDArray[Any]]:
    return layer_weights(dim, range(TEXT_LAYER, TEXT_LAYER + 3), heads=4, norm_first=False)


@functools.cache
def _samples(shapes: tuple[tuple[str, tuple[int, ...]], ...], count: int, seed: int) -> tuple[Sample, ...]:
    random = np.random.default_rng(seed)
    return tuple(_sample(dict(shapes), random, label=index % len(CLASSES)) for index in range(count))


def _sample(shapes: Mapping[str, tuple[int, ...]], random: np.random.Generator, *, label: int) -> Sample:
    known = [CLASSES[label], *WORDS[label].split(), *COMMON.split()]
    words = [str(word) for word in random.choice(known, size=int(random.integers(4, 8)))]
    frames = int(random.integers(16, 25))  # enough for the 12 steps of CPC and for every character below
    mel = 2 * frames + 1
    tokens = _tokens(words)
    lengths = {
        "audio": frames,
        "text": len(tokens),
        "mel": mel,
        "patches": 1 + 5 * -(-mel // 16),
        "audio.view": frames,
        "text.view": len(tokens) + 1,
    }
    rows = {role: _normal(random, (length, *shapes[role])) for role, length in lengths.items()}
    rows["codes"] = torch.from_numpy((random.integers(0, CODES // 2, (frames, GROUPS)) + 2 * label) % CODES)
    rows["tokens"] = tokens
    rows["chars"] = torch.from_numpy(random.integers(5, SYMBOLS, (int(random.integers(3, 8)), 1)))
    return Sample(rows=rows, label=label, text=" ".join(words))


def _tokens(words: Sequence[str]) -> Tensor:
    """Gives a start token, two of history, one of each word with its span, and an end token."""
    rows, start = [(0, 0, 0), (9, 0, 0), (9, 0, 0)], 0
    for word in words:
        rows.append((10 + len(word), start, start + len(word)))
        start += len(word) + 1
    return torch.tensor([*rows, (2, 0, 0)])


def _normal(random: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(random.standard_normal(shape).astype(np.float32))


def _padding(shape: tuple[int, ...], dtype: torch.dtype, noise: float) -> Tensor:
    random = torch.Generator().manual_seed(len(shape))
    values = (2 * torch.rand(shape, generator=random) - 1) * noise
    return values.to(dtype) if dtype.is_floating_point else values.abs().to(dtype)
