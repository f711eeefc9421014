"""Reads changed run folders, packs and option texts, and checks that each ends in one line or in a result.

    python -m benchmarks.fuzz_runs --seconds 180

Files of a small valid run and of packs in the three layouts of mmer are changed: a value of their JSON is replaced by
an odd one, or bytes are overwritten, repeated and cut out. Option texts are drawn from the signs of their grammars.
Every error that is not a `cache.errors.MmerError` is a finding, and so is a reading that takes longer than 20 s. A
finding is printed with its seed, which makes it again.
"""

import json
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import click
import numpy as np

from benchmarks.fuzz_cache import mutate, write_seed
from cache.errors import MmerError
from cache.joined import open_cache
from cache.packs.base import check_stream
from cache.packs.catalog import open_pack
from cache.packs.export import export_pack
from cache.packs.native import WRITERS
from featurize.encoders.catalog import parse_requests
from fusion.end_to_end.learning.tune import parse_tunes
from fusion.evaluation.classes import CLASSIFICATION
from fusion.experiment.fields import parse_fields
from fusion.grid.space import parse_search
from fusion.protocols.filters import parse_filters
from fusion.protocols.labels import parse_labels
from fusion.run.artifacts import (
    find_damage,
    find_minor_damage,
    read_cost,
    read_probabilities,
    read_scores,
    write_predictions,
)
from fusion.run.folder import COST, CURVES, FORMAT_VERSION, RUN, SCORES, RunFolder

HANG_S = 20
CLASSES = ("happy", "sad")
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**63, 10**400, 1e308, float("nan"), float("inf")),
    *("", "..", "../../x", "a/b", "\0", "=1+1", "\ud800", "x" * 5000),
    *([], {}, [[]], [None], {"": None}, [1] * 1000),
)
SIGNS = (
    "=",
    "+",
    ",",
    ":",
    "@",
    "*",
    "?",
    "[",
    "]",
    "..",
    "-",
    "/",
    "~",
    "\\",
    "\0",
    " ",
    "\n",
    "'",
    '"',
    "é",
    "1e999",
)
WORDS = (
    "lr",
    "0.1",
    "audio",
    "text",
    "wave",
    "lora",
    "random",
    "tpe",
    "log",
    "happy",
    "hap",
    "10",
    "-3",
    "nan",
    "all",
    "",
)

Reader = Callable[[Path], object]


def write_run(path: Path) -> None:
    """Writes a run of one model by hand: its identity, scores, predictions, curves and cost."""
    run = RunFolder(path)
    identity = {
        "fusion": "audio",
        "head": {},
        "training": {"lr": 0.1},
        "seeds": [0],
        "labels": {name: [name] for name in CLASSES},
        "protocol": "random5",
        "folds": {"1": "digest"},
        "streams": {"audio": "wav"},
    }
    run.write(RUN, {"format_version": FORMAT_VERSION, "decides": identity, "cache": "a.h5", "notes": ["a note"]})
    model = run.model("1", 0)
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    write_predictions(model, ["a", "b", "c"], ["happy", "sad", "happy"], probabilities, CLASSES)
    scores = CLASSIFICATION.evaluate(np.array([0, 1, 0]), probabilities.argmax(axis=1), len(CLASSES))
    counts = {"fold": "1", "seed": 0, "epoch": 1, "train": 3, "dev": 3, "test": 3, "parameters": 10, "notes": []}
    counts |= {"test_of": 3, "over_limits": []}
    model.write_rows(CURVES, ["epoch", "loss", "dev_ua"], [[1, 0.5, 0.5]])
    model.write(COST, {"seconds": 1.0, "peak_bytes": 1, "device": "cpu"})
    model.write(SCORES, {**counts, **scores})


def read_run(path: Path) -> None:
    """Reads all that commands read of a run without its head."""
    run = RunFolder(path)
    identity = run.record["decides"]
    for model in run.models(identity):
        names = list(identity["labels"])
        find_damage(model, names)
        find_minor_damage(model)
        with suppress(MmerError):
            read_scores(model)
        with suppress(MmerError):
            read_cost(model)
        with suppress(MmerError):
            read_probabilities(model, names)


def read_pack(path: Path) -> None:
    """Reads a pack whole, as an import does."""
    pack = open_pack(path)
    for stream in pack.streams.values():
        check_stream(pack, stream)


