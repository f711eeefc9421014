"""Bundle: a run as a folder of its own, with everything that predicting on another machine needs.

bundle.json         format, version of mmer, names of models and encoders, scores of the run
README.md           model card
run.json            record of the run, without paths of the machine that trained it
MODEL/              a folder for each model that predicts, FOLD-seedS or final-seedS
    weights.safetensors
    scores.json     or final.json with curves.csv, for the model of all utterances
    model.onnx      with ``--onnx``
    full.onnx       with ``--onnx full``
    audio/, text/   tuned encoders as checkpoints
encoders/NAME/      frozen encoders that came from folders

It is a run folder without predictions, splits and ids of utterances, so everything that reads a run reads a bundle.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch

from cache.errors import MmerError
from cache.files import writable
from cache.stream import SPEECH, StreamSpec
from cache.version import mmer_version
from featurize.encoders.catalog import ENCODERS
from fusion.end_to_end.learning.save import CHECKPOINT, TRAINED_ON
from fusion.end_to_end.learning.source import NO_FOLDERS, Folders, open_saved
from fusion.end_to_end.learning.tune import PATCHES
from fusion.end_to_end.prediction.encoders import check_names, load_stream_encoders, stream_request
from fusion.end_to_end.prediction.models import RunModels, load_models
from fusion.end_to_end.prediction.source import BUNDLE, BUNDLE_VERSION, ENCODERS_FOLDER, read_bundle
from fusion.end_to_end.prediction.trust import ENCODER_FILES
from fusion.evaluation.task import Task
from fusion.fingerprint import digest_of
from fusion.head_config import AUDIO, TEXT
from fusion.run.artifacts import read_scores
from fusion.run.final import read_final
from fusion.run.folder import (
    CURVES,
    FINAL,
    FINAL_JSON,
    FORMAT_VERSION,
    RESULTS,
    RUN,
    SCORES,
    WEIGHTS,
    DamagedRun,
    Folder,
    ModelFolder,
    RunFolder,
    encoder_weights,
)

README = "README.md"
UTTERANCES = ("train_over_limits", "dev_over_limits", "over_limits")  # lists of ids in scores.json
SCORES_KEPT = ("mean", "std", "interval", "pooled", "recall", "dimensions")  # of results.json
CPU = torch.device("cpu")


class BundleFolder(RunFolder):
    """The folder of a bundle, or of one that is being written."""

    def add_record(self, run: RunFolder, models: RunModels, encoders: Iterable[str]) -> None:
        """Writes run.json and bundle.json.

        Args:
            run: folder of the run.
            models: models of the run that predict.
            encoders: names of the frozen encoders in the bundle.
        """
        record = run.record
        kept = ("label_set", "inputs", "specs", "fold_specs", "notes", "versions")
        corpus = {name: value for name, value in record.get("corpus", {}).items() if name != "root"}
        self.write(
            RUN,
            {
                "format_version": FORMAT_VERSION,
                "decides": record["decides"],
                "cache": Path(str(record.get("cache", ""))).name,
                "corpus": corpus,
                **{name: record[name] for name in kept if name in record},
            },
        )
        self.write(
            BUNDLE,
            {
                "format_version": BUNDLE_VERSION,
                "mmer": mmer_version(),
                "models": [run.model(model.fold, model.seed).path.name for model in models.models],
                "encoders": list(encoders),
                "scores": {name: value for name, value in run_results(run).items() if name in SCORES_KEPT},
            },
        )

    def add_model(
        self, source: ModelFolder, target: ModelFolder, roles: Iterable[str], *, task: Task, final: bool
    ) -> None:
        """Copies what predicting needs of a model: weights, record and tuned encoders, by new digests.

        Args:
            source: folder of the model in the run.
            target: its folder in the bundle.
            roles: roles whose encoders are tuned.
            task: task of the run.
            final: whether it is a model of all utterances.
        """
        target.make()
        _copy(source.path / WEIGHTS, target.path / WEIGHTS)
        for role in roles:
            _copy_encoder(source.path / role, target.path / role)
        names = [WEIGHTS, *(encoder_weights(role) for role in roles)]
        if final:
            _copy(source.path / CURVES, target.path / CURVES)
            record = read_final(source)
            digests = {name: target.digest(name) for name in (*names, CURVES)}
            target.write(FINAL_JSON, {**record, "digests": digests})
            return
        scores = {name: value for name, value in read_scores(source, task).items() if name != "digests"}
        scores |= {name: [] for name in UTTERANCES if name in scores}
        digests = {name: target.digest(name) for name in names}
        target.write(SCORES, {**scores, "digests": {**digests, SCORES: digest_of(scores)}})

    def add_encoders(self, specs: Iterable[StreamSpec], folders: Folders) -> list[str]:
        """Writes the frozen encoders that did not come from a hub, and checks that they compute the same features.

        Args:
            specs: specs of the streams that are read.
            folders: folders of encoders that the user names.

        Returns:
            Names of the encoders that were written.

        Raises:
            MmerError: if the folder of an encoder is not named, or holds another encoder than that of the run.
        """
        written: dict[str, list[StreamSpec]] = {}
        specs = list(specs)
        check_names(folders, [spec.encoder.partition("+")[0] for spec in specs])
        for spec in specs:
            request = stream_request(spec, folders)
            if request.source in ENCODERS or not Path(request.source).is_dir():
                continue
            if request.name not in written:
                self._write_encoder(spec, request.name, Path(request.source))
            written.setdefault(request.name, []).append(spec)
        for name, held in written.items():
            load_stream_encoders(held, folders={name: self.encoder(name)}, device=CPU)
        return list(written)

    def write_text(self, name: str, text: str) -> None:
        """Writes a text file to a temporary name and renames it."""
        with self.replacing(name) as path:
            path.write_text(text, encoding="utf-8")

    def encoder(self, name: str) -> Path:
        """Returns the folder of a frozen encoder."""
        return self.path / ENCODERS_FOLDER / quote(name, safe=" ")

    def _write_encoder(self, spec: StreamSpec, name: str, source: Path) -> None:
        """Copies an encoder; weights that are not safetensors are loaded and written as such."""
        folder = Folder(self.encoder(name))
        with writable(self.path):
            folder.path.parent.mkdir(exist_ok=True)
        if (source / CHECKPOINT).is_file():
            _copy_encoder(source, folder.path)
            return
        role = TEXT if spec.consumes != SPEECH else PATCHES if spec.role == PATCHES else AUDIO
        loaded = open_saved(role, source)
        with writable(self.path):
            loaded.save(folder.path)
            for file in folder.path.glob("*"):
                if file.name not in ENCODER_FILES:
                    file.unlink()
        if spec.trained_on:
            folder.write(TRAINED_ON, dict(spec.trained_on))


def run_results(run: RunFolder) -> dict[str, Any]:
    """Reads the results of a run.

    Raises:
        MmerError: if the run is not finished.
    """
    try:
        results = run.read(RESULTS)
    except DamagedRun as error:
        raise MmerError(f"{run.path} is not finished: it has no {RESULTS}; repeat the command of the run") from error
    if not isinstance(results, dict):
        raise MmerError(f"{run.path / RESULTS} is damaged; repeat the command of the run")
    return results


def write_bundle(
    run: RunFolder, target: BundleFolder, *, head: str | None = None, encoders: Folders = NO_FOLDERS
) -> RunModels:
    """Writes the models of a run that predict, their records and encoders, without the model card.

    Args:
        run: folder of the run.
        target: empty folder.
        head: import path of a head outside the catalog that may be imported.
        encoders: name of an encoder -> folder with its weights, which becomes part of the bundle.

    Returns:
        The models as loaded from the bundle.

    Raises:
        MmerError: if the run is not finished or damaged, or an encoder is not available.
    """
    models = load_models(run.path, head=head, device=CPU)
    roles = list(run.identity.get("tune", {}))
    specs = {spec.key: spec for model in models.models for role, spec in model.specs.items() if role not in model.waves}
    for model in models.models:
        source, copy = run.model(model.fold, model.seed), target.model(model.fold, model.seed)
        final = model.fold == FINAL and model.fold not in run.identity["folds"]
        target.add_model(source, copy, roles, task=models.task, final=final)
    target.add_record(run, models, target.add_encoders(specs.values(), encoders))
    return load_models(target.path, head=head, device=CPU)


@contextmanager
def new_bundle(path: Path) -> Iterator[BundleFolder]:
    """Yields a temporary folder that replaces a bundle, or becomes one, after the block.

    A kill leaves the old bundle, or nothing but a hidden folder that the next call removes.

    Args:
        path: folder of the bundle; an existing one must be a bundle or empty.

    Raises:
        MmerError: if the folder holds something else, or cannot be written.
    """
    check_free(path)
    fresh, old = (path.with_name(f".{path.name}.{ending}") for ending in ("part", "old"))
    with writable(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        if old.exists() and not path.exists():  # a call was killed between two renames
            old.rename(path)
        for leftover in (fresh, old):
            _remove(leftover)
        fresh.mkdir()
    try:
        yield BundleFolder(fresh)
        with writable(path.parent):
            _sync(fresh)
            if path.exists():
                path.rename(old)
            fresh.rename(path)
    finally:
        with writable(path.parent):
            _remove(fresh)
            if path.exists():
                _remove(old)


def check_free(path: Path) -> None:
    """Checks that a folder does not exist, is empty, or is a bundle and nothing else.

    Raises:
        MmerError: if it holds anything else.
    """
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise MmerError(f"{path} exists and is not a folder; choose another folder")
    names = {file.name for file in path.iterdir()} if path.exists() else set()
    if names and BUNDLE not in names:
        raise MmerError(f"{path} holds files and is not a bundle (no {BUNDLE}); choose another folder")
    models = read_bundle(Folder(path))["models"] if names else []
    others = sorted(names - {BUNDLE, README, RUN, ENCODERS_FOLDER, *models})
    if others:
        raise MmerError(f"{path} holds {others[0]!r}, which is not part of the bundle; choose another folder")


def _copy(source: Path, target: Path) -> None:
    with writable(target.parent):
        shutil.copyfile(source, target)


def _copy_encoder(source: Path, target: Path) -> None:
    with writable(target.parent):
        target.mkdir()
    for file in sorted(source.glob("*")):
        if file.name in ENCODER_FILES:
            _copy(file, target / file.name)


def _sync(folder: Path) -> None:
    """Writes all files of a folder to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _remove(path: Path) -> None:
    if path.is_symlink():
        raise MmerError(f"{path} is a link; delete it and repeat the command")
    if path.exists():
        shutil.rmtree(path)
