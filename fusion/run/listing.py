"""Runs and grids of a folder: what they are, in which fields they differ, their scores; and how one is deleted."""

import errno
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from filelock import Timeout

from cache.errors import MmerError, NotWritable
from cache.files import lock_of, writable
from cache.json_text import is_number
from cache.near_names import nearest
from fusion.evaluation.catalog import task_of
from fusion.evaluation.task import Score, Task
from fusion.experiment.config_file import CONFIG
from fusion.fingerprint import Plain, digest_of
from fusion.run.folder import RESULTS, RUN, SECTIONS, Folder, RunFolder
from fusion.run.names import main_streams, stream_names

RUN_KIND, GRID_KIND = "run", "grid"
MODELS, REPORTS, ENTRY = "models", "grids", "entry.json"  # of a grid, as in fusion.grid
GRID_CSV = "grid.csv"  # of a grid: its combinations
PRETRAINED = "pretrain.json"  # of a fold, as in fusion.end_to_end.pretraining
LOCK = ".lock"
NAME, CHANGED, SIZE = "name", "changed", "size"  # keys to sort by, in addition to fields and scores
FIRST_FIELDS = ("head", "recipe", "cache", "streams", "protocol", "labels", "target", "seeds")
DIGESTS = ("folds", "features")  # fields whose values are digests
SPREADS = ("std", "std_seeds", "interval", "pooled")
GAP = 2  # spaces between columns of a table
FEWEST_FIELDS = 2  # shown in however narrow a table


