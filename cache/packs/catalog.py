"""Catalog of the layouts of feature packs, each with the test that detects it in a folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cache.errors import MmerError
from cache.packs import emobox, emotion2vec
from cache.packs.base import Pack
from cache.packs.native import layout_of, read_native
from cache.packs.third_party import ImportOptions


@dataclass(frozen=True, kw_only=True)
class PackFormat:
    """One layout of features in a folder.

    Attributes:
        holds: the contents of such a folder, for errors.
        fits: returns True if a folder has this layout; reads no array.
        opens: opens such a folder.
    """

    holds: str
    fits: Callable[[Path], bool]
    opens: Callable[[Path, ImportOptions], Pack]


# The first layout that fits is used: layouts with more files in addition to the arrays stand first.
LAYOUTS: Mapping[str, PackFormat] = {
    "npy": PackFormat(
        holds="pack.json of mmer-cache export",
        fits=lambda folder: layout_of(folder) == "npy",
        opens=lambda folder, options: _open_native(folder, options, "npy"),
    ),
    "packed": PackFormat(
        holds="the same, packed",
        fits=lambda folder: layout_of(folder) == "packed",
        opens=lambda folder, options: _open_native(folder, options, "packed"),
    ),
    "safetensors": PackFormat(
        holds="the same, in safetensors",
        fits=lambda folder: layout_of(folder) == "safetensors",
        opens=lambda folder, options: _open_native(folder, options, "safetensors"),
    ),
    "emotion2vec": PackFormat(
        holds="NAME.npy with NAME.lengths and NAME.emo of emotion2vec",
        fits=emotion2vec.has_lengths,
        opens=emotion2vec.read_packed,
    ),
    "emobox": PackFormat(
        holds="KEY.npy files with the metadata of EmoBox",
        fits=emobox.has_metadata,
        opens=emobox.read_emobox,
    ),
    "emotion2vec-files": PackFormat(
        holds="ID.npy files",
        fits=emotion2vec.has_arrays,
        opens=emotion2vec.read_single,
    ),
}


def open_pack(folder: Path, options: ImportOptions | None = None, layout: str = "") -> Pack:
    """Opens a feature pack.

    Args:
        folder: folder of the pack.
        options: description of a pack of another toolkit; a pack of mmer describes itself.
        layout: a name of `LAYOUTS`; empty to detect it.

    Raises:
        MmerError: if the folder is not a feature pack, or its files contradict each other.
    """
    if not folder.is_dir():
        raise MmerError(f"no folder {folder}; expected the folder of a feature pack")
    return LAYOUTS[layout or detect_layout(folder)].opens(folder, options or ImportOptions())


def detect_layout(folder: Path) -> str:
    """Finds the layout of a folder.

    Raises:
        MmerError: if it has none of the known layouts.
    """
    for name, layout in LAYOUTS.items():
        if layout.fits(folder):
            return name
    known = "; ".join(f"{name} ({layout.holds})" for name, layout in LAYOUTS.items())
    raise MmerError(f"{folder} has an unknown layout; known: {known}")


def _open_native(folder: Path, options: ImportOptions, layout: str) -> Pack:
    if options.role or options.metadata:
        raise MmerError(f"{folder} is a pack of mmer and describes itself; omit --role and --metadata")
    return read_native(folder, layout)
