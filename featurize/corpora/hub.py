"""Hugging Face data sets as records of a manifest: one of the hub, or a local folder in any format of `datasets`.

Columns keep their names; a class label is its name, and the first column of recordings is ``audio``. Lists and
objects are left out. Where a data set has no column ``id``, the id is the split and the number of the row.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.errors import MmerError

# First bytes of a recording -> its ending.
ENDINGS: Mapping[bytes, str] = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3"}


def read_hub(source: str, splits: Sequence[str], folder: Path) -> Iterator[dict[str, Any]]:
    """Reads a data set, without code of its authors.

    Args:
        source: ``OWNER/NAME``, ``OWNER/NAME:CONFIGURATION`` or a local folder.
        splits: names of the splits; empty for all.
        folder: folder that recordings are written to which the data set holds as bytes.

    Yields:
        One record for each row.

    Raises:
        MmerError: if `datasets` is not installed, or the data set or a split is not found.
    """
    try:
        import datasets
    except ImportError:
        raise MmerError("hf: needs the package datasets; install it by pip install 'datasets[audio]'") from None
    datasets.disable_progress_bars()
    is_local = Path(source).exists()
    path, _, configuration = (source, "", "") if is_local else source.partition(":")
    try:
        parts = datasets.load_dataset(path, configuration or None)
    except Exception as error:  # of the library, of the hub and of many file formats
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise MmerError(f"hf:{source} cannot be read: {reason}") from error
    unknown = [name for name in splits if name not in parts]
    if unknown:
        raise MmerError(f"hf:{source} has no split {unknown[0]!r}; its splits: {', '.join(parts)}")
    home = Path(source).absolute() if is_local else None
    for split in splits or list(parts):
        yield from _records(datasets, parts[split], str(split), folder, home)


def _records(datasets: Any, part: Any, split: str, folder: Path, home: Path | None) -> Iterator[dict[str, Any]]:
    recordings = [name for name, kind in part.features.items() if isinstance(kind, datasets.Audio)]
    for name in recordings:
        part = part.cast_column(name, datasets.Audio(decode=False))  # mmer decodes, as for every corpus
    classes = {name: kind.names for name, kind in part.features.items() if isinstance(kind, datasets.ClassLabel)}
    for number, row in enumerate(part):
        record: dict[str, Any] = {"id": f"{split}-{number:06d}", "split": split}
        for name, value in row.items():
            if name in recordings:
                if name == recordings[0] and value:
                    record["audio"] = _recording(value, folder, f"{split}-{number:06d}")
            elif name in classes:
                record[name] = classes[name][value] if value is not None and value >= 0 else None
            elif isinstance(value, bool):
                record[name] = str(value).lower()
            elif isinstance(value, str | int | float) or value is None:
                record[name] = value
        audio = record.get("audio")
        if home and not recordings and isinstance(audio, str) and audio:
            record["audio"] = str(home / audio)
        yield record


def _recording(value: Mapping[str, Any], folder: Path, stem: str) -> str | None:
    """Returns the path of a recording, written to the folder if the data set holds its bytes."""
    content, path = value.get("bytes"), value.get("path")
    if content is None:
        return str(Path(path).absolute()) if path else None
    known = [ending for start, ending in ENDINGS.items() if content.startswith(start)]
    name = f"audio/{stem}{known[0] if known else Path(path or '').suffix or '.wav'}"
    target = folder / name
    if not target.is_file() or target.stat().st_size != len(content):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return name
