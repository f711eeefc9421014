"""JSON from outside: nested too deeply or not finite, it is an error like any other text that is not JSON."""

import json
from typing import Any, NoReturn


def parse_json(text: str, *, finite: bool = True) -> Any:
    """Parses JSON.

    Args:
        text: the text.
        finite: refuse NaN and infinity, which are not JSON; Python writes them all the same.

    Raises:
        ValueError: if it is not JSON, or is nested too deeply.

    Example:
        >>> parse_json('{"dim": 3}')
        {'dim': 3}
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant if finite else None)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def is_count(value: object) -> bool:
    """Returns True for an integer of 64 bits that is not negative; JSON has true and false as well.

    Example:
        >>> is_count(3), is_count(True), is_count(-1), is_count(2**80)
        (True, False, False, False)
    """
    return type(value) is int and 0 <= value < 2**63


def is_number(value: object) -> bool:
    """Returns True for an integer of 64 bits or a float; neither true nor false is a number.

    Example:
        >>> is_number(0.5), is_number(2), is_number(True), is_number(10**400)
        (True, True, False, False)
    """
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
