"""A run folder: all that is needed to read a result, to check it, and to predict with it.

run.json            configuration, streams with their keys and specs, label set, protocol, notes, versions
splits.csv          label of every utterance of the cache, and its part in every fold
FOLD-seedS/         one folder for each model
    weights.safetensors   of the best epoch
    curves.csv            losses and dev scores of every epoch
    predictions.csv       of the test part: truth, guess and the probability of every class
    scores.json           written last: test scores, epoch, counts, parameters, digests of the files above
    cost.json             time, peak memory and device; the only file that no second run repeats
    state.safetensors     while it is being trained, or where its loss was not finite
results.json        what ``mmer-train --json`` prints
confusion.csv, confusion.png   over all test parts and seeds, rows are the truth
"""

import csv
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock, Timeout

from cache.errors import MmerError
from cache.files import replacing, writable
from fusion.fingerprint import Plain, filled

FORMAT_VERSION = 1
RUN, SCORES, RESULTS, COST = "run.json", "scores.json", "results.json", "cost.json"
WEIGHTS, STATE = "weights.safetensors", "state.safetensors"
CURVES, PREDICTIONS, SPLITS = "curves.csv", "predictions.csv", "splits.csv"
CONFUSION, CONFUSION_PNG = "confusion.csv", "confusion.png"
DECIDES = frozenset({"fusion", "seeds", "labels", "protocol", "folds"})  # what every description of a run holds
SECTIONS = ("head", "training")  # of fields
ELSEWHERE = "name another --out, or delete the folder"
NO_DEFAULTS: Plain = {}


class DamagedRun(MmerError):
    """A file of a run folder is not there, or not what was written."""


class Folder:
    """A folder of JSON, CSV and binary files, each written to a temporary name and renamed.

    Args:
        path: of the folder; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def delete(self, name: str) -> None:
        """Deletes a file, if it is there."""
        with writable(self.path):
            (self.path / name).unlink(missing_ok=True)

    def make(self) -> None:
        """Makes the folder, if it is not there."""
        with writable(self.path):
            self.path.mkdir(parents=True, exist_ok=True)

    def read(self, name: str) -> Any:
        """Reads one of the JSON files.

        Raises:
            Damaged: if it is not there, or not what was written.
            MmerError: if it cannot be read.
        """
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise _unreadable(self.path / name, error) from error

    def read_rows(self, name: str) -> list[dict[str, str]]:
        """Reads a CSV file.

        Raises:
            Damaged: if it is not there, or not what was written.
            MmerError: if it cannot be read.
        """
        try:
            with (self.path / name).open(newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file))
        except (OSError, ValueError, csv.Error) as error:
            raise _unreadable(self.path / name, error) from error

    def digest(self, name: str) -> str:
        """Gives the digest of a file.

        Raises:
            Damaged: if it is not there.
            MmerError: if it cannot be read.
        """
        try:
            with (self.path / name).open("rb") as file:
                return file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _unreadable(self.path / name, error) from error

    def write(self, name: str, value: object) -> None:
        """Writes a JSON file by a rename."""
        with self.replacing(name) as path:
            path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def write_rows(self, name: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Writes a CSV file by a rename."""
        with self.replacing(name) as path, path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(rows)

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """Gives a temporary path that takes the place of a file once it is written."""
        self.make()
        with replacing(self.path / name) as fresh:
            yield fresh


class ModelFolder(Folder):
    """The folder of one trained model, in a run folder or in the journal of a grid."""

    FILES = (WEIGHTS, CURVES, PREDICTIONS, SCORES, COST, STATE)

    @property
    def scored(self) -> bool:
        """Whether the model was scored on its test part; the scores are written last."""
        return (self.path / SCORES).exists()


