"""What every benchmark needs: the machine in a line, utterances as long as IEMOCAP's, alternatives timed in turn."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

Arms = dict[str, Callable[[], object]]

PACKAGES = ("torch", "transformers", "h5py", "numpy")

# Half of IEMOCAP's turns are shorter than 0.8 of the mean of 4.5 s; the longest lasts 34 s, few are under 0.6 s.
SIGMA, SHORTEST, LONGEST = 0.65, 0.13, 7.6  # of a log-normal law, and bounds in means


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median, least and greatest of repeated measurements."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Sums measurements up."""
        return cls(median=statistics.median(values), least=min(values), greatest=max(values))

    def text(self, digits: int = 2) -> str:
        """Writes ``median [least, greatest]``."""
        return f"{self.median:,.{digits}f} [{self.least:,.{digits}f}, {self.greatest:,.{digits}f}]"


class Silent:
    """Progress that nobody watches."""

    def note(self, notes: Sequence[str]) -> None:
        """Says nothing."""

    def start(self, name: str, utterances: int, seconds: float) -> None:
        """Says nothing."""

    def advance(self, utterances: int, seconds: float) -> None:
        """Says nothing."""


def machine_line() -> str:
    """Describes where the benchmark runs: processor, cores, memory, versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    where = f"{_processor()}, {cores} cores, {memory_bytes / 2**30:.0f} GiB, {platform.system()}"
    return f"{where}; Python {platform.python_version()}, {versions}; torch threads {torch.get_num_threads()}"


def iemocap_like(count: int, *, mean: float, seed: int = 0) -> npt.NDArray[np.float64]:
    """Draws lengths ``(count,)`` distributed as IEMOCAP's turns, in the unit of their mean."""
    drawn = np.random.default_rng(seed).lognormal(sigma=SIGMA, size=count).clip(SHORTEST, LONGEST)
    return np.asarray(drawn * mean / drawn.mean())


def alternate(arms: Arms, *, rounds: int) -> dict[str, list[float]]:
    """Runs every arm once unmeasured, then all of them in turn, so that noise of the machine hits all alike.

    Args:
        arms: by name; each does its whole work when called.
        rounds: how often each is measured; every round has its own order, so that no arm always follows the same one.

    Returns:
        Seconds of each arm, in the order of the rounds.
    """
    for arm in arms.values():
        arm()
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    random = np.random.default_rng(0)
    for _ in range(rounds):
        for name in random.permutation(list(arms)).tolist():
            started = time.perf_counter()
            arms[name]()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def speedup(seconds: Mapping[str, Sequence[float]], arm: str, over: str) -> Spread:
    """Says how many times as fast one arm is as another, round by round."""
    return Spread.of([there / here for here, there in zip(seconds[arm], seconds[over], strict=True)])


def verdict(name: str, value: float, *, at_least: float | None = None, at_most: float | None = None) -> str:
    """Compares a figure with its target, in a line."""
    good = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
    asked = f"at least {at_least:g}" if at_least is not None else f"at most {at_most:g}"
    return f"{'met   ' if good else 'MISSED'} {name}: {value:.3g}, {asked}"


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
