"""Run folder: the files of one run, enough to read its results, to check them, and to predict with its models.

run.json            configuration, streams with their keys and specs, label set, protocol, notes, versions
splits.csv          label of every utterance of the cache, and its subset in every fold
FOLD-seedS/         one folder for each model
    weights.safetensors   weights of the best epoch
    curves.csv            losses and dev scores of every epoch
    predictions.csv       test subset: truth, guess and the probability of every class
    scores.json           written last: test scores, epoch, counts, parameters, digests of the files above
    cost.json             time, peak memory and device; the only file that differs in a repeated run
    state.safetensors     checkpoint during training, or after a loss that was not finite
    selected.json         with ``refit``: epoch and curves of the first training, whose dev selected the epoch
    refit.safetensors     with ``refit``, checkpoint of the second training
    audio/, text/         tuned encoders as checkpoints, with the data that they were trained on
final-seedS/        with ``--final``, the model of all utterances for one seed: weights, curves and cost as above, and
    final.json            written last: epochs, counts, parameters, notes, digests of weights and curves; no scores
config.toml         the options of the run, for ``--config``
results.json        the output of ``mmer-train --json``; docs/runs.md lists its keys
results.md          the same for readers: scores, those of each class, notes
confusion.csv, confusion.png   confusion matrix over all test subsets and seeds, rows are the truth
values.png                     of dimensions instead: rated and predicted values
losses.png, dev_scores.png     losses and dev scores by epoch, with the chosen epochs
    ``--pictures`` writes them as ``.pdf`` or ``.svg`` instead
"""

import csv
import errno
import filecmp
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from filelock import Timeout

from cache.errors import MmerError
from cache.files import check_regular, check_unused, lock_of, replacing, writable
from cache.json_text import is_number, parse_json
from cache.stream import StreamSpec
from fusion.csv_cells import plain_cells, restored_cell
from fusion.evaluation.catalog import TASKS
from fusion.experiment.config_file import CONFIG
from fusion.fingerprint import Plain, with_defaults

FORMAT_VERSION = 1
RUN, SCORES, RESULTS, COST = "run.json", "scores.json", "results.json", "cost.json"
RESULTS_MD = "results.md"
FINAL, FINAL_JSON = "final", "final.json"  # in place of a fold: the model of all utterances, and its record
WEIGHTS, STATE = "weights.safetensors", "state.safetensors"
SELECTED, REFIT_STATE = "selected.json", "refit.safetensors"  # of a run with refit
CURVES, PREDICTIONS, SPLITS = "curves.csv", "predictions.csv", "splits.csv"
CONFUSION = "confusion.csv"
# Pictures without the ending of their format.
CONFUSION_PICTURE, VALUES, LOSSES, DEV_SCORES = "confusion", "values", "losses", "dev_scores"
PICTURES = tuple(
    f"{name}.{kind}" for name in (CONFUSION_PICTURE, VALUES, LOSSES, DEV_SCORES) for kind in ("png", "svg", "pdf")
)
OF_RUN = (RESULTS, RESULTS_MD, CONFUSION, *PICTURES, SPLITS)  # files next to run.json
IDENTITY_KEYS = frozenset({"fusion", "seeds", "labels", "protocol", "folds"})  # in the identity of every run
SECTIONS = ("head", "training")  # sections of fields in an identity
ELSEWHERE = "choose another --out"
NAME_CHARACTERS = 240  # of a fold, in the name of its folders; a file name has at most 255 bytes
NO_DEFAULTS: Plain = {}


class DamagedRun(MmerError):
    """A file of a run folder is missing, or its content is not what was written."""


