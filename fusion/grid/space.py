"""The space of a grid: axes to cross, and ablations, which change each combination one at a time.

A search takes all combinations of a space (``grid``), draws some (``random:N``), or chooses them by the scores of
earlier ones (``tpe:N``, `fusion.grid.tpe`).
"""

import json
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice, product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import MmerError
from cache.joined import AnyCache
from fusion.experiment.plan import Splits
from fusion.experiment.request import ExperimentRequest
from fusion.grid.axes import Axis, AxisReader, ValueRange
from fusion.grid.combinations import FieldValues, check_trainable
from fusion.grid.published import published_variants

PUBLISHED = "published"  # stands for the changes of all variants that the recipe's paper published
GRID, RANDOM, TPE = "grid", "random", "tpe"
SEARCHES = (GRID, RANDOM, TPE)
SHUFFLED = 100_000  # most combinations that are shuffled as a whole, so that samples of one seed begin alike
DRAWS = 100  # draws for each combination of a sample, since a draw may repeat an earlier one
INDEX_DIGITS = 4  # of the index that is put before the name of an axis
Products = Sequence[Sequence[Axis]]


@dataclass(frozen=True, kw_only=True)
class Search:
    """The search of a space.

    Attributes:
        kind: ``grid``, ``random`` or ``tpe``.
        count: number of combinations to train; 0 for ``grid``, which trains all.

    Raises:
        ValueError: if the kind is unknown, or the count does not suit it.
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


EVERY_COMBINATION = Search()


@dataclass(frozen=True, kw_only=True)
class Space:
    """All combinations that a grid may train.

    Attributes:
        products: axes to cross; the combinations of several products are united.
        changes: changes of ablations; each is applied alone to every combination.
        remarks: lines on changes that were requested and that no combination can have.
    """

    products: tuple[tuple[Axis, ...], ...] = ((),)
    changes: tuple[FieldValues, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Each axis once, with its values in all products; ablations do not count."""
        found: dict[str, Axis] = {}
        for axis in (axis for axes in self.products for axis in axes):
            found[axis.name] = _unite(found[axis.name], axis) if axis.name in found else axis
        return tuple(found.values())

    @property
    def size(self) -> int | None:
        """Number of combinations before ablations, None if they cannot be listed."""
        if any(axis.count is None for axes in self.products for axis in axes):
            return None
        total = sum(prod(axis.count or 0 for axis in axes) for axes in self.products)
        if len(self.products) == 1 or total > SHUFFLED:  # then a combination of two products counts twice
            return total
        return sum(1 for _ in distinct(cross(self.products)))

    def combinations(self, search: Search, seed: int) -> list[FieldValues]:
        """Lists the combinations to train, each once: every base, followed by the base with each change.

        Args:
            search: takes all combinations of the axes as bases, or draws some.
            seed: random seed of a sample.

        Raises:
            MmerError: if an axis is a range and the search takes all combinations.
            ValueError: if the search chooses by scores, which `fusion.grid.tpe` does.
        """
        if search.kind == TPE:
            raise ValueError("tpe chooses combinations by the scores of earlier ones; use TreeSearch")
        bases = self._bases(search, seed)
        return list(distinct({**base, **change} for base in bases for change in ({}, *self.changes)))

    def with_changes(self, changes: Iterable[FieldValues], remarks: Iterable[str] = ()) -> "Space":
        """Adds changes to those of the ablations, each once, and remarks."""
        distinct_changes = tuple(distinct([*self.changes, *changes]))
        return replace(self, changes=distinct_changes, remarks=(*self.remarks, *remarks))

    def notes(self, search: Search) -> list[str]:
        """Returns the remarks, and a note if a search requests more combinations than there are."""
        if search.kind == GRID or self.size is None or search.count <= self.size:
            return [*self.remarks]
        text = f"--search {search} requests more combinations than there are ({self.size}); all are trained"
        return [*self.remarks, text]

    def _bases(self, search: Search, seed: int) -> Iterable[FieldValues]:
        if search.kind == GRID:
            self._check_listed()
        if search.kind == GRID or (self.size is not None and search.count >= self.size):
            return cross(self.products)
        return sample(self.products, search.count, seed)

    def _check_listed(self) -> None:
        for axis in self.axes:
            if axis.value_range:
                raise MmerError(
                    f"axis {axis.name}={axis.value_range} is a range, and --search grid needs values; "
                    f"list the values, or draw from the range with --search random:50"
                )


