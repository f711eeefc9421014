"""Models of a run that predict: the final models if there are any, else the models of all folds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cache.errors import MmerError
from cache.stream import StreamSpec
from fusion.end_to_end.learning.source import NO_FOLDERS, Folders
from fusion.end_to_end.learning.tune import parse_tunes
from fusion.end_to_end.prediction.source import is_bundle, open_bundle
from fusion.end_to_end.prediction.trust import check_encoder, check_inside
from fusion.evaluation.catalog import task_of
from fusion.evaluation.dimensions import TargetScale
from fusion.evaluation.task import Task
from fusion.head import Head
from fusion.run.folder import FINAL, FINAL_JSON, RUN, ModelFolder, RunFolder
from fusion.run.load import TRAIN_AGAIN, load_model, load_scale


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained model with the streams that it reads.

    Attributes:
        fold: name of its fold, ``final`` for the model of all utterances.
        seed: its random seed.
        head: head with its tuned encoders, in eval mode.
        specs: role -> spec of the stream that is read for it.
        waves: roles that get waveforms instead of the rows of a stream.
        scale: scale of its values, of dimensions; None for classes.
    """

    fold: str
    seed: int
    head: Head
    specs: Mapping[str, StreamSpec]
    waves: frozenset[str]
    scale: TargetScale | None = None


@dataclass(frozen=True, kw_only=True)
class RunModels:
    """The models of a run whose probabilities are averaged.

    Attributes:
        run: path of the run folder.
        task: task of the run.
        classes: names of the classes, in the order of the probabilities.
        models: the models.
        source: text for users that states which models predict.
        encoders: name of a frozen encoder in a bundle -> its folder.
    """

    run: Path
    task: Task
    classes: tuple[str, ...]
    models: Sequence[Model]
    source: str
    encoders: Folders = field(default_factory=lambda: NO_FOLDERS)


def load_models(
    path: Path, *, fold: str = "", head: str | None = None, device: torch.device, inside: Path | None = None
) -> RunModels:
    """Loads the models of a run that predict.

    Args:
        path: run folder or bundle.
        fold: name of the only fold whose models predict; empty for the final models, or for all folds without any.
        head: import path ``package.module:Class`` of a head outside the catalog that may be imported.
        device: device of the models.
        inside: folder that links of the files may lead to; None for `path`.

    Raises:
        MmerError: if the folder holds no finished run, the run has no such fold, or a file is damaged.
    """
    if not path.is_dir():
        raise MmerError(f"{path} is not a run folder; expected the folder that mmer-train or mmer-export printed")
    inside = path if inside is None else inside
    bundled = is_bundle(path)
    encoders = open_bundle(path, inside) if bundled else {}
    run = RunFolder(path)
    identity, record = run.identity, run.read(RUN)
    folds, seeds = _checked(identity, path)
    final = [seed for seed in seeds if (run.model(FINAL, seed).path / FINAL_JSON).exists()]
    if not fold and final and FINAL not in folds:
        chosen = [(FINAL, seed) for seed in final]
        source = f"final model of seed {', '.join(map(str, final))}, trained on all utterances"
    else:
        chosen = [(name, seed) for name in ([fold] if fold else folds) for seed in seeds]
        source = _mean_text(chosen, fold)
    missing = next((name for name, seed in chosen if name in folds and not run.model(name, seed).path.exists()), None)
    if bundled and missing is not None:
        raise MmerError(f"{path} is a bundle without the models of fold {missing}; predict without --fold")
    models = [_load(run, record, name, seed, head=head, device=device, inside=inside) for name, seed in chosen]
    classes = models[0].head.inputs.classes
    return RunModels(
        run=path, task=_task(identity, path), classes=classes, models=models, source=source, encoders=encoders
    )


def _load(
    run: RunFolder,
    record: Mapping[str, Any],
    fold: str,
    seed: int,
    *,
    head: str | None,
    device: torch.device,
    inside: Path,
) -> Model:
    folder = run.model(fold, seed)
    _check_files(folder, record, inside)
    model = load_model(run, fold, seed, head).to(device)
    try:
        recorded = {**record["specs"], **record.get("fold_specs", {}).get(fold, {})}
        specs = {role: StreamSpec.from_json(json.dumps(recorded[role])) for role in model.config.roles}
        tunes = parse_tunes(f"{role}={depth}" for role, depth in record["decides"].get("tune", {}).items())
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MmerError(f"{run.path / RUN} does not record its streams ({error}); {TRAIN_AGAIN}") from error
    waves = frozenset(role for role, tune in tunes.items() if tune.wave)
    scale = load_scale(folder, task_of(record["decides"]), final=(folder.path / FINAL_JSON).exists())
    return Model(fold=fold, seed=seed, head=model, specs=specs, waves=waves, scale=scale)


def _checked(identity: Mapping[str, Any], path: Path) -> tuple[list[str], list[int]]:
    """Returns the folds and seeds of a run."""
    folds, seeds = identity["folds"], identity["seeds"]
    valid = isinstance(folds, dict) and isinstance(seeds, list) and folds and seeds
    if not valid or not all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds):
        raise MmerError(f"{path / RUN} is damaged (folds and seeds); {TRAIN_AGAIN}")
    return list(folds), seeds


def _task(identity: Mapping[str, Any], path: Path) -> Task:
    try:
        return task_of(identity)
    except (TypeError, ValueError) as error:
        raise MmerError(f"{path / RUN} is damaged ({error}); {TRAIN_AGAIN}") from error


def _mean_text(chosen: Sequence[tuple[str, int]], fold: str) -> str:
    seeds = len({seed for _, seed in chosen})
    of_seeds = f" of {seeds} seeds" if seeds > 1 else ""
    if fold:
        return f"mean of the models of fold {fold}{of_seeds}" if seeds > 1 else f"model of fold {fold}"
    count = len(chosen) // seeds
    return f"mean of the models of {count} folds{of_seeds} (train a model on all utterances with --final)"


def _check_files(folder: ModelFolder, record: Mapping[str, Any], inside: Path) -> None:
    """Checks that every file of a model lies in the run folder, and that its encoders fit their weights."""
    tuned = record["decides"].get("tune", {})
    roles = list(parse_tunes(tuned)) if isinstance(tuned, dict) else []
    encoders = [folder.path / role for role in roles]
    for path in (folder.path, *folder.path.glob("*"), *(file for encoder in encoders for file in encoder.glob("*"))):
        check_inside(path, inside)
    for encoder in encoders:
        check_encoder(encoder)