class RunFolder(Folder):
    """The folder of one run, with a folder for each of its models in it."""

    def begin(self, described: Plain, recorded: Plain, defaults: Plain = NO_DEFAULTS) -> None:
        """Writes what the run is, or checks that the folder is of this very run.

        Args:
            identity: what decides the results.
            recorded: what is kept beside it and may differ.
            defaults: of fields by section, for a run that was begun before there was such a field.

        Raises:
            MmerError: if the folder holds another run, with what differs, or files of none, or cannot be written.
        """
        if not (self.path / RUN).exists():
            self._check_free(described)
            self.write(RUN, {"format_version": FORMAT_VERSION, "decides": described, **recorded})
            return
        held = filled(self.identity, defaults)
        if changed := _differences(held, json.loads(json.dumps(described))):
            told = "; ".join(changed[:4])
            raise MmerError(f"{self.path} holds another run ({told}); name another --out, or let it go by --replace")

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the results of the run in it.

        Raises:
            MmerError: if it holds none that can be read.
        """
        found = self.read(RUN)
        found = found if isinstance(found, dict) else {}
        version, described = found.get("format_version"), found.get("decides", {})
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise MmerError(f"{self.path / RUN} is of a newer mmer; update, or {ELSEWHERE}")
        if not isinstance(version, int) or not _is_description(described):
            raise MmerError(f"{self.path / RUN} is not of mmer-train; name another --out")
        return dict(described)

    def model(self, fold: str, seed: int) -> ModelFolder:
        """Returns the folder of one model."""
        return ModelFolder(self.path / f"{quote(fold, safe=' ')}-seed{seed}")

    def models(self, described: Plain) -> list[ModelFolder]:
        """Returns the folders of all models."""
        return [self.model(fold, seed) for seed in described["seeds"] for fold in described["folds"]]

    def clear(self) -> None:
        """Deletes the run in it, and nothing else.

        Raises:
            MmerError: if what is there cannot be read or deleted.
        """
        if not (self.path / RUN).exists():
            return
        for model in self.models(self.identity):
            if model.path.exists():
                with writable(model.path):
                    shutil.rmtree(model.path)
        for name in (RESULTS, CONFUSION, CONFUSION_PNG, SPLITS, RUN):  # the run itself last, should this be killed
            self.delete(name)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the right to train into the folder.

        Raises:
            MmerError: if another process does, or the folder cannot be written.
        """
        self.make()
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            with writable(self.path):
                lock.acquire()
        except Timeout:
            raise MmerError(f"another process trains into {self.path}; wait for it or name another --out") from None
        try:
            yield
        finally:
            lock.release()

    def _check_free(self, described: Plain) -> None:
        """Refuses files that a run would take the place of."""
        mine = [self.path / name for name in (RESULTS, CONFUSION, CONFUSION_PNG, SPLITS)]
        mine += [model.path / name for model in self.models(described) for name in ModelFolder.FILES]
        if found := next((path for path in mine if path.exists()), None):
            raise MmerError(f"{found} is in the way, and {self.path} holds no run; name another --out")


def _is_description(found: object) -> bool:
    """Tells whether something describes a run."""
    if not isinstance(found, dict) or not found.keys() >= DECIDES:
        return False
    return all(isinstance(found.get(section, {}), dict) for section in SECTIONS)


def _unreadable(path: Path, error: Exception) -> MmerError:
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return MmerError(f"{path} cannot be read ({error.strerror}); run it again once it can")
    why = error.strerror if isinstance(error, OSError) else error
    way_out = ELSEWHERE if path.name == RUN else "the command of its run trains anew what is missing"
    return DamagedRun(f"{path} cannot be read ({why}); {way_out}")


def _differences(held: Plain, asked: Plain, prefix: str = "") -> list[str]:
    told = []
    for name in {**asked, **held}:  # in the order that a run is described in
        mine, theirs = held.get(name), asked.get(name)
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            told += _differences(mine, theirs, f"{prefix}{name}.")
        elif mine != theirs:
            told.append(_difference(prefix, name, mine, theirs))
    return told


def _difference(prefix: str, name: str, mine: object, theirs: object) -> str:
    """Says what differs; of what is told by its digest alone, only that it does."""
    if prefix == "folds.":
        return f"fold {name} has other utterances or labels"
    by_digest = {"features": "the features are others", "source": "the source file of the head has changed"}
    return by_digest.get(prefix + name, f"{prefix}{name} {mine} -> {theirs}")