class Folder:
    """A folder of JSON, CSV and binary files, each written to a temporary name and renamed.

    Args:
        path: path of the folder, which is created when a file is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def delete(self, name: str) -> None:
        """Deletes a file if it exists."""
        if (self.path / name).exists():  # a read-only disk refuses to delete a missing file too
            with writable(self.path):
                (self.path / name).unlink(missing_ok=True)

    def make(self) -> None:
        """Creates the folder if it does not exist."""
        with writable(self.path):
            self.path.mkdir(parents=True, exist_ok=True)

    def read(self, name: str) -> Any:
        """Reads a JSON file.

        Raises:
            DamagedRun: if the file is missing or is not JSON.
            MmerError: if the file cannot be read.
        """
        try:
            check_regular(self.path / name)
            return parse_json((self.path / name).read_text(encoding="utf-8"), finite=False)
        except (OSError, RecursionError, ValueError) as error:
            raise _unreadable(self.path / name, error) from error

    def read_rows(self, name: str) -> list[dict[str, str]]:
        """Reads a CSV file.

        Raises:
            DamagedRun: if the file is missing or is not CSV.
            MmerError: if the file cannot be read.
        """
        try:
            check_regular(self.path / name)
            with (self.path / name).open(newline="", encoding="utf-8") as file:
                return [_restored(row) for row in csv.DictReader(file)]
        except (OSError, ValueError, csv.Error) as error:
            raise _unreadable(self.path / name, error) from error

    def digest(self, name: str) -> str:
        """Computes the SHA-256 digest of a file, hexadecimal.

        Raises:
            DamagedRun: if the file is missing.
            MmerError: if the file cannot be read.
        """
        try:
            check_regular(self.path / name)
            with (self.path / name).open("rb") as file:
                return file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _unreadable(self.path / name, error) from error

    def write(self, name: str, value: object) -> None:
        """Writes a JSON file to a temporary name and renames it."""
        with self.replacing(name) as path:
            path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def write_rows(self, name: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Writes a CSV file to a temporary name and renames it; no cell starts a formula of a spreadsheet."""
        with self.replacing(name) as path, path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(plain_cells(header))
            writer.writerows(map(plain_cells, rows))

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """Yields a temporary path that replaces a file after the block."""
        self.make()
        with replacing(self.path / name) as temporary:
            yield temporary


class ModelFolder(Folder):
    """The folder of one trained model, in a run folder or in the journal of a grid."""

    FILES = (WEIGHTS, CURVES, PREDICTIONS, SCORES, FINAL_JSON, COST, STATE, SELECTED, REFIT_STATE)

    @property
    def scored(self) -> bool:
        """True if the model was scored on its test subset; the scores are written last."""
        return (self.path / SCORES).exists()


