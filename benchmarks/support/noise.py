"""A cache of noise, written by the project's own writer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cache.layout import StreamPlan, read_layout
from cache.rebuild import build_file
from cache.rows import to_stored
from cache.utterance import Utterance
from cache.writer import CacheWriter, Row

HEADER = {"mmer_version": "benchmark", "created": "", "corpus": {"name": "noise"}}
SYMBOLS = 5  # the first letter of the CTC vocabulary


def fill_cache(path: Path, utterances: Sequence[Utterance], plans: Sequence[StreamPlan]) -> None:
    """Fills every stream with random rows; those of uint8 are letters of the CTC vocabulary."""
    build_file(path, header=HEADER, utterances=utterances, plans=plans, weights={})
    random = np.random.default_rng(1)
    with CacheWriter(read_layout(path)) as writer:
        for plan in plans:
            for index, length in enumerate(plan.lengths.tolist()):
                rows = random.standard_normal((length, *plan.spec.shape), dtype=np.float32)
                rows = SYMBOLS + np.abs(rows * 8) if plan.spec.dtype == "uint8" else rows
                stored = to_stored(rows, plan.spec.dtype)
                writer.commit([Row(stream=plan.spec.name, index=index, stored=stored, digest=bytes(16))])