@dataclass(frozen=True, kw_only=True)
class GridRequest:
    """A requested grid: an experiment, the space of its changes, and how the space is searched.

    Attributes:
        base: experiment that every combination changes.
        space: the combinations.
        search: the search of the space.
        search_seed: random seed of the search, if it is random or by tpe.
        report_all_tests: score the test subsets of all combinations, for ablation tables.
        given: the space as its options give it: ``grid``, ``ablate``, ``grid-file``; for the configuration file.

    Raises:
        MmerError: if a field is both an axis of the space and set by the base.
    """

    base: ExperimentRequest
    space: Space
    search: Search = EVERY_COMBINATION
    search_seed: int = 0
    report_all_tests: bool = False
    given: Mapping[str, object] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, object]:
        """The options that give the grid back, by name without dashes in front."""
        search = {
            "search": str(self.search),
            "search-seed": self.search_seed,
            "report-all-tests": self.report_all_tests,
        }
        axes = {name: axes_texts(axes) for name, axes in self.given.items()}
        return {**axes, **search, **self.base.options}

    def __post_init__(self) -> None:
        twice = [axis.name for axis in self.space.axes if axis.name in self.base.fields]
        if twice:
            raise MmerError(f"{twice[0]} is both an axis of the grid and set to a single value; remove one of the two")


def axes_texts(axes: object) -> object:
    """Returns axes or changes as texts of the command line.

    Example:
        >>> axes_texts({"lr": [0.1, 0.2]}), axes_texts([{"alpha": 0, "beta": 1}, "published"])
        (['lr=0.1,0.2'], ['alpha=0/beta=1', 'published'])
    """
    if isinstance(axes, Mapping):
        return [f"{name}={_values_text(values)}" for name, values in axes.items()]
    if isinstance(axes, Sequence) and not isinstance(axes, str):
        return [
            "/".join(f"{name}={_values_text(value)}" for name, value in change.items())
            if isinstance(change, Mapping)
            else str(change)
            for change in axes
        ]
    return axes if axes is None else str(axes)


def grid_space(
    base: ExperimentRequest,
    *,
    grid: Sequence[str] | Mapping[str, object] = (),
    ablate: Sequence[str | FieldValues] = (),
    grid_file: Path | None = None,
    cache: AnyCache | None = None,
) -> Space:
    """Reads the space of a grid, the published variants of a recipe included.

    Args:
        base: experiment that every combination changes.
        grid: axes to cross, as `fusion.grid.space.read_space` reads them.
        ablate: changes, in the same forms; ``published`` stands for the variants of the recipe's paper.
        grid_file: axes in JSON.
        cache: cache of the grid, whose streams decide what ``published`` can run.

    Raises:
        MmerError: if an axis or a change cannot be read, or ``published`` is given without a recipe with variants.
    """
    changes = [change for change in ablate if change != PUBLISHED]
    space = read_space(base.head, grid=grid, ablate=changes, grid_file=grid_file)
    if len(changes) == len(ablate):
        return space
    variants = published_variants(base, cache)
    if not variants.changes:
        raise MmerError(f"--ablate {PUBLISHED} needs variants that a paper published; choose a --recipe with variants")
    return space.with_changes(variants.changes, variants.notes)


def check_grid(request: GridRequest, cache: AnyCache) -> Splits:
    """Checks that the cache suits a combination of a grid that trains all of them, before torch is imported.

    Args:
        request: the grid; a search that draws combinations is not checked.
        cache: cache of the grid.

    Returns:
        The splits of the cache, for the plans of the combinations.

    Raises:
        MmerError: if no combination suits the cache, or an axis is a range.
    """
    if request.search.kind != GRID:  # what draws imports as much as torch
        return Splits(cache)
    requested = request.space.combinations(request.search, request.search_seed)
    return check_trainable(requested, partial(request.base.experiment, cache), cache)


