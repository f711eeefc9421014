"""An epoch of training as long as IEMOCAP's, a sample of its batches, and a cache of noise for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.support.measure import iemocap_like
from benchmarks.support.noise import fill_cache
from cache.joined import AnyCache, open_cache
from cache.layout import StreamPlan
from cache.stream import StreamSpec
from cache.utterance import Utterance
from fusion.data.batches import training_batches

MEAN_FRAMES, MEAN_TOKENS, CLASSES, BATCH = 222, 18, "abcd", 32  # of IEMOCAP's turns, and of the trainer
UTTERANCES = 4_425  # of four sessions, four classes
STREAMS = {"audio": "frames", "text": "tokens", "chars": "ctc.chars"}
OURS, USUAL = "from the cache", "usual practice"


def draw_groups(batches: int) -> dict[str, list[list[int]]]:
    """Divides an epoch as each arm does and takes some batches of each, from short to long."""
    lengths = frames_and_tokens(UTTERANCES).sum(axis=0)
    ours = training_batches(lengths, batch_size=BATCH, data_seed=0, epoch=1)
    order = np.random.default_rng(2).permutation(UTTERANCES)
    usual = [order[first : first + BATCH] for first in range(0, UTTERANCES - BATCH, BATCH)]
    return {OURS: _spread(ours, lengths, batches), USUAL: _spread(usual, lengths, batches)}


def _spread(groups: Sequence[Any], lengths: Any, batches: int) -> list[list[int]]:
    ordered = sorted((group for group in groups if len(group) == BATCH), key=lambda group: int(lengths[group].max()))
    places = (np.arange(batches) + 0.5) / batches * len(ordered)
    return [ordered[int(place)].tolist() for place in places]


def frames_and_tokens(utterances: int) -> Any:
    """Draws the rows of each utterance, ``(2, n)``."""
    frames = iemocap_like(utterances, mean=MEAN_FRAMES).round().astype(np.int64).clip(min=8)
    return np.stack([frames, (frames * MEAN_TOKENS / MEAN_FRAMES).round().astype(np.int64).clip(min=3)])


def build_cache(path: Path, utterances: Sequence[Utterance], dim: int) -> AnyCache:
    """Fills a cache with noise for some utterances of the epoch: frames, token vectors, CTC targets.

    Args:
        path: of the file.
        utterances: whose ids are their places in the epoch.
        dim: width of frames and token vectors.
    """
    frames, tokens = frames_and_tokens(UTTERANCES)[:, [int(one.id) for one in utterances]]
    layouts = {"frames": ("audio", frames, dim, "float16"), "tokens": ("text", tokens, dim, "float16")}
    layouts["ctc.chars"] = ("chars", tokens * 2, 1, "uint8")
    plans = [
        StreamPlan(
            spec=StreamSpec(name=name, role=role, source="noise", shape=(width,), dtype=dtype, rate_hz=50.0),
            lengths=lengths,
            failures={},
        )
        for name, (role, lengths, width, dtype) in layouts.items()
    ]
    fill_cache(path, utterances, plans)
    return open_cache(path)
