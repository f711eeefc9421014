"""The axes of a grid: how they are written, what they may be, and the values that each of them is given.

A range that a search draws values from, evenly or by their logarithm.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, make_dataclass
from functools import cached_property
from types import NoneType
from typing import Any, get_args, get_type_hints

import numpy as np

from cache.errors import MmerError
from cache.stream import ROLES
from fusion.config import configured, nearest
from fusion.data.views import view_role
from fusion.experiment.streams import LANGUAGE
from fusion.grid.combinations import FieldValues, fields_text, value_text
from fusion.head import AUDIO, TEXT
from fusion.heads.catalog import head_spec
from fusion.training.config import TrainConfig

BY_LOG = "log:"
BETWEEN = ".."
FARTHEST = 1e15  # below 2 ** 53, so that whole numbers stay exact
LISTED = 100_000  # as many whole numbers as are ever listed
DIGITS = 4  # of a drawn number: it is read in tables, and set by hand to train it once more
STREAM = "stream."  # before a role: the axis is which stream is read for it
STREAM_ROLES = (*ROLES, LANGUAGE, view_role(AUDIO), view_role(TEXT))
OF_GRIDS = {"seed": "--seeds"}  # fields that a grid sets itself
TOGETHER = "/"  # no value holds it: numbers and words do not, and names of streams must not
LAYERS_LISTED = re.compile(r"@\d+(?:,\d+(?![\w-]))+")  # in the name of a stream, such as wavlm-base@9,12
COMMA, NO_COMMA = ",", "\0"
Kinds = Mapping[str, Any]  # what the values of an axis are, by axis


@dataclass(frozen=True, kw_only=True)
class ValueRange:
    """All numbers from one to another, both included.

    Attributes:
        low: the least.
        high: the greatest.
        log: whether each order of magnitude is as likely as the next; if not, each number is.
        whole: whether only whole numbers count.

    Raises:
        ValueError: if `high` is not above `low`, `low` not above 0 where it is by logarithm, or either too far
            from 0.

    Example:
        >>> str(Span(low=1e-5, high=1e-2, log=True)), str(Span(low=1, high=6, whole=True))
        ('log:1e-05..0.01', '1..6')
        >>> Span(low=1, high=6, whole=True).count
        6
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not self.high > self.low:
            raise ValueError(f"the end of a range must be above its start, got {self}")
        if max(-self.low, self.high) > FARTHEST:
            raise ValueError(f"a range must lie within {FARTHEST:g} of 0, got {self}")
        if self.log and not self.low > 0:
            raise ValueError(f"a range by {BY_LOG} must start above 0, got {self}")

    def __str__(self) -> str:
        return f"{BY_LOG if self.log else ''}{self.low}{BETWEEN}{self.high}"

    @property
    def count(self) -> int | None:
        """How many numbers it holds, None for more than can be listed."""
        count = int(self.high - self.low) + 1
        return count if self.whole and count <= LISTED else None

    def rvs(self, random_state: np.random.RandomState) -> float:
        """Draws a number; so scikit-learn's ParameterSampler asks for it."""
        return self.tidied(self._distribution.rvs(random_state=random_state))

    def tidied(self, number: float) -> float:
        """Rounds a number to one that the range holds and people can read.

        Example:
            >>> Span(low=1e-5, high=1e-2).tidied(0.000123456), Span(low=1, high=6, whole=True).tidied(2.4)
            (0.0001235, 2)
        """
        if self.whole:
            return int(min(max(round(number), self.low), self.high))
        return min(max(float(f"{number:.{DIGITS}g}"), self.low), self.high)

    @cached_property
    def _distribution(self) -> Any:
        from scipy import stats  # here: it takes a second to import, and only searches draw

        if self.whole and not self.log:
            return stats.randint(self.low, self.high + 1)
        if self.whole:
            return stats.loguniform(self.low - 0.5, self.high + 0.5)  # then rounded: the ends are as likely as the rest
        if self.log:
            return stats.loguniform(self.low, self.high)
        return stats.uniform(self.low, self.high - self.low)


def spells_span(text: str) -> bool:
    """Tells whether a text is meant as a range.

    Example:
        >>> [spells_span(text) for text in ("0..0.5", "log:1e-5..1e-2", "0.5", "1e-4,3e-4")]
        [True, True, False, False]
    """
    return BETWEEN in text or text.startswith(BY_LOG)


