"""A grid of small models by our engines, against the usual practice, one process each, and one after another.

Claim: on two CPU cores the layout that ``--engine auto`` chooses trains a grid of 16 combinations at least 4.5 times as
fast at width 32, and at least 2.5 times at widths from 64 on, as the usual practice (one model after another, random
batches padded to their longest), and is at no width slower than our own trainer, one model after another over resident
features. On a GPU it trains 32 combinations of width 128 or less at least 8 times as fast as the usual practice. Losses
of all engines agree to 1e-5 over the first steps.

All arms train ``rescmfa`` with the same number of steps on batches of 32 and score dev after each epoch. Batches are a
sample, from short to long, of an epoch of 4,425 utterances as each arm divides it, as in `bench_train`; seconds are for
a step of one model on a batch of mean length. Arms train as many of the combinations as they have in hand at a time,
the others would take as long. What a model takes once (to start a process, to open and read a cache, to build a head,
to keep it in a journal) stands apart and is in no ratio: it would weigh too much beside trainings as short as these.
Run it by ``python -m benchmarks.bench_grid``.
"""

import argparse
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.support.arm import Arm
from benchmarks.support.grid_case import Case, Taken
from benchmarks.support.grid_others import serve_usual, train_apart
from benchmarks.support.grid_ours import serve_ours
from benchmarks.support.iemocap import (
    BATCH,
    CLASSES,
    OURS,
    USUAL,
    UTTERANCES,
    build_cache,
    draw_groups,
    frames_and_tokens,
)
from benchmarks.support.measure import Spread, machine_line, speedup, verdict
from benchmarks.support.usual import write_datasets
from cache.utterance import Utterance
from cli.output import print_table
from fusion.grid.engine.calibration import Calibration
from fusion.grid.engine.placement import ALONE

APART, RELOADED, RESIDENT = "a process each", "reloaded", "one after another"  # `USUAL` is the fourth
DEV, TEST = BATCH // 8, len(CLASSES)  # utterances; the former for each batch, about a tenth as in protocols
BATCHES: Mapping[int, int] = {32: 3, 64: 2, 768: 1}  # of an epoch, up to this width
HEADER = ("arm", "models", "ms a step", "times as usual", "times one by one", "start, s a model", "peak, MB")

