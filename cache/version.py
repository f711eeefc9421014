"""Version of the installed distribution."""

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "mmer-toolkit"  # `mmer` on the package index is another project


def mmer_version() -> str:
    """Returns the version of the installed distribution, or ``uninstalled`` in a bare clone."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "uninstalled"