@dataclass(frozen=True, kw_only=True)
class ListedRun:
    """A run, or one report of a grid, in a list.

    Attributes:
        name: name below the listed folder; a report of a grid has the name of the grid in front.
        kind: ``run`` or ``grid``.
        path: its folder.
        state: ``finished``, or how many models are scored, or why it cannot be read.
        fields: everything that decides the results, by field, as text.
        task: task of the scores.
        scores: mean test scores by metric, as fractions; the nested scores of a grid; empty without any.
        spread: standard deviations, interval and pooled scores, as in ``results.json``.
        changed: time of the last change.
        size_bytes: size of all its files; that of the whole journal for a grid.
    """

    name: str
    kind: str
    path: Path
    state: str
    fields: Mapping[str, str]
    task: Task
    scores: Mapping[str, float] = field(default_factory=dict)
    spread: Mapping[str, Any] = field(default_factory=dict)
    changed: datetime
    size_bytes: int

    @property
    def plain(self) -> dict[str, Any]:
        """The run as plain values, as ``mmer-runs --json`` prints it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "run": str(self.path),
            "state": self.state,
            "fields": dict(self.fields),
            "mean": dict(self.scores),
            **self.spread,
            "changed": self.changed.isoformat(timespec="seconds"),
            "size_bytes": self.size_bytes,
        }


@dataclass(frozen=True, kw_only=True)
class RunList:
    """The runs and grids of a folder.

    Attributes:
        folder: the folder.
        runs: in the requested order.
        others: names of folders that hold neither a run nor a grid.
        pretrainings: names of folders of ``mmer-pretrain``, which have no scores.
    """

    folder: Path
    runs: Sequence[ListedRun]
    others: Sequence[str] = ()
    pretrainings: Sequence[str] = ()

    @property
    def differing(self) -> list[str]:
        """The fields that have several values among the runs that have them."""
        values: dict[str, set[str]] = {}
        for run in self.runs:
            for name, value in run.fields.items():
                values.setdefault(name, set()).add(value)
        several = [name for name, held in values.items() if len(held) > 1]
        plain = [name for name in several if name not in DIGESTS]
        apart = {tuple(run.fields.get(name) for name in plain) for run in self.runs}
        chosen = plain if len(apart) == len(self.runs) else several  # digests say something where nothing else does
        return sorted(chosen, key=lambda name: name not in FIRST_FIELDS)

    @property
    def size_bytes(self) -> int:
        """The size of all files of the runs and grids; reports of one grid share its journal."""
        return sum({run.name.partition("/")[0]: run.size_bytes for run in self.runs}.values())

    @property
    def scores(self) -> list[Score]:
        """The scores of all runs, in the order of tables."""
        return list({score.name: score for run in self.runs for score in run.task.scores if run.scores}.values())

    def table(self, fields: Sequence[str]) -> tuple[list[str], list[list[object]]]:
        """Returns header and rows: name, fields, scores, state, day of the last change."""
        header = [NAME, *fields, *(score.title for score in self.scores), "state", CHANGED]
        rows: list[list[object]] = [
            [
                run.name,
                *(run.fields.get(name, "") for name in fields),
                *(score.text(run.scores.get(score.name)) for score in self.scores),
                run.state,
                run.changed.strftime("%Y-%m-%d"),
            ]
            for run in self.runs
        ]
        return header, rows

    def fitting(self, width: int) -> list[str]:
        """Returns the fields that differ whose columns fit into a table of this width; at least two.

        Fields that most runs have come first, since those of a single head say nothing of the others. Names may take up
        to a third of the width.
        """

        def room(header: str, cells: Sequence[object]) -> int:
            return max(len(str(cell)) for cell in [header, *cells]) + GAP

        header, rows = self.table([])
        used = [room(*column) for column in zip(header, zip(*rows, strict=True), strict=True)] if rows else []
        left = width - sum([min(used[0], width // 3), *used[1:]]) if used else width
        names = sorted(
            self.differing,
            key=lambda name: (name not in FIRST_FIELDS, sum(name not in run.fields for run in self.runs)),
        )
        chosen: set[str] = set()
        for name in names:
            needed = room(name, [run.fields.get(name, "") for run in self.runs])
            if needed <= left or len(chosen) < FEWEST_FIELDS:
                chosen.add(name)
                left -= needed
        return [name for name in self.differing if name in chosen]

    @property
    def json(self) -> dict[str, Any]:
        """The list as plain values, as ``mmer-runs --json`` prints it."""
        runs = [run.plain for run in self.runs]
        rest = {"others": list(self.others), "pretrainings": list(self.pretrainings)}
        return {"folder": str(self.folder), "differing": self.differing, "runs": runs, **rest}


def list_runs(folder: Path, *, sort: str = NAME, only: Mapping[str, str] | None = None) -> RunList:
    """Lists the runs and grids of a folder; reads only what they recorded, and trains and scores nothing.

    Args:
        folder: folder with run folders, such as ``runs``.
        sort: ``name``, ``changed`` (latest first), ``size`` (largest first), a score (best first) or a field.
        only: field -> value or pattern; other runs are left out.

    Raises:
        MmerError: if the folder does not exist, is a run itself, or `sort` or a field is unknown.
    """
    if not folder.is_dir():
        raise MmerError(f"{folder} is not a folder; name the folder with your runs")
    if (folder / RUN).exists():
        raise MmerError(f"{folder} is a run itself; name the folder that holds it, {folder.parent}")
    runs: list[ListedRun] = []
    others: list[str] = []
    pretrainings: list[str] = []
    for path in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        kind = _kind(path)
        if not kind:
            (pretrainings if any(path.glob(f"*/{PRETRAINED}")) else others).append(path.name)
        elif kind == RUN_KIND:
            runs.append(_listed_run(path))
        else:
            runs += _listed_reports(path)
    for name, pattern in (only or {}).items():
        _check_known(name, runs, "--only")
        runs = [run for run in runs if fnmatchcase(run.fields.get(name, ""), pattern)]
    return RunList(folder=folder, runs=_sorted(runs, sort), others=others, pretrainings=pretrainings)


def check_deletable(folder: Path, name: str) -> Path:
    """Checks that a name is that of a run or grid directly below a folder; returns its path.

    Raises:
        MmerError: if it is not, if it is a link, if its record cannot be read, or if it cannot be deleted.
    """
    path = folder / name
    if not name or name in {".", ".."} or Path(name).name != name:
        raise MmerError(f"{name!r} is not the name of a run in {folder}; names have no folder, see mmer-runs {folder}")
    if path.is_symlink():
        raise MmerError(f"{path} is a link; delete what it points to in its own folder")
    kind = _kind(path)
    if not kind:
        raise MmerError(f"{path} is not a run or grid of mmer; {'nothing' if path.exists() else 'no folder'} to delete")
    if kind == RUN_KIND:
        RunFolder(path).identity  # noqa: B018 - raises for a folder that another version or program wrote
    if held := next((held for held in (folder, path) if not os.access(held, os.W_OK | os.X_OK)), None):
        raise _undeletable(path, held, os.strerror(errno.EACCES))
    return path


def delete_run(folder: Path, name: str) -> list[str]:
    """Deletes a run or a grid; files that do not belong to it stay.

    Args:
        folder: folder with run folders.
        name: name of the run or grid.

    Returns:
        Names of the files that stay.

    Raises:
        MmerError: if it is not a run or grid of this folder, is in progress, or cannot be deleted.
    """
    path = check_deletable(folder, name)
    grid = _kind(path) == GRID_KIND
    models = sorted(path.glob(f"{MODELS}/*")) if grid else []
    try:
        with ExitStack() as locks:
            for held in [path, *models]:
                if (held / LOCK).exists():
                    _hold(locks, held, path)
            if grid:
                _delete_grid(path, models)
            else:
                RunFolder(path).clear()
            with writable(path):
                (path / LOCK).unlink(missing_ok=True)
        left = sorted(held.name for held in path.iterdir())
        if not left:
            with writable(folder):
                path.rmdir()
    except NotWritable as error:
        raise _undeletable(path, error.target, error.reason) from error
    return left


def _undeletable(path: Path, target: Path, reason: object) -> MmerError:
    return MmerError(f"cannot delete {path}: {target} is not writable ({reason}); make it writable and delete again")


def _hold(locks: ExitStack, held: Path, path: Path) -> None:
    lock = lock_of(held / LOCK)
    try:
        with writable(held):
            locks.enter_context(lock)
    except Timeout:
        raise MmerError(f"{path} is in progress: another process is training into it; wait until it ends") from None


def _delete_grid(path: Path, models: Sequence[Path]) -> None:
    """Deletes models and reports of a grid, its record last."""
    ours = [model for model in models if (model / ENTRY).exists() or not _visible(model)]
    ours += [report.parent for report in path.glob(f"{REPORTS}/*/{RESULTS}")]
    with writable(path):
        for held in ours:
            shutil.rmtree(held)
        for name in (REPORTS, MODELS):
            if (path / name).is_dir() and not _visible(path / name):
                shutil.rmtree(path / name)
        (path / CONFIG).unlink(missing_ok=True)


def _visible(path: Path) -> list[Path]:
    return [held for held in path.iterdir() if not held.name.startswith(".")] if path.is_dir() else [path]


def _kind(path: Path) -> str:
    """Returns what a folder holds; empty for anything else."""
    if (path / RUN).is_file():
        return RUN_KIND
    journal = (path / MODELS).is_dir() and not (path / MODELS).is_symlink()
    known = journal and (any(path.glob(f"{MODELS}/*/{ENTRY}")) or any(path.glob(f"{REPORTS}/*/{RESULTS}")))
    return GRID_KIND if known else ""


def _listed_run(path: Path) -> ListedRun:
    folder = RunFolder(path)
    common: dict[str, Any] = {"name": path.name, "kind": RUN_KIND, "path": path, **_file_facts(path)}
    try:
        record = folder.record
    except MmerError as error:
        state = str(error).partition(";")[0].removeprefix(f"{path / RUN} ")
        return ListedRun(state=state, fields={}, task=task_of({}), **common)
    identity = record["decides"]
    models = folder.models(identity)
    scored = sum(model.scored for model in models)
    task = task_of(identity)
    results = _results(folder, len(models)) if scored == len(models) else {}
    state = "finished" if results else f"{scored} of {len(models)} models"
    return ListedRun(
        state=state,
        fields=_fields(record, identity),
        task=task,
        scores=_numbers(results.get("mean"), task),
        spread={name: results[name] for name in SPREADS if name in results},
        **common,
    )


def _results(folder: Folder, models: int) -> dict[str, Any]:
    """Reads results that cover all models; results of a run that was extended since then do not."""
    with suppress(MmerError):
        results = folder.read(RESULTS)
        if isinstance(results, dict) and isinstance(results.get("folds"), list) and len(results["folds"]) == models:
            return results
    return {}


def _listed_reports(path: Path) -> list[ListedRun]:
    """Lists the reports of a grid, each with its nested scores; a grid without one has a row of its own."""
    common: dict[str, Any] = {"kind": GRID_KIND, **_file_facts(path)}
    listed = []
    for report in sorted(path.glob(f"{REPORTS}/*")):
        with suppress(MmerError):
            results = Folder(report).read(RESULTS)
            if isinstance(results, dict):
                task, texts = task_of(results), _grid_fields(results)
                scores = _numbers(results.get("nested"), task)
                spread = {"std": results.get("nested_std"), "interval": results.get("nested_interval")}
                name = f"{path.name}/{REPORTS}/{report.name}"
                count = len(results.get("rows", []))
                state = f"finished, {count} combination{'' if count == 1 else 's'}"
                facts: dict[str, Any] = {
                    "state": state,
                    "fields": texts,
                    "task": task,
                    "scores": scores,
                    "spread": spread,
                }
                listed.append(ListedRun(name=name, path=report, **facts, **common))
    if listed:
        return listed
    count = sum(1 for _ in path.glob(f"{MODELS}/*/{ENTRY}"))
    return [ListedRun(name=path.name, path=path, state=f"{count} models", fields={}, task=task_of({}), **common)]


def _fields(record: Plain, identity: Plain) -> dict[str, str]:
    """Returns everything that decides the results of a run, by field, as text."""
    streams = main_streams(stream_names(identity))
    texts = {
        "head": _text(identity["fusion"]),
        "recipe": _text(identity.get("recipe", "")),
        "cache": Path(_text(record.get("cache", ""))).stem,
        "streams": "+".join(streams),
        "protocol": _text(identity["protocol"]),
        "labels": _text(record.get("label_set", "")) or ",".join(identity["labels"]),
        "target": _text(identity.get("target", "")),
        "seeds": _text(identity["seeds"]),
    }
    for section in SECTIONS:
        texts |= {name: _text(value) for name, value in identity.get(section, {}).items()}
    texts |= {f"tune {role}": _text(depth) for role, depth in identity.get("tune", {}).items()}
    texts |= {f"only {column}": _text(values) for column, values in identity.get("only", {}).items()}
    digests = {"folds": digest_of(identity["folds"])[:8], "features": _text(identity.get("features", ""))[:8]}
    return {name: text for name, text in {**texts, **digests}.items() if text or name in FIRST_FIELDS}


def _grid_fields(results: Plain) -> dict[str, str]:
    axes = {name: None for row in results.get("rows", []) for name in row.get("config", {})}
    streams = results.get("streams", {})
    texts = {
        "head": _text(results.get("fusion", "")),
        "cache": Path(_text(results.get("cache", ""))).stem,
        "streams": "+".join(main_streams(streams)) if isinstance(streams, Mapping) else "",
        "protocol": _text(results.get("protocol", "")),
        "seeds": _text(results.get("seeds", [])),
        "axes": " ".join(axes),
    }
    return {name: text for name, text in texts.items() if text}


def _file_facts(path: Path) -> dict[str, Any]:
    """Returns size and last change of a folder, of the files that can be read."""
    stats = []
    for held in path.rglob("*"):
        with suppress(OSError):
            stats.append(held.stat() if held.is_file() else held.lstat())
    changed = max((stat.st_mtime for stat in stats), default=path.stat().st_mtime)
    return {"changed": datetime.fromtimestamp(changed, UTC).astimezone(), "size_bytes": sum(s.st_size for s in stats)}


def _numbers(scores: object, task: Task) -> dict[str, float]:
    if not isinstance(scores, Mapping):
        return {}
    return {name: scores[name] for name in task.names if is_number(scores.get(name))}


def _text(value: object) -> str:
    """Formats a value as on the command line."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(_text, value))
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def _check_known(name: str, runs: Sequence[ListedRun], option: str, *, more: Sequence[str] = ()) -> None:
    known = [*more, *dict.fromkeys(field for run in runs for field in run.fields)]
    if runs and name not in known:
        raise MmerError(f"{option} {name}: unknown field; {nearest(name, known)}")


def _sorted(runs: list[ListedRun], sort: str) -> list[ListedRun]:
    scores = {score.name: score for run in runs for score in run.task.scores}
    keys: dict[str, Callable[[ListedRun], Any]] = {
        NAME: lambda run: run.name,
        CHANGED: lambda run: -run.changed.timestamp(),
        SIZE: lambda run: -run.size_bytes,
    }
    if sort in keys:
        return sorted(runs, key=keys[sort])
    if sort in scores:
        sign = -1 if scores[sort].higher_is_better else 1
        return sorted(runs, key=lambda run: (sort not in run.scores, sign * run.scores.get(sort, 0.0)))
    _check_known(sort, runs, "--sort", more=[*keys, *scores])
    return sorted(runs, key=lambda run: _natural(run.fields.get(sort, "")))


def _natural(text: str) -> tuple[bool, float, str]:
    """Returns a key that orders numbers by value, before other texts."""
    with suppress(ValueError):
        return False, float(text), text
    return True, 0.0, text
