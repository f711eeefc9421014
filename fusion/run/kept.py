"""Scores that a repeated command keeps of the results of an earlier one: of the probe, and on other corpora."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

from cache.errors import MmerError
from cache.json_text import is_number
from fusion.evaluation.task import Task
from fusion.fingerprint import Plain
from fusion.run.folder import RESULTS, Folder
from fusion.run.reference import PROBE
from fusion.run.score_table import CROSS, REFERENCE

Model = tuple[str, int]  # fold and seed


def kept_reference(folder: Folder, task: Task) -> dict[str, Any]:
    """Returns the scores of the probe that the results of a folder have; empty without them.

    Args:
        folder: folder of a run or of the report of a grid, whose settings decide its reference.
        task: its task.
    """
    found = _earlier(folder).get(REFERENCE)
    whole = isinstance(found, dict) and found.get("fusion") == PROBE and _is_reference(found, task.names)
    return found if isinstance(found, dict) and whole else {}


def kept_cross(
    folder: Folder, task: Task, models: Sequence[Model], scored: Collection[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the scores on other corpora that the results of a run have, and notes on those that are out of date.

    Args:
        folder: run folder.
        task: its task.
        models: all models of the run; scores of fewer or other models are out of date.
        scored: names of the corpora that are scored now.
    """
    found = _earlier(folder).get(CROSS)
    whole = [held for held in found if _is_cross(held, task.names)] if isinstance(found, list) else []
    earlier = [held for held in whole if held["name"] not in scored]
    kept = [held for held in earlier if [(model["fold"], model["seed"]) for model in held["models"]] == [*models]]
    notes = [
        f"the scores on {held['name']} were of other models and are left out; repeat the command with --test-cache"
        for held in earlier
        if held not in kept
    ]
    return kept, notes


def _earlier(folder: Folder) -> Plain:
    with suppress(MmerError):
        results = folder.read(RESULTS)
        if isinstance(results, dict):
            return results
    return {}


def _is_reference(found: Plain, names: Sequence[str]) -> bool:
    """Checks that scores of a probe have what tables print."""
    folds = found.get("folds")
    return (
        isinstance(folds, list)
        and all(_has_scores(scores, names) for scores in (found.get("mean"), found.get("pooled"), *folds))
        and _has_intervals(found.get("interval"), names)
    )


def _is_cross(found: object, names: Sequence[str]) -> bool:
    """Checks that scores on another corpus have what tables print."""
    if not isinstance(found, dict):
        return False
    models, final = found.get("models"), found.get("final")
    return (
        isinstance(found.get("name"), str)
        and isinstance(found.get("notes"), list)
        and is_number(found.get("test"))
        and isinstance(models, list)
        and all(_has_scores(model, names) and {"fold", "seed"} <= model.keys() for model in models)
        and all(
            _has_scores(held.get("mean"), names) and _has_spread(held.get("std"), names)
            for held in [found, *([final] if isinstance(final, dict) else [])]
        )
    )


def _has_scores(scores: object, names: Sequence[str]) -> bool:
    return isinstance(scores, dict) and all(is_number(scores.get(name)) for name in names)


def _has_spread(scores: object, names: Sequence[str]) -> bool:
    """Checks standard deviations, which a single model does not have."""
    return isinstance(scores, dict) and all(
        name in scores and (scores[name] is None or is_number(scores[name])) for name in names
    )


def _has_intervals(intervals: object, names: Sequence[str]) -> bool:
    return (
        isinstance(intervals, dict)
        and all(ends is None or (isinstance(ends, list) and all(map(is_number, ends))) for ends in intervals.values())
        and intervals.keys() >= {*names}
    )
