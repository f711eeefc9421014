"""Seeds of a run, one by one: a model is trained once, however many runs contain its fold and seed.

A run whose seeds are a part of the requested ones is extended in its folder. Otherwise models are taken over from
neighbouring folders: runs that differ in their seeds only. Their files are linked, not copied, where the file system
can; every file is replaced by renaming, so that a change in one run leaves the other.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from cache.errors import MmerError
from cache.files import replacing, writable
from fusion.fingerprint import Plain, with_defaults
from fusion.run.folder import FINAL, FINAL_JSON, REFIT_STATE, RUN, SCORES, SELECTED, STATE, ModelFolder, RunFolder

SEEDS = "seeds"


def take_over_models(folder: RunFolder, identity: Plain, defaults: Plain, *, final: bool = False) -> list[str]:
    """Links the finished models that a run lacks from runs next to it that differ in their seeds only.

    Args:
        folder: run folder that has begun; the caller holds its lock.
        identity: identity of the run.
        defaults: default values of fields by section, for runs of a version that did not have a field.
        final: take the models of all utterances over, instead of those of the folds.

    Returns:
        A note for each run that models were taken from.

    Raises:
        MmerError: if a file cannot be written.
    """
    folds, last = ([FINAL], FINAL_JSON) if final else (list(identity["folds"]), SCORES)
    lacking = [(fold, seed) for seed in identity[SEEDS] for fold in folds if not _begun(folder, fold, seed)]
    if not lacking:
        return []
    notes = []
    for other, held in _alike(folder, identity, defaults):
        shared = [(fold, seed) for fold, seed in lacking if seed in held[SEEDS]]
        taken = [seed for fold, seed in shared if _take(folder, other, fold, seed, last)]
        if taken:
            seeds = ", ".join(map(str, dict.fromkeys(taken)))
            notes.append(f"{len(taken)} models of seed {seeds} are those of {other.path}; they are not trained again")
    return notes


def _begun(folder: RunFolder, fold: str, seed: int) -> bool:
    return any((folder.model(fold, seed).path / name).exists() for name in (SCORES, FINAL_JSON, STATE, SELECTED))


def _alike(folder: RunFolder, identity: Plain, defaults: Plain) -> Iterator[tuple[RunFolder, dict[str, Any]]]:
    """Yields the runs in neighbouring folders whose identity is equal but for its seeds, with their identity."""
    expected = _without_seeds(json.loads(json.dumps(identity)))
    for path in sorted(folder.path.parent.glob(f"*/{RUN}")):
        if path.parent.resolve() == folder.path.resolve():
            continue
        with suppress(MmerError):  # no run of this version: it is left alone
            other = RunFolder(path.parent)
            held = with_defaults(other.identity, defaults)
            if _without_seeds(held) == expected:
                yield other, held


def _without_seeds(identity: Plain) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name != SEEDS}


def _take(folder: RunFolder, other: RunFolder, fold: str, seed: int, last: str) -> bool:
    """Links the files of a finished model; returns False if it is not finished, or there is one already.

    Args:
        folder: run that lacks the model.
        other: run that may have it.
        fold: name of the fold.
        seed: seed of the model.
        last: name of the file that is written last, and linked last.
    """
    source, target = other.model(fold, seed), folder.model(fold, seed)
    if not (source.path / last).exists() or (target.path / last).exists():
        return False
    files = [path for path in sorted(source.path.rglob("*")) if _is_kept(path.relative_to(source.path))]
    for path in sorted((path for path in files if path.is_file()), key=lambda path: path.name == last):
        _link(path, target, path.relative_to(source.path))
    return True


def _is_kept(path: Path) -> bool:
    return path.name not in {STATE, REFIT_STATE} and not any(part.startswith(".") for part in path.parts)


def _link(path: Path, target: ModelFolder, name: Path) -> None:
    with writable(target.path):
        (target.path / name).parent.mkdir(parents=True, exist_ok=True)
    with replacing(target.path / name) as fresh:
        fresh.unlink()  # `replacing` has created it
        try:
            os.link(path, fresh)
        except OSError:  # a file system without links
            shutil.copyfile(path, fresh)