Arms = Mapping[str, Callable[[], Taken]]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was measured of a case."""

    case: Case
    taken: Mapping[str, Sequence[Taken]]
    trial: Calibration
    trial_s: float

    @property
    def name(self) -> str:
        """Names the case."""
        plain = ", no CTC, no dropout" if self.case.plain else ""
        return f"{self.case.combinations} of width {self.case.width}{plain}"

    @property
    def chosen(self) -> str:
        """The arm that ``auto`` chooses."""
        return RESIDENT if self.trial.placement == ALONE else str(self.trial.placement)

    def faster(self, arm: str, over: str) -> Spread:
        """Says how many times as fast a step is, round by round."""
        seconds = {name: [one.step_s for one in taken] for name, taken in self.taken.items()}
        return speedup(seconds, arm, over)

    def rows(self) -> list[list[object]]:
        """Gives a row for each arm."""
        return [
            [
                f"{arm} (auto)" if arm == self.chosen else arm,
                taken[0].models,
                Spread.of([1000 * one.step_s for one in taken]).text(0),
                self.faster(arm, USUAL).text(),
                self.faster(arm, RESIDENT).text(),
                Spread.of([one.start_s for one in taken]).text(),
                f"{max(one.peak_mb for one in taken):,.0f}",
            ]
            for arm, taken in self.taken.items()
        ]

    def gap(self) -> float:
        """Gives the greatest difference of a loss between engines, relative where a loss is above 1."""
        every: dict[tuple[str, int], list[float]] = {}
        for taken in self.taken.values():
            for epoch, loss in taken[0].losses.items():
                every.setdefault(epoch, []).append(loss)
        return max(((max(one) - min(one)) / max(1, *one) for one in every.values() if len(one) > 1), default=0.0)

    def verdicts(self) -> list[str]:
        """Compares with the targets."""
        made = []
        target = _target(self.case)
        if target:
            faster = self.faster(self.chosen, USUAL).median
            made.append(verdict(f"{self.name}: {self.chosen}, times the usual practice", faster, at_least=target))
        alone = self.faster(self.chosen, RESIDENT).median
        made.append(verdict(f"{self.name}: {self.chosen}, times one after another", alone, at_least=1))
        made.append(verdict(f"{self.name}: largest difference of a loss", self.gap(), at_most=1e-5))
        return made

    def told(self) -> str:
        """Says what the trial found, and whether it was right."""
        layouts = [RESIDENT if one == ALONE else str(one) for one in self.trial.rates]
        best = max(layouts, key=lambda arm: self.faster(arm, RESIDENT).median)
        share = self.faster(self.chosen, best).median
        fastest = "the fastest" if best == self.chosen else f"{share:.2f} of the speed of {best}"
        return f"{self.name}: auto takes {self.trial} in {self.trial_s:.1f} s; measured: {fastest}"


def _target(case: Case) -> float | None:
    if case.device != "cpu":
        return 8.0 if case.combinations == 32 and case.width <= 128 else None
    if case.combinations != 16 or case.plain:
        return None
    return 4.5 if case.width <= 32 else 2.5


def write_caches(folder: Path, case: Case) -> tuple[list[list[int]], list[int]]:
    """Writes a cache of our batches, and one of the usual ones as one dataset per utterance.

    Returns:
        The places of the usual batches and of dev in the latter.
    """
    groups = draw_groups(case.batches)
    train = sorted(itertools.chain(*groups[OURS]))
    left = np.setdiff1d(np.arange(UTTERANCES), train)
    held = left[np.argsort(frames_and_tokens(UTTERANCES)[0][left], kind="stable")]  # the middle ones are held out
    half, count = len(held) // 2, DEV * case.batches
    dev, test = sorted(held[half : half + count].tolist()), sorted(held[half - TEST : half].tolist())
    parts = {**dict.fromkeys(train, "train"), **dict.fromkeys(dev, "dev"), **dict.fromkeys(test, "test")}
    labels = {index: CLASSES[place % len(CLASSES)] for part in (train, dev, test) for place, index in enumerate(part)}
    build_cache(
        folder / "cache.h5",
        [Utterance(id=str(one), split=part, label=labels[one], speaker="a") for one, part in parts.items()],
        case.width,
    )
    usual = sorted({*itertools.chain(*groups[USUAL]), *dev})
    cache = build_cache(folder / "rows.h5", [Utterance(id=str(one)) for one in usual], case.width)
    write_datasets(folder / "usual.h5", cache)
    where = {index: place for place, index in enumerate(usual)}
    return [[where[index] for index in group] for group in groups[USUAL]], [where[index] for index in dev]


def measure(case: Case, rounds: int) -> Found:
    """Trains by every arm in turn."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        groups, dev = write_caches(folder, case)
        rows = int(frames_and_tokens(UTTERANCES)[:, list(itertools.chain(*draw_groups(case.batches)[OURS]))].sum())
        usual, ours = Arm(serve_usual, folder, case, groups, dev), Arm(serve_ours, folder, case)
        arms = {USUAL: partial(usual, "epoch"), APART: partial(train_apart, folder, case, rows)}
        arms[RELOADED] = partial(ours, ["reloaded"])
        for layout in ours(["layouts"]):
            arms[RESIDENT if layout == ALONE else str(layout)] = partial(ours, ["resident", layout])
        trial, trial_s = ours(["trial"])
        taken = in_turn(arms, rounds)
        usual.end()
        ours.end()
    return Found(case=case, taken=taken, trial=trial, trial_s=trial_s)


def in_turn(arms: Arms, rounds: int) -> dict[str, list[Taken]]:
    """Runs all arms in turn, each round in its own order."""
    random = np.random.default_rng(0)
    taken: dict[str, list[Taken]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name in random.permutation(list(arms)).tolist():
            taken[name].append(arms[name]())
    return taken


def cases_of(asked: argparse.Namespace) -> list[Case]:
    """Gives the grids that are asked for; the first without CTC and dropout too."""
    made: list[Case] = []
    for width, combinations in itertools.product(asked.widths, asked.combinations):
        batches = 1 if asked.quick else next(count for most, count in BATCHES.items() if width <= most)
        case = Case(width=width, combinations=combinations, plain=False, batches=batches, device=asked.device)
        made += [case] if made else [case, replace(case, plain=True)]
    return made


def numbers(text: str) -> list[int]:
    """Reads numbers that commas divide."""
    return [int(one) for one in text.split(",")]


def main() -> None:
    """Measures and prints everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--widths", type=numbers, default=[32, 64, 128, 768])
    parser.add_argument("--combinations", type=numbers, default=[16])
    parser.add_argument("--rounds", type=int, help="default: 2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="one batch and one round, to see that all of it runs")
    asked = parser.parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # in all arms: the machine may be shared
    print(machine_line() + (f"; {torch.cuda.get_device_name()}" if asked.device != "cpu" else ""))
    every = []
    for case in cases_of(asked):
        every.append(measure(case, asked.rounds or (1 if asked.quick else 2)))
        print(every[-1].name)
        print_table(HEADER, every[-1].rows())
        print(every[-1].told(), flush=True)
    for found in every:
        print(*found.verdicts(), sep="\n")


if __name__ == "__main__":
    main()
