"""Table of the prediction tasks, and the main losses that each of them accepts."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from fusion.evaluation.classes import CLASSIFICATION, CROSS_ENTROPY, FOCAL, focal_loss
from fusion.evaluation.ratings import DIMENSIONS, MSE, squared_error
from fusion.evaluation.task import Task
from fusion.evaluation.votes import SOFT

AUTO_LOSS = "auto"  # value of the training field `loss` for the default of the task
TASKS: Mapping[str, Task] = {task.name: task for task in (CLASSIFICATION, DIMENSIONS, SOFT)}
MONITORS: tuple[str, ...] = tuple(dict.fromkeys(name for task in TASKS.values() for name in task.monitors))
LOSSES: tuple[str, ...] = (AUTO_LOSS, *dict.fromkeys(name for task in TASKS.values() for name in task.losses))


def loss_of(task: Task, name: str) -> str:
    """Returns the name of a main loss, where ``auto`` is the default of the task.

    Raises:
        ValueError: if the task has no such loss.
    """
    name = task.losses[0] if name == AUTO_LOSS else name
    if name not in task.losses:
        raise ValueError(f"loss must be one of {', '.join((AUTO_LOSS, *task.losses))} for {task.name}, got {name!r}")
    return name


def with_loss(task: Task, name: str, focal_gamma: float = 0.0) -> Task:
    """Returns a task with one of its main losses.

    Args:
        task: the task.
        name: name of the loss, ``auto`` for the default of the task.
        focal_gamma: exponent of the focal loss; 0 for the cross entropy.

    Raises:
        ValueError: if the task has no such loss.
    """
    name = loss_of(task, name)
    if focal_gamma and name == CROSS_ENTROPY:
        return replace(task, loss=partial(focal_loss, gamma=focal_gamma), loss_name=FOCAL)
    return replace(task, loss=squared_error, loss_name=MSE) if name == MSE else task


def task_of(record: Mapping[str, Any]) -> Task:
    """Returns the task of a run from its identity or its results.

    It is classification if they name no task.

    Raises:
        ValueError: if the task is unknown.
    """
    name = record.get("task", CLASSIFICATION.name)
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}; known: {', '.join(TASKS)}")
    return TASKS[name]
