"""Feature packs to test on: what a cache holds as plain values, and folders as other toolkits leave them."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.layout import COMMITTED
from cache.store import FeatureCache


def everything(path: Path) -> dict[str, Any]:
    """All that a cache knows, bytes of rows included; what is not committed has no digest, checksum or rows."""
    cache = FeatureCache(path)
    streams = {
        name: {
            "spec": stream.spec,
            "key": stream.key,
            "state": stream.state.tolist(),
            "lengths": stream.lengths.tolist(),
            "reasons": [stream.reason(index) for index in range(len(cache))],
            "committed": {
                index: (
                    bytes(stream.input_digest[index]),
                    int(stream.checksum[index]),
                    *(None if part is None else part.tobytes() for part in stream.stored(index)),
                )
                for index in np.flatnonzero(stream.state == COMMITTED).tolist()
            },
        }
        for name, stream in cache.streams.items()
    }
    encoders = {stream.spec.encoder for stream in cache.streams.values()}
    weights = {
        encoder: {name: (values.dtype, values.shape, values.tobytes()) for name, values in arrays.items()}
        for encoder in encoders
        if (arrays := cache.weights(encoder))
    }
    return {"utterances": list(cache.utterances), "header": cache.header, "streams": streams, "weights": weights}


def frames(rows: int, *, dim: int = 4, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng([rows, seed]).standard_normal((rows, dim)).astype(np.float32)


def write_emotion2vec(
    folder: Path, arrays: Mapping[str, npt.NDArray[Any]], *, name: str = "train", labels: Sequence[str] | None = None
) -> Path:
    """Packed features as its iemocap_downstream reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{name}.npy", np.concatenate(list(arrays.values())))
    (folder / f"{name}.lengths").write_text("".join(f"{len(array)}\n" for array in arrays.values()))
    emotions = labels or ["neu"] * len(arrays)
    (folder / f"{name}.emo").write_text(
        "".join(f"{one}\t{label}\n" for one, label in zip(arrays, emotions, strict=True))
    )
    return folder


def write_emobox(folder: Path, arrays: Mapping[str, npt.NDArray[Any]], *, dataset: str = "toy", **more: Any) -> Path:
    """One file per key and the metadata beside them, each record with these fields more."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for name, array in arrays.items():
        np.save(folder / f"{dataset}-{name}.npy", array)
        records.append(emobox_record(name, dataset=dataset, **more))
    (folder / f"{dataset}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def emobox_record(name: str, *, dataset: str = "toy", **more: Any) -> dict[str, Any]:
    return {
        "key": f"{dataset}-{name}",
        "dataset": dataset,
        "wav": f"downloads/{dataset}/wav/{name}.wav",
        "type": "raw",
        "sample_rate": 16000,
        "num_frame": 16000.0,
        "task": "category",
        "length": 1.0,
        "emo": "hap",
        "channel": 1,
        **more,
    }


def rewrite(file: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Changes every record of a file of JSON lines; None leaves it out."""
    records = [change(json.loads(line)) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(record) + "\n" for record in records if record is not None))