def parse_search(text: str) -> Search:
    """Reads ``grid``, ``random:N`` or ``tpe:N``.

    Raises:
        MmerError: if the text has another form.

    Example:
        >>> parse_search("random:50"), parse_search("grid")
        (Search(kind='random', count=50), Search(kind='grid', count=0))
    """
    kind, colon, count = (part.strip() for part in text.partition(":"))
    if kind not in SEARCHES:
        raise MmerError(f"--search {text} is not a search; write grid, random:50 or tpe:50")
    if kind == GRID and colon:
        raise MmerError(
            f"--search {text}: grid trains every combination and takes no number; write random:N or tpe:N for a sample"
        )
    if kind != GRID and not (count.isascii() and count.isdecimal() and int(count)):
        raise MmerError(f"--search {text}: {kind} needs a number of combinations (1 or more), such as {kind}:50")
    return Search(kind=kind, count=int(count or 0))


def cross(products: Products) -> Iterator[FieldValues]:
    """Yields every combination of each product, the first axis slowest; ranges must be of whole numbers."""
    for axes in products:
        names = [axis.name for axis in axes]
        for values in product(*(axis.choices for axis in axes)):
            yield dict(zip(names, values, strict=True))


def sample(products: Products, count: int, seed: int) -> list[FieldValues]:
    """Draws distinct combinations; a shorter sample is the beginning of a longer one with the same seed.

    Args:
        products: the axes of each product.
        count: number of combinations; there are fewer where ranges are too narrow.
        seed: random seed of the sample.
    """
    countable = all(
        axis.count and not (axis.value_range and axis.value_range.log) for axes in products for axis in axes
    )
    spaces = [_parameters(axes, lists=countable) for axes in products]
    drawn = _shuffle(spaces, count, seed) if countable else _draw(spaces, count * DRAWS, seed)
    return list(islice(distinct(map(_ordered, drawn)), count))


def distinct(combinations: Iterable[FieldValues]) -> Iterator[FieldValues]:
    """Yields each combination once, where it occurs first."""
    seen: set[Hashable] = set()
    for fields in combinations:
        if (key := fields_key(fields)) not in seen:
            seen.add(key)
            yield fields


def fields_key(fields: FieldValues) -> Hashable:
    """Returns a key that is equal for combinations with the same values, in any order."""
    return frozenset(fields.items())


def read_space(
    fusion: str,
    *,
    grid: Sequence[str] | Mapping[str, object] = (),
    ablate: Sequence[str | FieldValues] = (),
    grid_file: Path | None = None,
) -> Space:
    """Reads the space of a grid from texts of a command line, values of Python or a file.

    Args:
        fusion: name of the head.
        grid: axes to cross, each ``FIELD=V1,V2``, or ``FIELD=LOW..HIGH`` and ``FIELD=log:LOW..HIGH`` to sample; or
            a mapping of fields to lists of values, single values, or such ranges.
        ablate: changes, each ``FIELD=V1,V2`` (a change for each value) or ``FIELD=VALUE/FIELD=VALUE`` (one change of
            all fields); or a mapping of fields to values (one change of all fields).
        grid_file: axes as a JSON object of lists, or as a list of objects whose combinations are united.

    Raises:
        MmerError: if an axis or a change cannot be read, or if `grid` and `grid_file` both have axes.

    Example:
        >>> space = read_space("bimodal", grid=["lr=1e-4,3e-4"], ablate=["ccb1=false", "ccb1=false/ccb2=false"])
        >>> for fields in space.combinations(Search(), seed=0)[:3]:
        ...     print(fields)
        {'lr': 0.0001}
        {'lr': 0.0001, 'ccb1': False}
        {'lr': 0.0001, 'ccb1': False, 'ccb2': False}
    """
    if grid and grid_file:
        raise MmerError("--grid and --grid-file exclude each other; write all axes on the command line or in the file")
    products = _from_file(fusion, grid_file) if grid_file else (_from_line(fusion, grid),)
    reader = AxisReader(fusion=fusion, where="--ablate")
    changes = [
        change
        for item in ablate
        for change in (reader.changes(item) if isinstance(item, str) else [reader.change(item)])
    ]
    reader.check_changes(changes)
    return Space(products=products, changes=tuple(changes))


