"""Axes of a grid: fields with the values, or the range of numbers, that combinations take.

An axis is written ``FIELD=V1,V2``, ``FIELD=LOW..HIGH`` or ``FIELD=log:LOW..HIGH``. The field belongs to the head or to
its training, or is ``stream.ROLE``. A search draws from a range evenly or by logarithm.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, make_dataclass
from functools import cached_property
from types import NoneType
from typing import Any, get_args, get_type_hints

import numpy as np

from cache.errors import MmerError
from cache.near_names import nearest
from cache.stream import ROLES
from fusion.config import configured
from fusion.experiment.streams import LANGUAGE
from fusion.grid.combinations import FieldValues, fields_text, value_text
from fusion.head_config import AUDIO, TEXT, view_role
from fusion.heads.catalog import head_spec
from fusion.training.config import TrainConfig

LOG_PREFIX = "log:"
RANGE_SIGN = ".."
LARGEST = 1e15  # below 2 ** 53, so that whole numbers stay exact
MAX_LISTED = 100_000  # whole numbers that are listed at most
DIGITS = 4  # of a drawn number: users read it in tables, and type it to train the model again
STREAM = "stream."  # prefix of a role: the values of the axis are streams
STREAM_ROLES = (*ROLES, LANGUAGE, view_role(AUDIO), view_role(TEXT))
SET_BY_GRID = {"seed": "--seeds"}  # fields that a grid sets itself
CHANGE_SIGN = "/"  # joins fields that change together; numbers and words do not contain it, names of streams must not
LAYER_LIST = re.compile(r"@\d+(?:,\d+(?![\w-]))+")  # in the name of a stream, such as wavlm-base@9,12
COMMA, PLACEHOLDER = ",", "\0"


@dataclass(frozen=True, kw_only=True)
class ValueRange:
    """A range of numbers that includes both ends.

    Attributes:
        low: smallest number.
        high: largest number.
        log: all orders of magnitude are equally likely; otherwise all numbers are.
        whole: the range has whole numbers only.

    Raises:
        ValueError: if `high` is not above `low`, if `low` of a logarithmic range is not above 0, or if either is
            further than 1e15 from 0.

    Example:
        >>> str(ValueRange(low=1e-5, high=1e-2, log=True)), str(ValueRange(low=1, high=6, whole=True))
        ('log:1e-05..0.01', '1..6')
        >>> ValueRange(low=1, high=6, whole=True).count
        6
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not self.high > self.low:
            raise ValueError(f"the end of a range must be above its start, got {self}")
        if max(-self.low, self.high) > LARGEST:
            raise ValueError(f"a range must lie within {LARGEST:g} of 0, got {self}")
        if self.log and not self.low > 0:
            raise ValueError(f"a range by {LOG_PREFIX} must start above 0, got {self}")

    def __str__(self) -> str:
        return f"{LOG_PREFIX if self.log else ''}{self.low}{RANGE_SIGN}{self.high}"

    @property
    def count(self) -> int | None:
        """Number of its numbers, None if they cannot be listed."""
        count = int(self.high - self.low) + 1
        return count if self.whole and count <= MAX_LISTED else None

    def rvs(self, random_state: np.random.RandomState) -> float:
        """Draws a number; scikit-learn's ParameterSampler calls this method."""
        return self.rounded(self._distribution.rvs(random_state=random_state))

    def rounded(self, number: float) -> float:
        """Rounds a number to four digits, or to a whole number, within the range.

        Example:
            >>> ValueRange(low=1e-5, high=1e-2).rounded(0.000123456), ValueRange(low=1, high=6, whole=True).rounded(2.4)
            (0.0001235, 2)
        """
        if self.whole:
            return int(min(max(round(number), self.low), self.high))
        return min(max(float(f"{number:.{DIGITS}g}"), self.low), self.high)

    @cached_property
    def _distribution(self) -> Any:
        from scipy import stats  # here: the import takes a second, and only searches draw

        if self.whole and not self.log:
            return stats.randint(self.low, self.high + 1)
        if self.whole:
            # rounding follows: half a number more at both ends makes them as likely as the others
            return stats.loguniform(self.low - 0.5, self.high + 0.5)
        if self.log:
            return stats.loguniform(self.low, self.high)
        return stats.uniform(self.low, self.high - self.low)


def is_range_text(text: str) -> bool:
    """Checks whether a text is written as a range.

    Example:
        >>> [is_range_text(text) for text in ("0..0.5", "log:1e-5..1e-2", "0.5", "1e-4,3e-4")]
        [True, True, False, False]
    """
    return RANGE_SIGN in text or text.startswith(LOG_PREFIX)


