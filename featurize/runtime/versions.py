"""Versions of the libraries that features depend on."""

import functools
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from cache.version import DISTRIBUTION

RECORDED: Mapping[str, str] = {  # name in a stream's spec -> distribution
    "mmer": DISTRIBUTION,
    **{name: name for name in ("torch", "transformers", "numpy", "soxr", "soundfile", "librosa", "av")},
}


def library_versions() -> dict[str, str]:
    """Returns the versions of the packages that influence a feature, as far as they are installed."""
    found = {name: installed_version(distribution) for name, distribution in RECORDED.items()}
    return {name: installed for name, installed in found.items() if installed}


@functools.cache
def installed_version(distribution: str) -> str:
    """Returns the version of a package, empty without it: in a bare clone, or on a machine without librosa.

    A process reads it once, since every stream records all versions.
    """
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
