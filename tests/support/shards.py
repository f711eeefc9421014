"""A toy cache with streams of every kind, and pieces of it."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from cache.joined import AnyCache
from cache.layout import COMMITTED, FAILED, read_layout, read_weights
from cache.rebuild import build_file, plan_of
from cache.store import FeatureCache
from cache.writer import CacheWriter, writing_lock
from tests.support.toys import commit, create, plan_for, utterances_named

STREAMS = {"enc": "float16", "enc.codes": "uint16", "mel": "int8"}
NAMES = "abcdefgh"

# Of each utterance: its rows, its state in every stream, and which shard it is in.
DRAWN = st.lists(
    st.tuples(st.integers(0, 5), st.tuples(*[st.integers(0, 2)] * len(STREAMS)), st.integers(0, 2)),
    min_size=1,
    max_size=len(NAMES),
)
Drawn = Sequence[tuple[int, tuple[int, ...], int]]

DONE = (COMMITTED,) * len(STREAMS)
SIX: Drawn = [(3, DONE, 0), (0, DONE, 1), (5, DONE, 0), (1, DONE, 2), (4, DONE, 1), (2, DONE, 2)]  # a c, b e, d f


def write_whole(path: Path, drawn: Drawn) -> Path:
    """Writes a cache with the states that were drawn; every other committed row has a note."""
    lengths = [rows for rows, _, _ in drawn]
    states = np.array([state for _, state, _ in drawn])
    plans = [
        plan_for(
            lengths,
            name=name,
            dtype=dtype,
            failures=dict.fromkeys(np.flatnonzero(states[:, place] == FAILED).tolist(), f"{name} failed"),
        )
        for place, (name, dtype) in enumerate(STREAMS.items())
    ]
    create(path, utterances_named(NAMES[: len(drawn)]), plans, enc={"w": np.arange(3.0)})
    for place, plan in enumerate(plans):
        done = np.flatnonzero(states[:, place] == COMMITTED).tolist()
        commit(path, plan, done)
        with CacheWriter(read_layout(path)) as writer:
            for index in done[::2]:
                writer.note(plan.spec.name, index, "silent")
    return path


def write_piece(whole: Path, path: Path, ids: Sequence[str], streams: Sequence[str] = tuple(STREAMS)) -> Path:
    """Writes the cache of some utterances and streams of another one."""
    shutil.copy(whole, path)
    old = FeatureCache(path)
    utterances = [one for one in old.utterances if one.id in ids]
    plans = [plan_of(old.layout, old.streams[name], utterances) for name in streams]
    weights = read_weights(path) if "enc" in streams else {}
    with writing_lock(path):
        build_file(path, header=old.header, utterances=utterances, plans=plans, weights=weights)
    return path


def write_shards(whole: Path, folder: Path, drawn: Drawn) -> list[Path]:
    """Writes the shards that were drawn as ``shard-0.h5`` and so on; empty ones are left out."""
    members = [[NAMES[index] for index, (_, _, at) in enumerate(drawn) if at == shard] for shard in range(3)]
    return [write_piece(whole, folder / f"shard-{shard}.h5", ids) for shard, ids in enumerate(members) if ids]


def everything(cache: AnyCache) -> dict[tuple[str, str], tuple[Any, ...]]:
    """All that a cache holds, by stream and utterance."""
    return {
        (name, cache.ids[index]): (
            int(stream.state[index]),
            int(stream.lengths[index]),
            int(stream.checksum[index]),
            bytes(stream.input_digest[index]),
            stream.reason(index),
            [None if one is None else one.tobytes() for one in stream.stored(index)]
            if stream.state[index] == COMMITTED
            else [],
        )
        for name, stream in cache.streams.items()
        for index in range(len(cache))
    }