def span_ends(text: str) -> tuple[str, str]:
    """Gives the two ends that a range is written with.

    Example:
        >>> span_ends("log:1e-5..1e-2"), span_ends("0..0.5")
        (('1e-5', '1e-2'), ('0', '0.5'))
    """
    low, _, high = text.removeprefix(BY_LOG).partition(BETWEEN)
    return low.strip(), high.strip()


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis.

    Attributes:
        name: a field of the head or of its training, or ``stream.ROLE``.
        values: in the order given; empty for a range.
        span: the range, None where there are values.
    """

    name: str
    values: tuple[object, ...] = ()
    span: ValueRange | None = None

    @property
    def count(self) -> int | None:
        """How many values there are, None for more than can be listed."""
        return self.span.count if self.span else len(self.values)

    @property
    def choices(self) -> Sequence[object]:
        """All its values, those of a range of whole numbers too."""
        return range(int(self.span.low), int(self.span.high) + 1) if self.span else self.values


@dataclass(frozen=True, kw_only=True)
class AxisReader:
    """Reads axes for one head, in the form that a command line or a file has them.

    Attributes:
        fusion: name of the head.
        where: the flag or file that they stand in, for errors.

    Example:
        >>> reader = AxisReader(fusion="rescmfa", where="--grid")
        >>> reader.axis("lr=1e-3, 3e-4").values
        (0.001, 0.0003)
        >>> reader.axis("stream.text=roberta-tiny,roberta-tiny+history10").values
        ('roberta-tiny', 'roberta-tiny+history10')
        >>> str(reader.axis("layers=1..6").span)
        '1..6'
        >>> reader.changes("alpha=0,1"), reader.changes("alpha=0/global_aware=false")
        ([{'alpha': 0.0}, {'alpha': 1.0}], [{'alpha': 0.0, 'global_aware': False}])
    """

    fusion: str
    where: str

    def axis(self, text: str) -> Axis:
        """Reads ``FIELD=V1,V2`` or ``FIELD=LOW..HIGH``.

        Raises:
            MmerError: if it is not of that form, the field is unknown, or a value is none of its kind or stands twice.
        """
        name, sign, values = (part.strip() for part in text.partition("="))
        if not name or not sign:
            raise self._error(f"{text!r} is no FIELD=VALUES, such as lr=1e-4,3e-4")
        kind = self._kind(name)
        if _number(kind) and spells_span(values):
            return Axis(name=name, span=self._span(name, values, kind))
        return self.listed(name, _parted(values) if name.startswith(STREAM) else values.split(COMMA))

    def scalar(self, name: str, value: object) -> Axis:
        """Takes one value as it is, or a text for a range."""
        kind = self._kind(name)
        if isinstance(value, str) and _number(kind) and spells_span(value):
            return Axis(name=name, span=self._span(name, value.strip(), kind))
        return self.listed(name, [value])

    def listed(self, name: str, values: Sequence[object]) -> Axis:
        """Takes values one by one, as text or as they are."""
        kind = self._kind(name)
        if not values or list(values) == [""]:
            raise self._error(f"{name} has no value; name one or more, such as {name}={self._example(kind)}")
        read = [self._read(name, value, kind) for value in values]
        for place, value in enumerate(read):
            if value in read[:place]:
                raise self._error(f"{name} is given the value {value_text(value)} twice; give it once")
        return Axis(name=name, values=tuple(read))

    def changes(self, text: str) -> list[FieldValues]:
        """Reads ``FIELD=V1,V2``, one change for each value, or ``FIELD=VALUE/FIELD=VALUE``, one change of them all.

        Raises:
            MmerError: as `axis` does, and where a range is given, or several values for fields changed together.
        """
        axes = [self.axis(part) for part in text.split(TOGETHER)]
        self._check_values(axes)
        if len(axes) == 1:
            return [{axes[0].name: value} for value in axes[0].values]
        self.check_names([axis.name for axis in axes])
        if any(len(axis.values) > 1 for axis in axes):
            raise self._error(
                f"fields changed together by {TOGETHER} have one value each, got {text!r}; write one each"
            )
        return [{axis.name: axis.values[0] for axis in axes}]

    def change(self, values: FieldValues) -> FieldValues:
        """Reads one change, its fields with one value each, as text or as they are.

        Raises:
            MmerError: if a field is unknown, or a value is a range or not of the field's type.

        Example:
            >>> AxisReader(fusion="rescmfa", where="ablate").change({"alpha": 0, "global_aware": False})
            {'alpha': 0.0, 'global_aware': False}
        """
        axes = [self.scalar(name, value) for name, value in values.items()]
        self._check_values(axes)
        return {axis.name: axis.values[0] for axis in axes}

    def check_names(self, names: Sequence[str]) -> None:
        """Refuses a name that stands twice.

        Raises:
            MmerError: if one does.
        """
        for place, name in enumerate(names):
            if name in names[:place]:
                raise self._error(f"{name} is given twice; give it once, with all its values")

    def check_changes(self, changes: Sequence[FieldValues]) -> None:
        """Refuses a change that stands twice.

        Raises:
            MmerError: if one does.
        """
        for place, change in enumerate(changes):
            if change in changes[:place]:
                raise self._error(f"{fields_text(change)} is given twice; give it once")

    def _check_values(self, axes: Sequence[Axis]) -> None:
        for axis in axes:
            if axis.span:
                raise self._error(f"{axis.name}={axis.span} is a range, which is only for --grid; name its values")

    def _kind(self, name: str) -> Any:
        """Gives the type of an axis' values."""
        if name in OF_GRIDS:
            raise self._error(f"{name} is no axis; every combination is trained with the seeds of {OF_GRIDS[name]}")
        kinds = axis_kinds(self.fusion)
        if name not in kinds:
            meant = f"did you mean {STREAM}{name}?" if name in STREAM_ROLES else nearest(name, kinds)
            raise self._error(f"head {self.fusion} and its training have no field {name!r}; {meant}")
        return kinds[name]

    def _span(self, name: str, text: str, kind: Any) -> ValueRange:
        low, high = span_ends(text)
        if COMMA in text or not low or not high:
            raise self._error(f"{name}={text} is no range; write one alone as {name}=LOW..HIGH or {name}=log:LOW..HIGH")
        ends = {"low": self._read(name, low, kind), "high": self._read(name, high, kind)}
        try:
            return ValueRange(**ends, log=text.startswith(BY_LOG), whole=_number(kind) is int)
        except ValueError as error:
            raise self._error(f"{name}: {error}") from None

    def _read(self, name: str, value: object, kind: Any) -> Any:
        """Reads a value as what its field is, whether or not the configuration takes it."""
        if name.startswith(STREAM):
            if not isinstance(value, str) or not value.strip():
                raise self._error(f"{name} must be the name of a stream, got {value!r}")
            return value.strip()
        if isinstance(value, str) and not value.strip():
            raise self._error(f"{name} has an empty value; leave it out, or the comma too much")
        value = value.strip() if isinstance(value, str) else value
        alone = make_dataclass("Alone", [(name, kind)], kw_only=True)  # without the checks of the field's own class
        return getattr(configured(alone, {name: value}, owner=self.where), name)

    def _example(self, kind: Any) -> str:
        return {float: "0.1,0.3", int: "2,4", bool: "true,false"}.get(_number(kind) or kind, "A,B")

    def _error(self, what: str) -> MmerError:
        return MmerError(f"{self.where}: {what}")