def range_ends(text: str) -> tuple[str, str]:
    """Returns the two ends of a range as they are written.

    Example:
        >>> range_ends("log:1e-5..1e-2"), range_ends("0..0.5")
        (('1e-5', '1e-2'), ('0', '0.5'))
    """
    low, _, high = text.removeprefix(LOG_PREFIX).partition(RANGE_SIGN)
    return low.strip(), high.strip()


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A field of a grid with its values or its range.

    Attributes:
        name: a field of the head or of its training, or ``stream.ROLE``.
        values: values in the order given; empty for a range.
        value_range: the range, None where there are values.
    """

    name: str
    values: tuple[object, ...] = ()
    value_range: ValueRange | None = None

    @property
    def count(self) -> int | None:
        """Number of values, None if they cannot be listed."""
        return self.value_range.count if self.value_range else len(self.values)

    @property
    def choices(self) -> Sequence[object]:
        """All values, including those of a range of whole numbers."""
        ends = self.value_range
        return range(int(ends.low), int(ends.high) + 1) if ends else self.values


@dataclass(frozen=True, kw_only=True)
class AxisReader:
    """Reader of the axes of one head, from texts of a command line or values of a file.

    Attributes:
        fusion: name of the head.
        where: flag or file of the axes, for errors.

    Example:
        >>> reader = AxisReader(fusion="rescmfa", where="--grid")
        >>> reader.axis("lr=1e-3, 3e-4").values
        (0.001, 0.0003)
        >>> reader.axis("stream.text=roberta-tiny,roberta-tiny+history10").values
        ('roberta-tiny', 'roberta-tiny+history10')
        >>> str(reader.axis("layers=1..6").value_range)
        '1..6'
        >>> reader.changes("alpha=0,1"), reader.changes("alpha=0/global_aware=false")
        ([{'alpha': 0.0}, {'alpha': 1.0}], [{'alpha': 0.0, 'global_aware': False}])
    """

    fusion: str
    where: str

    def axis(self, text: str) -> Axis:
        """Reads ``FIELD=V1,V2`` or ``FIELD=LOW..HIGH``.

        Raises:
            MmerError: if the text has another form, the field is unknown, or a value has the wrong type or is repeated.
        """
        name, sign, values = (part.strip() for part in text.partition("="))
        if not name or not sign:
            raise self._error(f"{text!r} is not of the form FIELD=VALUES, such as lr=1e-4,3e-4")
        kind = self._value_type(name)
        if _number(kind) and is_range_text(values):
            return Axis(name=name, value_range=self._range(name, values, kind))
        return self.listed(name, _split_streams(values) if name.startswith(STREAM) else values.split(COMMA))

    def scalar(self, name: str, value: object) -> Axis:
        """Builds the axis of a single value, or of a range that is given as text."""
        kind = self._value_type(name)
        if isinstance(value, str) and _number(kind) and is_range_text(value):
            return Axis(name=name, value_range=self._range(name, value.strip(), kind))
        return self.listed(name, [value])

    def listed(self, name: str, values: Sequence[object]) -> Axis:
        """Builds the axis of several values, each a text or a value.

        Raises:
            MmerError: if there is no value, or a value has the wrong type or is repeated.
        """
        kind = self._value_type(name)
        if not values or list(values) == [""]:
            raise self._error(f"{name} has no value; name one or more, such as {name}={self._example(kind)}")
        read = [self._read(name, value, kind) for value in values]
        for index, value in enumerate(read):
            if value in read[:index]:
                raise self._error(f"{name} is given the value {value_text(value)} twice; give it once")
        return Axis(name=name, values=tuple(read))

    def changes(self, text: str) -> list[FieldValues]:
        """Reads ``FIELD=V1,V2`` (a change for each value) or ``FIELD=VALUE/FIELD=VALUE`` (one change of all fields).

        Raises:
            MmerError: as `axis` does, and if the text has a range, or several values for fields that change together.
        """
        axes = [self.axis(item) for item in text.split(CHANGE_SIGN)]
        self._check_values(axes)
        if len(axes) == 1:
            return [{axes[0].name: value} for value in axes[0].values]
        self.check_names([axis.name for axis in axes])
        if any(len(axis.values) > 1 for axis in axes):
            raise self._error(
                f"fields changed together by {CHANGE_SIGN} have one value each, got {text!r}; write one each"
            )
        return [{axis.name: axis.values[0] for axis in axes}]

    def change(self, values: FieldValues) -> FieldValues:
        """Reads one change: fields with one value each, a text or a value.

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
        """Checks that no name is repeated.

        Raises:
            MmerError: if a name is repeated.
        """
        for index, name in enumerate(names):
            if name in names[:index]:
                raise self._error(f"{name} is given twice; give it once, with all its values")

    def check_changes(self, changes: Sequence[FieldValues]) -> None:
        """Checks that no change is repeated.

        Raises:
            MmerError: if a change is repeated.
        """
        for index, change in enumerate(changes):
            if change in changes[:index]:
                raise self._error(f"{fields_text(change)} is given twice; give it once")

    def _check_values(self, axes: Sequence[Axis]) -> None:
        for axis in axes:
            if axis.value_range:
                text = f"{axis.name}={axis.value_range}"
                raise self._error(f"{text} is a range, which only --grid takes; list the values")

    def _value_type(self, name: str) -> Any:
        """Returns the type of the values of an axis."""
        if name in SET_BY_GRID:
            flag = SET_BY_GRID[name]
            raise self._error(f"{name} cannot be an axis; every combination is trained with the seeds of {flag}")
        kinds = axis_types(self.fusion)
        if name not in kinds:
            meant = f"did you mean {STREAM}{name}?" if name in STREAM_ROLES else nearest(name, kinds)
            raise self._error(f"head {self.fusion} and its training have no field {name!r}; {meant}")
        return kinds[name]

    def _range(self, name: str, text: str, kind: Any) -> ValueRange:
        low, high = range_ends(text)
        if COMMA in text or not low or not high:
            raise self._error(
                f"{name}={text} is not a range; write a single range as {name}=LOW..HIGH or {name}=log:LOW..HIGH"
            )
        ends = {"low": self._read(name, low, kind), "high": self._read(name, high, kind)}
        try:
            return ValueRange(**ends, log=text.startswith(LOG_PREFIX), whole=_number(kind) is int)
        except ValueError as error:
            raise self._error(f"{name}: {error}") from None

    def _read(self, name: str, value: object, kind: Any) -> Any:
        """Reads a value as the type of its field; the configuration checks it later."""
        if name.startswith(STREAM):
            if not isinstance(value, str) or not value.strip():
                raise self._error(f"{name} must be the name of a stream, got {value!r}")
            return value.strip()
        if isinstance(value, str) and not value.strip():
            raise self._error(f"{name} has an empty value; remove the value or the additional comma")
        value = value.strip() if isinstance(value, str) else value
        unchecked = make_dataclass("Unchecked", [(name, kind)], kw_only=True)  # without the checks of the field's class
        return getattr(configured(unchecked, {name: value}, owner=self.where), name)

    def _example(self, kind: Any) -> str:
        return {float: "0.1,0.3", int: "2,4", bool: "true,false"}.get(_number(kind) or kind, "A,B")

    def _error(self, text: str) -> MmerError:
        return MmerError(f"{self.where}: {text}")


