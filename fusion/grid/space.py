"""The space of a grid: axes that are crossed, and changes that are made to each combination one at a time.

How a space is searched: all of it, a sample of it, or as its scores suggest.
"""

import json
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import MmerError
from fusion.grid.axes import Axis, AxisReader
from fusion.grid.combinations import FieldValues

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


def crossed(products: Products) -> Iterator[FieldValues]:
    """Gives every combination of each product, its first axis slowest; ranges are of whole numbers."""
    from sklearn.model_selection import ParameterGrid  # here and below: it takes over a second to import

    return map(_in_order, ParameterGrid([_placed(axes, lists=True) for axes in products]))


def sampled(products: Products, count: int, seed: int) -> list[FieldValues]:
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


def distinct(every: Iterable[FieldValues]) -> Iterator[FieldValues]:
    """Leaves out combinations that were there before."""
    seen: set[Hashable] = set()
    for fields in every:
        if (key := key_of(fields)) not in seen:
            seen.add(key)
            yield fields


def key_of(fields: FieldValues) -> Hashable:
    """Gives what two combinations share if they set the same, in whatever order."""
    return frozenset(fields.items())


@dataclass(frozen=True, kw_only=True)
class Space:
    """All combinations that a grid may train.

    Attributes:
        products: the axes that are crossed; several products are united.
        changes: of ablations: beside each combination, what else is made of it, one at a time.
    """

    products: tuple[tuple[Axis, ...], ...] = ((),)
    changes: tuple[FieldValues, ...] = ()

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes, each once, with the values that it has in any product; ablations are none."""
        found: dict[str, Axis] = {}
        for axis in (axis for axes in self.products for axis in axes):
            found[axis.name] = _united(found[axis.name], axis) if axis.name in found else axis
        return tuple(found.values())

    @property
    def size(self) -> int | None:
        """How many combinations there are before ablations, None for more than can be listed."""
        if any(axis.count is None for axes in self.products for axis in axes):
            return None
        total = sum(prod(axis.count or 0 for axis in axes) for axes in self.products)
        if len(self.products) == 1 or total > SHUFFLED:  # of so many, those in two products count twice
            return total
        return sum(1 for _ in distinct(crossed(self.products)))

    def combinations(self, search: Search, seed: int) -> list[FieldValues]:
        """Gives the combinations to train, each once: every base, and after it what ablations make of it.

        Args:
            search: all combinations of the axes, or how many of them, are bases.
            seed: of a sample.

        Raises:
            MmerError: if an axis is a range and all combinations are asked for.
            ValueError: if the search chooses by scores, which `fusion.grid.tpe` does.
        """
        if search.kind == TPE:
            raise ValueError("a search by tpe learns its combinations one after another; use TreeSearch")
        bases = self._bases(search, seed)
        return list(distinct({**base, **change} for base in bases for change in ({}, *self.changes)))

    def with_changes(self, changes: Iterable[FieldValues]) -> "Space":
        """Adds changes to those of its ablations, each once."""
        return replace(self, changes=tuple(distinct([*self.changes, *changes])))

    def notes(self, search: Search) -> list[str]:
        """Says where a search takes less than it asks for."""
        if search.kind == GRID or self.size is None or search.count <= self.size:
            return []
        return [f"--search {search} asks for more combinations than there are ({self.size}); every one is taken"]

    def _bases(self, search: Search, seed: int) -> Iterable[FieldValues]:
        if search.kind == GRID:
            self._check_listed()
        if search.kind == GRID or (self.size is not None and search.count >= self.size):
            return crossed(self.products)
        return sampled(self.products, search.count, seed)

    def _check_listed(self) -> None:
        for axis in self.axes:
            if axis.span:
                raise MmerError(
                    f"axis {axis.name}={axis.span} is a range, and --search grid needs values; "
                    f"list them, or sample the range by --search random:50"
                )


def read_space(
    fusion: str,
    *,
    grid: Sequence[str] | Mapping[str, object] = (),
    ablate: Sequence[str | FieldValues] = (),
    grid_file: Path | None = None,
) -> Space:
    """Reads the space of a grid as it is written on a command line, in Python and in a file.

    Args:
        fusion: name of the head.
        grid: axes to cross, each ``FIELD=V1,V2``, or ``FIELD=LOW..HIGH`` and ``FIELD=log:LOW..HIGH`` to sample; or
            a mapping of fields to lists of values, single values, or such ranges.
        ablate: changes, each ``FIELD=V1,V2`` for one with each value, or ``FIELD=VALUE/FIELD=VALUE`` for one of all;
            or a mapping of fields to values for one of all.
        grid_file: axes as a JSON object of lists, or as a list of objects whose combinations are united.

    Raises:
        MmerError: if any of it cannot be read, or axes are given in both places.

    Example:
        >>> space = read_space("bimodal", grid=["lr=1e-4,3e-4"], ablate=["ccb1=false", "ccb1=false/ccb2=false"])
        >>> for fields in space.combinations(Search(), seed=0)[:3]:
        ...     print(fields)
        {'lr': 0.0001}
        {'lr': 0.0001, 'ccb1': False}
        {'lr': 0.0001, 'ccb1': False, 'ccb2': False}
    """
    if grid and grid_file:
        raise MmerError("--grid and --grid-file do not go together; write all axes on the command line or in the file")
    products = _from_file(fusion, grid_file) if grid_file else (_from_line(fusion, grid),)
    reader = AxisReader(fusion=fusion, where="--ablate")
    changes = [
        change
        for item in ablate
        for change in (reader.changes(item) if isinstance(item, str) else [reader.change(item)])
    ]
    reader.check_changes(changes)
    return Space(products=products, changes=tuple(changes))


def _shuffled(spaces: Sequence[FieldValues], count: int, seed: int) -> Iterable[FieldValues]:
    """Draws without replacement, where all there is can be counted."""
    from sklearn.model_selection import ParameterGrid

    every = ParameterGrid(spaces)
    if len(every) > SHUFFLED:
        return _drawn(spaces, count, seed)
    return (every[place] for place in np.random.default_rng(seed).permutation(len(every)))


def _drawn(spaces: Sequence[FieldValues], count: int, seed: int) -> Iterable[FieldValues]:
    from sklearn.model_selection import ParameterSampler

    drawn: Iterable[FieldValues] = ParameterSampler(spaces, count, random_state=seed)
    return drawn


def _placed(axes: Sequence[Axis], *, lists: bool) -> dict[str, Any]:
    """Names axes so that scikit-learn, which sorts them, keeps their order."""
    return {
        f"{place:0{PLACES}}{axis.name}": axis.span if axis.span and not lists else axis.choices
        for place, axis in enumerate(axes)
    }


def _in_order(placed: FieldValues) -> FieldValues:
    return {name[PLACES:]: placed[name] for name in sorted(placed)}


def _from_line(fusion: str, texts: Sequence[str] | Mapping[str, object]) -> tuple[Axis, ...]:
    reader = AxisReader(fusion=fusion, where="--grid")
    if isinstance(texts, Mapping):
        lists = {name: list(value) if isinstance(value, (tuple, range)) else value for name, value in texts.items()}
        return _product(_Pairs(lists.items()), reader)
    axes = tuple(reader.axis(text) for text in texts)
    reader.check_names([axis.name for axis in axes])
    return axes


def _from_file(fusion: str, path: Path) -> tuple[tuple[Axis, ...], ...]:
    held = _parsed(path)
    if isinstance(held, _Pairs):
        return (_product(held, AxisReader(fusion=fusion, where=str(path))),)
    if not isinstance(held, list) or not held:
        raise MmerError(f'{path} must hold an object such as {{"lr": [1e-4, 3e-4]}}, or a list of them')
    readers = [AxisReader(fusion=fusion, where=f"{path}, object {place}") for place, _ in enumerate(held, start=1)]
    return tuple(_product(one, reader) for one, reader in zip(held, readers, strict=True))


class _Pairs(list[tuple[str, Any]]):
    """A JSON object, its names as often as they stand there."""


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_Pairs)
    except OSError as error:
        raise MmerError(f"{path} cannot be read: {error.strerror}; give --grid-file a file in JSON") from None
    except UnicodeDecodeError as error:
        raise MmerError(f"{path} is no JSON: byte {error.start} is not UTF-8; save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise MmerError(f"{path}, line {error.lineno}, column {error.colno} is no JSON: {error.msg}") from None


def _product(held: Any, reader: AxisReader) -> tuple[Axis, ...]:
    """Takes the axes of one object of a file, where one value may stand without a list."""
    if not isinstance(held, _Pairs):
        raise MmerError(f'{reader.where} must be an object such as {{"lr": [1e-4, 3e-4]}}, got {json.dumps(held)}')
    reader.check_names([name for name, _ in held])
    return tuple(
        reader.listed(name, values)
        if isinstance(values, list) and not isinstance(values, _Pairs)
        else reader.scalar(name, values)
        for name, values in held
    )


def _united(one: Axis, other: Axis) -> Axis:
    """Gives the axis that holds the values of both, or a range if either is one."""
    if one.span or other.span:
        return one if one.span else other
    return Axis(name=one.name, values=tuple(dict.fromkeys([*one.values, *other.values])))