def read_options(text: str) -> None:
    """Reads a text by every grammar of an option."""
    grammars: tuple[Callable[[], object], ...] = (
        lambda: parse_fields([text]),
        lambda: parse_search(text),
        lambda: parse_labels(text),
        lambda: parse_tunes([text]),
        lambda: parse_requests([text]),
        lambda: parse_filters({text: text}),
    )
    for parse in grammars:
        with suppress(MmerError):
            parse()


def change(folder: Path, seed: int) -> None:
    """Changes one file of a folder."""
    random_ = random.Random(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = random_.choice(files)
    if path.suffix == ".json" and random_.random() < 0.8:
        value = json.loads(path.read_text())
        path.write_text(json.dumps(_replaced(value, random_)))
        return
    content = path.read_bytes()
    path.write_bytes(mutate(content, seed) if content else b"\xff")


def _replaced(value: Any, random_: random.Random) -> Any:
    """Returns a value of JSON in which one value, at any depth, is an odd one, or one name is missing."""
    if isinstance(value, dict) and value and random_.random() < 0.85:
        name = random_.choice(list(value))
        if random_.random() < 0.1:
            return {other: held for other, held in value.items() if other != name}
        return {**value, name: _replaced(value[name], random_)}
    if isinstance(value, list) and value and random_.random() < 0.7:
        index = random_.randrange(len(value))
        return [*value[:index], _replaced(value[index], random_), *value[index + 1 :]]
    return random_.choice(ODD)


def attempt(read: Callable[[], object]) -> str:
    """Runs a reader; returns the last lines of a traceback that is not one line for the user, or nothing."""
    signal.alarm(HANG_S)
    try:
        read()
    except (MmerError, click.UsageError):
        return ""
    except BaseException as error:
        lines = traceback.format_exc().strip().splitlines()
        where = [line.strip() for line in lines if line.strip().startswith("File")]
        return f"{type(error).__name__}: {str(error)[:100]!r} at {where[-1] if where else ''}"
    finally:
        signal.alarm(0)
    return ""


def fuzz(folder: Path, *, seconds: float, seed: int) -> tuple[int, Counter[str]]:
    """Reads changed inputs for some seconds; returns their number and the findings."""
    originals: dict[Path, Reader] = {}
    write_seed(folder / "seed.h5")
    write_run(folder / "run")
    originals[folder / "run"] = read_run
    for layout in WRITERS:
        export_pack(open_cache(folder / "seed.h5"), folder / layout, layout=layout)
        originals[folder / layout] = read_pack
    for path, read in originals.items():
        read(path)  # unchanged
    model = RunFolder(folder / "run").model("1", 0)
    read_scores(model)
    read_probabilities(model, CLASSES)
    return _fuzz_copies(folder / "changed", originals, seconds=seconds, seed=seed)


def _fuzz_copies(
    changed: Path, originals: Mapping[Path, Reader], *, seconds: float, seed: int
) -> tuple[int, Counter[str]]:
    findings, number, end = Counter[str](), seed, time.monotonic() + seconds
    while time.monotonic() < end:
        random_ = random.Random(number)
        if random_.random() < 0.3:
            text = "".join(random_.choice((*SIGNS, *WORDS)) for _ in range(random_.randrange(1, 12)))
            found = attempt(lambda text=text: read_options(text))  # type: ignore[misc]
        else:
            original = random_.choice(list(originals))
            shutil.copytree(original, changed)
            change(changed, number)
            found = attempt(lambda original=original: originals[original](changed))  # type: ignore[misc]
            shutil.rmtree(changed)
        if found:
            findings[found] += 1
            print(f"seed {number}: {found}", flush=True)
        number += 1
    return number - seed, findings


def _hang(number: int, frame: FrameType | None) -> None:
    raise TimeoutError("hang")


@click.command()
@click.option("--seconds", default=180.0, show_default=True, help="Duration in seconds.")
@click.option("--seed", default=0, show_default=True, help="Seed of the first input; input n has this seed plus n.")
def main(seconds: float, seed: int) -> None:
    """Prints the findings and their number; exit code 1 if there is any."""
    signal.signal(signal.SIGALRM, _hang)
    with TemporaryDirectory() as folder:
        count, findings = fuzz(Path(folder), seconds=seconds, seed=seed)
    print(f"{count} inputs in {seconds:.0f} s: {findings.total()} findings of {len(findings)} kinds")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
