"""Small caches to test on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.layout import StreamPlan, read_layout
from cache.rebuild import build_file
from cache.rows import to_stored
from cache.stream import StreamSpec
from cache.utterance import Utterance
from cache.writer import CacheWriter, Row, writing_lock


def utterances_named(names: Sequence[str]) -> list[Utterance]:
    return [
        Utterance(id=name, audio=f"{name}.wav", text=f"text of {name}", label="sad", speaker="s1") for name in names
    ]


def plan_for(
    lengths: Sequence[int],
    *,
    name: str = "enc",
    dtype: str = "float16",
    dim: int = 4,
    failures: dict[int, str] | None = None,
) -> StreamPlan:
    role = {"uint16": "codes"}.get(dtype, "audio")
    spec = StreamSpec(name=name, role=role, source="a/b", weights="w", shape=(dim,), dtype=dtype, rate_hz=50.0)
    return StreamPlan(spec=spec, lengths=np.array(lengths, dtype=np.int64), failures=failures or {})


def values_for(plan: StreamPlan, index: int) -> npt.NDArray[Any]:
    """Different for every utterance and row, and the same whenever they are asked for."""
    rows = int(plan.lengths[index])
    values = np.random.default_rng([index, rows]).standard_normal((rows, *plan.spec.shape)).astype(np.float32)
    return (np.abs(values) * 100).astype(np.uint16) if plan.spec.dtype == "uint16" else values


def create(
    path: Path, utterances: Sequence[Utterance], plans: Sequence[StreamPlan], **weights: dict[str, npt.NDArray[Any]]
) -> int:
    header = {"mmer_version": "0", "created": "2026", "corpus": {"name": "toy", "root": "."}}
    with writing_lock(path):
        return build_file(path, header=header, utterances=utterances, plans=plans, weights=weights)


def commit(path: Path, plan: StreamPlan, indices: Sequence[int]) -> None:
    rows = [
        Row(
            stream=plan.spec.name,
            index=index,
            stored=to_stored(values_for(plan, index), plan.spec.dtype),
            digest=index.to_bytes(15, "big") + b"d",
        )
        for index in indices
    ]
    with writing_lock(path), CacheWriter(read_layout(path)) as writer:
        writer.commit(rows)
