"""How a space is searched: all of it, a sample of it, or as its scores suggest."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from sklearn.model_selection import ParameterGrid, ParameterSampler

from cache.errors import MmerError
from fusion.grid.axes import Axis
from fusion.grid.models import Fields

GRID, RANDOM, TPE = "grid", "random", "tpe"
SEARCHES = (GRID, RANDOM, TPE)
SHUFFLED = 100_000  # up to so many combinations are all shuffled, so that samples of one seed begin alike
DRAWS = 100  # for each sample, until one comes up that was not there yet
PLACES = 4  # digits of the place of an axis

Products = Sequence[Sequence[Axis]]


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a space is searched.

    Attributes:
        kind: ``grid``, ``random`` or ``tpe``.
        count: how many combinations are taken; 0 for a grid, which is all of them.

    Raises:
        ValueError: if the kind is none of the three, or the count does not suit it.
    """

    kind: str = GRID
    count: int = 0

    def __post_init__(self) -> None:
        if self.kind not in SEARCHES:
            raise ValueError(f"kind must be one of {', '.join(SEARCHES)}, got {self.kind!r}")
        if (self.count == 0) != (self.kind == GRID) or self.count < 0:
            raise ValueError(f"count must be 0 for grid and above 0 for any other search, got {self.count}")

    def __str__(self) -> str:
        return f"{self.kind}:{self.count}" if self.count else self.kind


def parse_search(text: str) -> Search:
    """Reads ``grid``, ``random:N`` or ``tpe:N``.

    Raises:
        MmerError: if it is none of them.

    Example:
        >>> parse_search("random:50"), parse_search("grid")
        (Search(kind='random', count=50), Search(kind='grid', count=0))
    """
    kind, colon, count = (part.strip() for part in text.partition(":"))
    if kind not in SEARCHES:
        raise MmerError(f"--search {text} is no search; write grid, random:50 or tpe:50")
    if kind == GRID and colon:
        raise MmerError(
            f"--search {text}: a grid takes every combination and no number; sample it by random:N or tpe:N"
        )
    if kind != GRID and not (count.isascii() and count.isdecimal() and int(count)):
        raise MmerError(f"--search {text}: {kind} needs a number of combinations from 1 on, such as {kind}:50")
    return Search(kind=kind, count=int(count or 0))


def crossed(products: Products) -> Iterator[Fields]:
    """Gives every combination of each product, its first axis slowest; ranges are of whole numbers."""
    return map(_in_order, ParameterGrid([_placed(axes, lists=True) for axes in products]))


def sampled(products: Products, count: int, seed: int) -> list[Fields]:
    """Draws different combinations; of a longer sample by the same seed, a shorter one is the beginning.

    Args:
        products: the axes of each.
        count: of combinations; there are less where ranges are too narrow for them.
        seed: of the sample.
    """
    counted = all(axis.count and not (axis.span and axis.span.log) for axes in products for axis in axes)
    spaces = [_placed(axes, lists=counted) for axes in products]
    drawn = _shuffled(spaces, count, seed) if counted else _drawn(spaces, count * DRAWS, seed)
    return list(islice(distinct(map(_in_order, drawn)), count))


def distinct(every: Iterable[Fields]) -> Iterator[Fields]:
    """Leaves out combinations that were there before."""
    seen: set[Hashable] = set()
    for fields in every:
        if (key := key_of(fields)) not in seen:
            seen.add(key)
            yield fields


def key_of(fields: Fields) -> Hashable:
    """Gives what two combinations share if they set the same, in whatever order."""
    return frozenset(fields.items())


def _shuffled(spaces: Sequence[Fields], count: int, seed: int) -> Iterable[Fields]:
    """Draws without replacement, where all there is can be counted."""
    every = ParameterGrid(spaces)
    if len(every) > SHUFFLED:
        return _drawn(spaces, count, seed)
    return (every[place] for place in np.random.default_rng(seed).permutation(len(every)))


def _drawn(spaces: Sequence[Fields], count: int, seed: int) -> Iterable[Fields]:
    drawn: Iterable[Fields] = ParameterSampler(spaces, count, random_state=seed)
    return drawn


def _placed(axes: Sequence[Axis], *, lists: bool) -> dict[str, Any]:
    """Names axes so that scikit-learn, which sorts them, keeps their order."""
    return {
        f"{place:0{PLACES}}{axis.name}": axis.span if axis.span and not lists else axis.choices
        for place, axis in enumerate(axes)
    }


def _in_order(placed: Fields) -> Fields:
    return {name[PLACES:]: placed[name] for name in sorted(placed)}