def axis_kinds(fusion: str) -> dict[str, Any]:
    """Gives the type of every axis that a head may have.

    Raises:
        MmerError: if there is no such head.

    Example:
        >>> kinds = axis_kinds("rescmfa")
        >>> kinds["alpha"], kinds["batch_size"], kinds["stream.text"]
        (<class 'float'>, <class 'int'>, <class 'str'>)
    """
    found: dict[str, Any] = {}
    for config in (head_spec(fusion).config, TrainConfig):
        types = get_type_hints(config)
        found |= {one.name: types[one.name] for one in fields(config) if one.name not in OF_GRIDS}
    return found | {f"{STREAM}{role}": str for role in STREAM_ROLES}


def _number(kind: Any) -> type | None:
    """Gives int or float where values are numbers, or numbers or None."""
    kinds = [one for one in get_args(kind) if one is not NoneType] or [kind]
    return next((one for one in kinds if one in {int, float}), None)


def _parted(names: str) -> list[str]:
    """Splits names of streams at commas, but for those between layers.

    Example:
        >>> _parted("wavlm-base@9,12,wavlm-base@12+history10,2ch")
        ['wavlm-base@9,12', 'wavlm-base@12+history10', '2ch']
    """
    kept = LAYERS_LISTED.sub(lambda found: found[0].replace(COMMA, NO_COMMA), names)
    return [name.replace(NO_COMMA, COMMA) for name in kept.split(COMMA)]
