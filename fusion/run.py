"""A run folder: all that is needed to read a result, to check it, and to predict with it.

run.json            configuration, streams with their keys and specs, label set, protocol, notes, versions
splits.csv          fold, part and label of every utterance
FOLD-seedS/         one folder for each fold and seed
    weights.safetensors   of the best epoch
    curves.csv            losses and dev scores of every epoch
    predictions.csv       of the test part: truth, guess and the probability of every class
    scores.json           written last: test scores, epoch, counts, parameters, time, peak memory
    state.safetensors     while it is being trained
results.json        what ``mmer-train --json`` prints
confusion.csv, confusion.png   over all test parts and seeds, rows are the truth
"""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cache.errors import MmerError

RUN, SCORES, RESULTS = "run.json", "scores.json", "results.json"
WEIGHTS, STATE = "weights.safetensors", "state.safetensors"
CURVES, PREDICTIONS, SPLITS = "curves.csv", "predictions.csv", "splits.csv"


class RunFolder:
    """The folder of one run.

    Args:
        path: of the folder; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, described: Mapping[str, Any], recorded: Mapping[str, Any]) -> None:
        """Writes what the run is, or checks that the folder is of this very run.

        Args:
            described: what decides the results.
            recorded: what is kept beside it and may differ.

        Raises:
            MmerError: if the folder holds another run, with the fields that differ, or cannot be written.
        """
        held = self.read(RUN) if (self.path / RUN).exists() else None
        if held is not None and held["decides"] != json.loads(json.dumps(described)):
            changed = "; ".join(_differences(held["decides"], json.loads(json.dumps(described)))[:4])
            raise MmerError(f"{self.path} holds another run ({changed}); name another --out, or let it go by --replace")
        if held is None:
            self.write(RUN, {"decides": described, **recorded})

    def part(self, fold: str, seed: int) -> "RunFolder":
        """Gives the folder of one fold and seed."""
        safe = "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in fold)
        return RunFolder(self.path / f"{safe}-seed{seed}")

    def read(self, name: str) -> Any:
        """Reads one of the JSON files.

        Raises:
            MmerError: if it is not there or damaged.
        """
        try:
            return json.loads((self.path / name).read_text())
        except (OSError, ValueError) as error:
            raise MmerError(f"{self.path / name} cannot be read ({error}); train again, or name another run") from error

    def write(self, name: str, value: object) -> None:
        """Writes a JSON file by a rename."""
        self.write_text(name, json.dumps(value, indent=1, ensure_ascii=False) + "\n")

    def write_rows(self, name: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Writes a CSV file by a rename."""
        with self.replacing(name) as path, path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(rows)

    def read_rows(self, name: str) -> list[dict[str, str]]:
        """Reads a CSV file.

        Raises:
            MmerError: if it cannot be read.
        """
        try:
            with (self.path / name).open(newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file))
        except OSError as error:
            raise MmerError(f"{self.path / name} cannot be read ({error.strerror}); train again") from error

    def write_text(self, name: str, text: str) -> None:
        """Writes a text file by a rename."""
        with self.replacing(name) as path:
            path.write_text(text, encoding="utf-8")

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """Gives a temporary path that takes the place of a file once it is written."""
        fresh = self.path / f".{name}.{os.getpid()}"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            yield fresh
            fresh.replace(self.path / name)
        except OSError as error:
            raise MmerError(
                f"cannot write to {self.path} ({error.strerror}); name a writable place by --out"
            ) from error
        finally:
            fresh.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the right to train into the folder.

        Raises:
            MmerError: if another process does.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path / ".lock", timeout=0):
                yield
        except Timeout:
            raise MmerError(f"another process trains into {self.path}; wait for it or name another --out") from None
        except OSError as error:
            raise MmerError(
                f"cannot write to {self.path} ({error.strerror}); name a writable place by --out"
            ) from error

    def _unwritable(self, error: OSError) -> MmerError:
        return MmerError(f"cannot write to {self.path} ({error.strerror}); name a writable place by --out")


def _differences(held: Mapping[str, Any], asked: Mapping[str, Any], prefix: str = "") -> list[str]:
    told = []
    for name in sorted(held.keys() | asked.keys()):
        mine, theirs = held.get(name), asked.get(name)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            told += _differences(mine, theirs, f"{prefix}{name}.")
        elif mine != theirs:
            told.append(f"{prefix}{name} {mine} -> {theirs}")
    return told