class RunFolder(Folder):
    """The folder of one run, with a folder for each of its models."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._cleared = False  # True after a run was deleted: files that a user put next to it are no reason to stop
        self._unwritable: MmerError | None = None  # why the files of a finished run are compared instead of written
        self._differs: dict[str, bool] = {}  # by name of a compared file

    def begin(self, identity: Plain, provenance: Plain, defaults: Plain = NO_DEFAULTS) -> None:
        """Writes run.json, or checks that the folder holds the same run.

        Args:
            identity: everything that decides the results.
            provenance: other information to keep, which may differ when the run is resumed.
            defaults: default values of fields by section, for a run of a version that did not have a field.

        Raises:
            MmerError: if the folder holds a different run or files that do not belong to a run, or cannot be written.
        """
        if not (self.path / RUN).exists():
            _check_names(identity["folds"])
            self._check_free(identity)
            self.write(RUN, {"format_version": FORMAT_VERSION, "decides": identity, **provenance})
            return
        self.check(identity, defaults)
        held, requested = self.identity["seeds"], list(identity["seeds"])
        if held != requested:
            self._add_seeds(requested)

    def check(self, identity: Plain, defaults: Plain = NO_DEFAULTS) -> None:
        """Checks that the folder, which has a run.json, holds a run; writes nothing.

        Args:
            identity: everything that decides the results of the run.
            defaults: as in `begin`.

        Raises:
            MmerError: if the folder holds a different run.
        """
        held = with_defaults(self.identity, defaults)
        expected = json.loads(json.dumps(identity))
        if held["seeds"] != expected["seeds"] and {**held, "seeds": expected["seeds"]} == expected:
            self._check_seeds(held["seeds"], expected["seeds"])
        elif differences := _differences(held, expected):
            raise MmerError(
                f"{self.path} already holds a different run ({'; '.join(differences[:4])}); "
                "choose another --out, or pass --replace to overwrite it"
            )

    @property
    def outdated(self) -> list[str]:
        """Files of a finished run that would be written otherwise, in a folder that cannot be written."""
        return [name for name, differs in self._differs.items() if differs]

    @property
    def finished(self) -> bool:
        """True if the folder holds a run whose models are all scored."""
        held = self.held
        return bool(held) and all(model.scored for model in self.models(held))

    @property
    def read_only(self) -> bool:
        """True if `locked` has accepted a folder that cannot be written."""
        return self._unwritable is not None

    def check_writable(self) -> None:
        """Raises the error of a folder that cannot be written, where `locked` has accepted it."""
        if self._unwritable is not None:
            raise self._unwritable

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """Yields a temporary path that replaces a file after the block; see `locked` for a folder without access."""
        if self._unwritable is None:
            with super().replacing(name) as temporary:
                yield temporary
            return
        with TemporaryDirectory() as folder:
            temporary, present = Path(folder) / name, self.path / name
            yield temporary
            self._differs[name] = not present.exists() or not filecmp.cmp(temporary, present, shallow=False)

    def _check_seeds(self, held: Sequence[int], requested: Sequence[int]) -> None:
        """Raises an error if the run of the folder has a seed that is not requested: its results would lack it."""
        missing = [str(seed) for seed in held if seed not in requested]
        if missing:
            raise MmerError(
                f"{self.path} already holds this run with seed {', '.join(map(str, held))}; also pass --seed "
                f"{' --seed '.join(missing)} to add to it, choose another --out, or pass --replace to overwrite it"
            )

    def _add_seeds(self, requested: Sequence[int]) -> None:
        """Extends the run of the folder by seeds; its models stay."""
        self.check_writable()
        record = self.record
        self.delete(CONFIG)  # it names the seeds; the run writes it again
        self.write(RUN, {**record, "decides": {**record["decides"], "seeds": list(requested)}})

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the results of the run in the folder.

        Raises:
            DamagedRun: if run.json is missing or is not JSON.
            MmerError: if run.json cannot be read, or was written by a newer version or another program.
        """
        return dict(self.record["decides"])

    @property
    def record(self) -> dict[str, Any]:
        """The content of run.json, whose values have the types that a run writes.

        Raises:
            DamagedRun: if run.json is missing or is not JSON.
            MmerError: if run.json cannot be read, or was written by a newer version or another program.
        """
        if not (self.path / RUN).exists():
            problem = f"has no {RUN}" if self.path.is_dir() else "does not exist"
            raise DamagedRun(
                f"{self.path} is not a run folder, it {problem}; expected the folder that mmer-train printed"
            )
        record = self.read(RUN)
        record = record if isinstance(record, dict) else {}
        version, identity = record.get("format_version"), record.get("decides", {})
        if isinstance(version, int) and version > FORMAT_VERSION:
            found = f"format {version}, this version reads up to {FORMAT_VERSION}"
            raise MmerError(f"{self.path / RUN} was written by a newer mmer ({found}); upgrade mmer, or {ELSEWHERE}")
        if not isinstance(version, int) or not isinstance(identity, dict) or not identity.keys() >= IDENTITY_KEYS:
            raise MmerError(f"{self.path / RUN} was not written by mmer-train; choose another --out")
        if wrong := [*_wrong(identity, IDENTITY), *_wrong(record, PROVENANCE)]:
            raise MmerError(f"{self.path / RUN} is damaged ({', '.join(wrong)} of another type); choose another --out")
        return record

    @property
    def held(self) -> dict[str, Any]:
        """The identity of the run in the folder; empty if there is none."""
        return self.identity if (self.path / RUN).exists() else {}

    def model(self, fold: str, seed: int) -> ModelFolder:
        """Returns the folder of one model."""
        return ModelFolder(self.path / f"{quote(fold, safe=' ')}-seed{seed}")

    def models(self, identity: Plain) -> list[ModelFolder]:
        """Returns the folders of all models of a run."""
        return [self.model(fold, seed) for seed in identity["seeds"] for fold in identity["folds"]]

    def final_models(self, identity: Plain) -> list[ModelFolder]:
        """Returns the folders of the final models of a run, which exist only if they were requested."""
        return [self.model(FINAL, seed) for seed in identity["seeds"]]

    def clear(self) -> None:
        """Deletes the run in the folder and no other file.

        Raises:
            MmerError: if a file cannot be read or deleted.
        """
        if not (self.path / RUN).exists():
            return
        self._cleared = True
        for model in [*self.models(self.identity), *self.final_models(self.identity)]:
            if model.path.exists():
                with writable(model.path):
                    shutil.rmtree(model.path)
        for name in (*OF_RUN, CONFIG, RUN):  # run.json last, in case the process is killed
            self.delete(name)

    @contextmanager
    def locked(self, *, or_finished: bool = False) -> Iterator[None]:
        """Holds the lock of the folder.

        Args:
            or_finished: accept a finished run in a folder that cannot be written. Its files are then compared instead
                of written; those that differ are `outdated`.

        Raises:
            MmerError: if another process holds it, or the folder cannot be written.
        """
        lock = lock_of(self.path / ".lock")
        try:
            self.make()
            with writable(self.path):
                lock.acquire()
                if not os.access(self.path, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.path))
        except MmerError as error:
            if not or_finished or not self.finished:
                raise
            self._unwritable = error
        except Timeout:
            way_out = "wait until it ends, or choose another --out"
            raise MmerError(f"another process is training into {self.path}; {way_out}") from None
        try:
            yield
        finally:
            lock.release()

    def _check_free(self, identity: Plain) -> None:
        """Raises an error if the folder has files that a run would overwrite."""
        models = [*self.models(identity), *self.final_models(identity)]
        written = [self.path / name for name in OF_RUN]
        written += [model.path / name for model in models for name in ModelFolder.FILES]
        if found := next((path for path in written if path.exists()), None):
            raise MmerError(f"{found} already exists, but {self.path} has no {RUN}; choose another --out")
        if not self._cleared:
            check_unused(self.path)