def _shuffle(spaces: Sequence[FieldValues], count: int, seed: int) -> Iterable[FieldValues]:
    """Draws without replacement from countable spaces."""
    from sklearn.model_selection import ParameterGrid  # here and below: the import takes more than a second

    combinations = ParameterGrid(spaces)
    if len(combinations) > SHUFFLED:
        return _draw(spaces, count, seed)
    return (combinations[index] for index in np.random.default_rng(seed).permutation(len(combinations)))


def _draw(spaces: Sequence[FieldValues], count: int, seed: int) -> Iterable[FieldValues]:
    from sklearn.model_selection import ParameterSampler

    drawn: Iterable[FieldValues] = ParameterSampler(spaces, count, random_state=seed)
    return drawn


def _parameters(axes: Sequence[Axis], *, lists: bool) -> dict[str, Sequence[object] | ValueRange]:
    """Returns values by axis; names start with an index, since scikit-learn sorts them."""
    return {
        f"{index:0{INDEX_DIGITS}}{axis.name}": axis.value_range if axis.value_range and not lists else axis.choices
        for index, axis in enumerate(axes)
    }


def _ordered(parameters: FieldValues) -> FieldValues:
    """Restores names and order of the axes."""
    return {name[INDEX_DIGITS:]: parameters[name] for name in sorted(parameters)}


def _from_line(fusion: str, texts: Sequence[str] | Mapping[str, object]) -> tuple[Axis, ...]:
    reader = AxisReader(fusion=fusion, where="--grid")
    if isinstance(texts, Mapping):
        lists = {name: list(value) if isinstance(value, (tuple, range)) else value for name, value in texts.items()}
        return _product(_JsonObject(lists.items()), reader)
    axes = tuple(reader.axis(text) for text in texts)
    reader.check_names([axis.name for axis in axes])
    return axes


def _from_file(fusion: str, path: Path) -> tuple[tuple[Axis, ...], ...]:
    content = _read_json(path)
    if isinstance(content, _JsonObject):
        return (_product(content, AxisReader(fusion=fusion, where=str(path))),)
    if not isinstance(content, list) or not content:
        raise MmerError(f'{path} must hold an object such as {{"lr": [1e-4, 3e-4]}}, or a list of them')
    readers = [AxisReader(fusion=fusion, where=f"{path}, object {number}") for number in range(1, len(content) + 1)]
    return tuple(_product(item, reader) for item, reader in zip(content, readers, strict=True))


class _JsonObject(list[tuple[str, Any]]):
    """A JSON object as pairs of name and value, so that repeated names are found."""


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_JsonObject)
    except OSError as error:
        raise MmerError(f"{path} cannot be read: {error.strerror}; --grid-file needs a file in JSON") from None
    except UnicodeDecodeError as error:
        raise MmerError(f"{path} is not JSON: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise MmerError(f"{path}, line {error.lineno}, column {error.colno} is not JSON: {error.msg}") from None


def _product(content: Any, reader: AxisReader) -> tuple[Axis, ...]:
    """Reads the axes of an object, each with a list of values or a single value."""
    if not isinstance(content, _JsonObject):
        raise MmerError(f'{reader.where} must be an object such as {{"lr": [1e-4, 3e-4]}}, got {json.dumps(content)}')
    reader.check_names([name for name, _ in content])
    return tuple(
        reader.listed(name, values)
        if isinstance(values, list) and not isinstance(values, _JsonObject)
        else reader.scalar(name, values)
        for name, values in content
    )


def _unite(axis: Axis, other: Axis) -> Axis:
    """Returns an axis with the values of both, or the range if either is a range."""
    if axis.value_range or other.value_range:
        return axis if axis.value_range else other
    return Axis(name=axis.name, values=tuple(dict.fromkeys([*axis.values, *other.values])))


def _values_text(values: object) -> str:
    if isinstance(values, Sequence) and not isinstance(values, str):
        return ",".join(map(_values_text, values))
    return str(values).lower() if isinstance(values, bool) or values is None else str(values)
