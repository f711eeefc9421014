"""Data sets of other libraries, written as a manifest: ``hf:OWNER/NAME`` (Hugging Face) and ``audformat:FOLDER``.

A corpus of that form is written to a folder as one JSON line for each utterance, with its recordings next to it
where the data set holds their bytes, and is then read as any other manifest.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.errors import MmerError
from featurize.corpora.audformat_database import read_audformat
from featurize.corpora.hub import read_hub

Record = Mapping[str, Any]  # column -> text, number or None

# Prefix of a corpus -> function from a source, its splits and a folder for recordings to records.
LIBRARIES: Mapping[str, Callable[[str, Sequence[str], Path], Iterable[Record]]] = {
    "hf": read_hub,
    "audformat": read_audformat,
}


def is_imported(corpus: str) -> bool:
    """Returns True for a data set of another library.

    Example:
        >>> is_imported("hf:owner/name"), is_imported("manifest")
        (True, False)
    """
    return corpus.partition(":")[0] in LIBRARIES and ":" in corpus


def imported_name(corpus: str) -> str:
    """Returns the name of a data set, for its cache and its folder.

    Example:
        >>> imported_name("hf:owner/name"), imported_name("audformat:data/emodb/")
        ('name', 'emodb')
    """
    name = Path(corpus.partition(":")[2].rstrip("/")).name
    return re.sub(r"[^\w.-]+", "-", name) or corpus.partition(":")[0]


def write_imported(corpus: str, folder: Path, splits: Sequence[str] = ()) -> Path:
    """Writes a data set of another library as a manifest.

    Args:
        corpus: ``hf:OWNER/NAME[:CONFIGURATION]``, ``hf:FOLDER`` or ``audformat:FOLDER[:TABLE,TABLE]``.
        folder: folder of the manifest.
        splits: names of the splits to read; empty for all.

    Returns:
        The manifest.

    Raises:
        MmerError: if the library is not installed, or the data set cannot be read.
    """
    prefix, _, source = corpus.partition(":")
    if not source:
        raise MmerError(f"{corpus} names no data set; expected hf:OWNER/NAME, hf:FOLDER or audformat:FOLDER")
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / f"{imported_name(corpus)}.jsonl"
    unfinished = manifest.with_suffix(".part")
    with unfinished.open("w", encoding="utf-8") as file:
        for record in LIBRARIES[prefix](source, splits, folder):
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    unfinished.replace(manifest)
    return manifest
