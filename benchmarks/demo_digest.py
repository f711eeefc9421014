"""Digests of everything that ``make demo`` computes, to show that a change of the code changed no number.

    make demo
    python -m benchmarks.demo_digest --expect benchmarks/demo_digests.json

One line per artifact: the values of every stream of the cache, the weights, probabilities and test scores of every
model, the pooled scores of every run. Times, costs and paths are left out, since two runs of the same code differ in
them; intervals are left out, since they follow from the probabilities by random draws that no format promises. Only
file formats are read (HDF5, safetensors, JSON, CSV), so the script works on the output of every version that writes
cache format 1 and run format 1.

Values depend on the processor, on the number of threads and on the versions of the packages. The recorded file names
those it was made with; where they differ from the present ones, different values do not prove a fault.
"""

import csv
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import h5py
import numpy as np
from safetensors.numpy import load_file

METRICS = ("wa", "ua", "wf1")  # a score that a later version adds changes no digest
DEV_SCORES = ("wa", "ua", "wf1", "loss")
COUNTS = ("epoch", "train", "dev", "test", "parameters")
OF_STREAM = ("offsets", "values", "scales", "state", "checksum", "input_digest", "reason")
DIGEST_BYTES = 6
PACKAGES = ("torch", "transformers", "numpy", "h5py", "librosa", "soxr")

Artifacts = dict[str, str]


def artifacts_of(folder: Path) -> Artifacts:
    """Computes the digest of every artifact below a folder in which ``make demo`` has run.

    Args:
        folder: holds ``cache/*.h5`` and ``runs/*``.

    Returns:
        Name of the artifact -> its digest, or its scores.

    Raises:
        click.ClickException: if there is no cache or no finished run.
    """
    caches = sorted((folder / "cache").glob("*.h5"))
    runs = sorted(path.parent for path in (folder / "runs").glob("*/results.json"))
    if not caches or not runs:
        raise click.ClickException(f"{folder} has {len(caches)} caches and {len(runs)} finished runs; run `make demo`")
    found: Artifacts = {}
    for cache in caches:
        found |= dict(cache_artifacts(cache))
    for run in runs:
        found |= dict(run_artifacts(run))
    return found


def cache_artifacts(path: Path) -> Iterator[tuple[str, str]]:
    """Yields the digests of a cache: its utterances, every stream, the start weights of every encoder."""
    with h5py.File(path, "r", locking=False) as file:
        name = path.stem
        columns = file["utterances"]
        yield f"cache {name}: utterances", digest(_array(column, columns[column][()]) for column in sorted(columns))
        for stream, group in file["streams"].items():
            parts = [_array(part, group[part][()]) for part in OF_STREAM if part in group]
            yield f"cache {name}: stream {stream}", digest(parts)
            yield f"cache {name}: key of {stream}", str(group.attrs["key"])[: 2 * DIGEST_BYTES]
        for encoder, weights in file.get("weights", {}).items():
            yield (
                f"cache {name}: weights of {encoder}",
                digest(_array(part, weights[part][()]) for part in sorted(weights)),
            )


def run_artifacts(path: Path) -> Iterator[tuple[str, str]]:
    """Yields the digests of a finished run, and those of every model in it."""
    run, results = _json(path / "run.json"), _json(path / "results.json")
    decides = run["decides"]
    name = f"run {decides['fusion']}"
    yield f"{name}: folder", path.name
    identity = {part: decides[part] for part in ("streams", "starts", "folds", "features", "labels", "protocol")}
    yield f"{name}: identity", digest([json.dumps(identity, sort_keys=True).encode()])
    yield f"{name}: splits", digest([(path / "splits.csv").read_bytes()])
    yield f"{name}: confusion", digest([(path / "confusion.csv").read_bytes()])
    for row in ("mean", "std", "pooled"):
        yield f"{name}: {row}", _scores(results[row])
    yield f"{name}: recall", " ".join(f"{label} {value!r}" for label, value in results["recall"].items())
    for part in sorted(folder.parent for folder in path.glob("*/scores.json")):
        yield from ((f"{name} {part.name}: {what}", value) for what, value in model_artifacts(part))