def check_recorded(runs: Sequence[Path]) -> None:
    """Checks that folders are those of runs, in their order.

    Raises:
        MmerError: if the record of one is missing or damaged.
    """
    _ = [RunFolder(run).record for run in runs]


def check_compared(runs: Sequence[Path]) -> None:
    """Checks that two or more run folders are given for a comparison, each once; reads none of them.

    Raises:
        MmerError: if there are fewer, or one is given twice.
    """
    if len(runs) < 2:
        raise MmerError(f"a comparison needs two or more finished runs, got {len(runs)}; pass each folder")
    resolved = [path.resolve() for path in runs]
    for index, path in enumerate(resolved):
        if path in resolved[:index]:
            raise MmerError(f"{runs[index]} is given twice; name each run once")


def _check_names(folds: Iterable[str]) -> None:
    """Raises an error for a fold whose name is too long for a folder."""
    for name in folds:
        if len(quote(name)) > NAME_CHARACTERS:
            raise MmerError(
                f"the name of fold {name[:20]}... is too long for a folder ({len(quote(name))} characters); at most "
                f"{NAME_CHARACTERS} are allowed; shorten it in the table of the corpus, and run mmer-featurize again"
            )


def _restored(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a row of a CSV file with the texts that were written; extra cells are a list under None."""
    return {
        restored_cell(name) if isinstance(name, str) else name: restored_cell(cell) if isinstance(cell, str) else cell
        for name, cell in row.items()
    }


def encoder_weights(role: str) -> str:
    """Returns the name of the weight file of a tuned encoder, relative to the folder of its model."""
    return f"{role}/model.safetensors"


def _wrong(values: Plain, kinds: Mapping[str, Callable[[object], bool]]) -> list[str]:
    """Lists the values of run.json that are not of the kind that a run writes."""
    return [name for name, fits in kinds.items() if name in values and not fits(values[name])]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _has_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _are_labels(value: object) -> bool:
    return isinstance(value, dict) and all(map(_are_texts, value.values()))


def _are_folds(value: object) -> bool:
    return _has_texts(value) and all(len(quote(name)) <= NAME_CHARACTERS for name in value)  # type: ignore[attr-defined]


def _are_seeds(value: object) -> bool:
    return isinstance(value, list) and all(type(seed) is int and is_number(seed) for seed in value)


def _are_specs(value: object) -> bool:
    try:
        return isinstance(value, dict) and all(StreamSpec.from_json(json.dumps(spec)) for spec in value.values())
    except ValueError:
        return False


def _is_task(value: object) -> bool:
    return isinstance(value, str) and value in TASKS


# Values that programs read, where a run has them: of an identity, from which names of folders are made, and others.
IDENTITY: Mapping[str, Callable[[object], bool]] = {
    "fusion": _is_text,
    "seeds": _are_seeds,
    "labels": _are_labels,
    "protocol": _is_text,
    "folds": _are_folds,
    "task": _is_task,
    "tune": _has_texts,
    "streams": _has_texts,
    **dict.fromkeys(SECTIONS, _is_object),
}
PROVENANCE: Mapping[str, Callable[[object], bool]] = {
    "cache": _is_text,
    "label_set": _is_text,
    "corpus": _is_object,
    "specs": _are_specs,
    "notes": _are_texts,
}


def _unreadable(path: Path, error: Exception) -> MmerError:
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return MmerError(f"{path} cannot be read ({error.strerror}); make it readable and repeat the command")
    why = error.strerror if isinstance(error, OSError) else error
    way_out = ELSEWHERE if path.name == RUN else "repeat the command of the run to train what is missing"
    return DamagedRun(f"{path} cannot be read ({why}); {way_out}")


def _differences(held: Plain, requested: Plain, prefix: str = "") -> list[str]:
    """Returns a text for each difference of two identities."""
    differences = []
    for name in {**requested, **held}:  # in the order of an identity
        current, expected = held.get(name), requested.get(name)
        if isinstance(current, Mapping) and isinstance(expected, Mapping):
            differences += _differences(current, expected, f"{prefix}{name}.")
        elif current != expected:
            differences.append(_difference(prefix, name, current, expected))
    return differences


def _difference(prefix: str, name: str, held: object, requested: object) -> str:
    if prefix == "folds.":
        return f"fold {name} has other utterances or labels"
    # an identity has only digests of these
    by_digest = {"features": "the features have changed", "source": "the source file of the head has changed"}
    return by_digest.get(prefix + name, f"{prefix}{name}: {held} there, {requested} requested")