def axis_types(fusion: str) -> dict[str, Any]:
    """Returns the type of the values of every possible axis of a head, by name.

    Raises:
        MmerError: if the head is unknown.

    Example:
        >>> kinds = axis_types("rescmfa")
        >>> kinds["alpha"], kinds["batch_size"], kinds["stream.text"]
        (<class 'float'>, <class 'int'>, <class 'str'>)
    """
    found: dict[str, Any] = {}
    for config in (head_spec(fusion).config, TrainConfig):
        types = get_type_hints(config)
        found |= {field.name: types[field.name] for field in fields(config) if field.name not in SET_BY_GRID}
    return found | {f"{STREAM}{role}": str for role in STREAM_ROLES}


def _number(kind: Any) -> type | None:
    """Returns int or float if values are numbers (or None), else None."""
    kinds = [member for member in get_args(kind) if member is not NoneType] or [kind]
    return next((member for member in kinds if member in {int, float}), None)


def _split_streams(names: str) -> list[str]:
    """Splits names of streams at commas, except at those between layers.

    Example:
        >>> _split_streams("wavlm-base@9,12,wavlm-base@12+history10,2ch")
        ['wavlm-base@9,12', 'wavlm-base@12+history10', '2ch']
    """
    protected = LAYER_LIST.sub(lambda match: match[0].replace(COMMA, PLACEHOLDER), names)
    return [name.replace(PLACEHOLDER, COMMA) for name in protected.split(COMMA)]
