"""Which mmer this is."""

from importlib.metadata import PackageNotFoundError, version


def mmer_version() -> str:
    """Gives the installed version of mmer, or says that it runs from a bare clone."""
    try:
        return version("mmer")
    except PackageNotFoundError:
        return "uninstalled"
