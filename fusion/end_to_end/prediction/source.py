"""Source of a run: a run folder, a bundle, or a bundle of the Hugging Face hub by its name, ``hf:OWNER/NAME``."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from cache.errors import MmerError
from fusion.end_to_end.prediction.trust import ENCODER_FILES, check_bundle, check_encoder
from fusion.run.folder import Folder

BUNDLE = "bundle.json"  # record of a bundle, and the sign of one
BUNDLE_VERSION = 1
ENCODERS_FOLDER = "encoders"  # in a bundle: frozen encoders that came from folders
HUB = "hf:"
REPOSITORY = re.compile(r"(?P<id>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w.-][\w./-]*))?")
FORM = "hf:OWNER/NAME or hf:OWNER/NAME@REVISION"
# Files of a bundle; no other file of a repository is downloaded.
MODEL_FILES = ("weights.safetensors", "scores.json", "final.json", "curves.csv")
DOWNLOADED = (BUNDLE, "run.json", *(f"*/{name}" for name in (*MODEL_FILES, *sorted(ENCODER_FILES))))


@dataclass(frozen=True, kw_only=True)
class RunSource:
    """Where a run or a bundle lies.

    Attributes:
        path: its folder.
        inside: folder that links of its files may lead to.
        words: text for users with the repository and its revision; empty for a folder.
    """

    path: Path
    inside: Path
    words: str = ""


def is_on_hub(run: Path) -> bool:
    """Returns True if a run is a repository of a hub.

    Example:
        >>> is_on_hub(Path("hf:somebody/emotions")), is_on_hub(Path("runs/demo"))
        (True, False)
    """
    return str(run).startswith(HUB)


def find_run(run: Path) -> RunSource:
    """Finds the folder of a run; a bundle of a hub is downloaded, or taken from the hub cache.

    Args:
        run: folder, or ``hf:OWNER/NAME`` with an optional ``@REVISION``.

    Raises:
        MmerError: if the name is not of this form, or the repository is neither reachable nor in the hub cache.
    """
    if not is_on_hub(run):
        return RunSource(path=run, inside=run)
    match = REPOSITORY.fullmatch(str(run).removeprefix(HUB))
    if match is None:
        raise MmerError(f"invalid bundle of a hub {str(run)!r}; expected {FORM}")
    return _downloaded(match["id"], match["revision"])


def is_bundle(path: Path) -> bool:
    """Returns True if a folder is a bundle."""
    return os.path.lexists(path / BUNDLE)


def open_bundle(path: Path, inside: Path) -> dict[str, Path]:
    """Checks a bundle before it is read, and returns its frozen encoders.

    Args:
        path: folder of the bundle.
        inside: folder that links may lead to.

    Returns:
        Name of an encoder -> its folder.

    Raises:
        MmerError: if an entry leads elsewhere, the record is damaged, or an encoder does not fit its weights.
    """
    check_bundle(path, inside)
    read_bundle(Folder(path))
    folders = sorted(file for file in (path / ENCODERS_FOLDER).glob("*") if file.is_dir())
    for folder in folders:
        check_encoder(folder)
    return {unquote(folder.name): folder for folder in folders}


def read_bundle(folder: Folder) -> dict[str, Any]:
    """Reads the record of a bundle.

    Raises:
        MmerError: if it is damaged, or was written by a newer version.
    """
    record = folder.read(BUNDLE)
    record = record if isinstance(record, dict) else {}
    version, models = record.get("format_version"), record.get("models")
    if type(version) is int and version > BUNDLE_VERSION:
        raise MmerError(f"{folder.path / BUNDLE} was written by a newer mmer (format {version}); upgrade mmer")
    if version != BUNDLE_VERSION or not isinstance(models, list) or not all(isinstance(name, str) for name in models):
        raise MmerError(f"{folder.path / BUNDLE} was not written by mmer-export; export the run again")
    return record


def _downloaded(name: str, revision: str | None) -> RunSource:
    from huggingface_hub import snapshot_download  # imports a client for HTTP, which folders do not need
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    where = name if revision is None else f"{name}@{revision}"
    try:
        snapshot = Path(snapshot_download(name, revision=revision, allow_patterns=list(DOWNLOADED)))
    except HFValidationError as error:
        raise MmerError(f"invalid bundle of a hub {where!r} ({_line(error)}); expected {FORM}") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise MmerError(
            f"{where} is neither in the hub cache nor reachable ({_line(error)}); run `hf download {name}` where there "
            "is a network, or pass the folder of a bundle"
        ) from error
    if not (snapshot / BUNDLE).exists():
        raise MmerError(f"{where} is not a bundle: it has no {BUNDLE}; expected what mmer-export --push wrote")
    return RunSource(path=snapshot, inside=snapshot.parents[1], words=f"{name} at revision {snapshot.name[:8]}")


def _line(error: Exception) -> str:
    """Returns the first line of an error of the hub, shortened."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
