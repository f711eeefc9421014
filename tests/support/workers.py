"""Workers of a run in this process, in place of a cluster."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from featurize.runtime.cluster import Killed


class Here:
    """Runs tasks in this process, in place of a cluster; the first one may be lost."""

    notes: Sequence[str] = ()

    def __init__(self, *, lost: bool = False) -> None:
        self.lost, self.done = lost, 0

    @property
    def own_device(self) -> Callable[[str], torch.device]:
        return lambda name: torch.device("cpu")

    @property
    def results(self) -> Callable[[Callable[..., Any], Iterable[Any]], Iterator[tuple[Any, object]]]:
        def run(task: Callable[..., Any], items: Iterable[Any]) -> Iterator[tuple[Any, object]]:
            for item in items:
                self.done += 1
                yield item, Killed("worker 0 died") if self.lost else task(item, "cpu")

        return run