def model_artifacts(path: Path) -> Iterator[tuple[str, str]]:
    """Yields the digests of one model: weights, curves, probabilities, and its scores as they are."""
    weights = load_file(path / "weights.safetensors")
    yield "weights", digest(_array(name, weights[name]) for name in sorted(weights))
    yield "curves", digest(_curves(path / "curves.csv"))
    yield "probabilities", digest([(path / "predictions.csv").read_bytes()])
    scores = _json(path / "scores.json")
    yield "test", _scores(scores)
    yield "counts", " ".join(f"{name} {scores[name]}" for name in COUNTS)


def digest(parts: Any) -> str:
    """Computes a short digest of byte strings, 12 hexadecimal digits."""
    whole = blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        whole.update(len(part).to_bytes(8, "little"))
        whole.update(part)
    return whole.hexdigest()


def machine() -> dict[str, str]:
    """Describes all that the bits of the values depend on: processor, threads, versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": str(cores),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def differences(recorded: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Lists what differs between two mappings, a line each."""
    lines = []
    for name in {**recorded, **found}:
        expected, got = recorded.get(name, "nothing"), found.get(name, "nothing")
        if expected != got:
            lines.append(f"{name}: expected {expected}, got {got}")
    return lines


def compare(path: Path, found: Artifacts) -> int:
    """Compares artifacts with a recorded file and prints a line for each difference.

    Returns:
        The exit status: 0 if nothing differs, 1 otherwise.
    """
    recorded = _json(path)
    changed = differences(recorded["artifacts"], found)
    for line in changed:
        print(line)
    print(f"{len(changed)} of {len(recorded['artifacts'])} artifacts differ from {path}")
    elsewhere = differences(recorded["machine"], machine())
    if elsewhere:
        print(f"NOTE: {path} was recorded under other conditions ({'; '.join(elsewhere)})")
        print("      values may then differ in their last bits, and scores with them, without a fault in the code;")
        print("      to judge a change, run both versions here: --record with the old one, --expect with the new one")
    return 1 if changed else 0


def _array(name: str, values: Any) -> bytes:
    """Serializes an array with its name, type and shape; object arrays hold the strings of a table."""
    array = np.asarray(values)
    head = f"{name} {array.dtype.str if array.dtype != object else 'text'} {array.shape}\0".encode()
    if array.dtype == object:
        return head + b"\0".join(text if isinstance(text, bytes) else str(text).encode() for text in array.ravel())
    return head + np.ascontiguousarray(array).tobytes()


def _curves(path: Path) -> Iterator[bytes]:
    """Yields the columns of the curves: losses, and the dev scores that every version writes."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    dev = {f"dev_{name}" for name in DEV_SCORES}
    for column in sorted(rows[0]):
        if not column.startswith("dev_") or column in dev:
            yield ",".join([column, *(row[column] for row in rows)]).encode()


def _scores(scores: Mapping[str, Any]) -> str:
    return " ".join(f"{name} {scores[name]!r}" for name in METRICS)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.is_file() else []
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "model name" not in fields:
        return platform.processor() or platform.machine()
    # Virtual machines give different processors the same name; family and model tell them apart.
    numbers = ", ".join(f"{name} {fields[name]}" for name in ("cpu family", "model") if name in fields)
    vectors = ", AVX-512" if "avx512f" in fields.get("flags", "").split() else ""
    return f"{fields['model name']} ({numbers}{vectors})"


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path(), help="Folder in which `make demo` ran.")
@click.option("--expect", type=click.Path(path_type=Path, exists=True), help="Compare with this recorded file.")
@click.option("--record", type=click.Path(path_type=Path), help="Write the digests to this file.")
def main(folder: Path, expect: Path | None, record: Path | None) -> None:
    """Prints a digest of every artifact of ``make demo``, or compares them with recorded ones."""
    found = artifacts_of(folder)
    if record is not None:
        written = {"machine": machine(), "artifacts": found}
        record.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if expect is not None:
        sys.exit(compare(expect, found))
    for name, value in found.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
