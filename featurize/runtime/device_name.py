"""Device names, checked before torch is imported."""

import re

from cache.errors import MmerError

AUTO = "auto"
NAME = re.compile(r"(cpu|cuda|mps)(:[0-9]+)?")


def check_device_name(name: str) -> None:
    """Checks the form of the name of a device; only torch knows whether this machine has it.

    Raises:
        MmerError: if no device can have that name.

    Example:
        >>> check_device_name("cuda:1")
        >>> check_device_name("gpu")
        Traceback (most recent call last):
        cache.errors.MmerError: device 'gpu' is not available here; choose auto, cpu, cuda, cuda:N or mps
    """
    if name != AUTO and not NAME.fullmatch(name):
        raise unavailable(name)


def unavailable(name: str) -> MmerError:
    """Returns the error about a device that this machine does not have."""
    return MmerError(f"device {name!r} is not available here; choose auto, cpu, cuda, cuda:N or mps")
