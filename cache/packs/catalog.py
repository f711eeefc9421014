"""The layouts of feature packs, and how each is recognised by what lies in a folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cache.errors import MmerError
from cache.packs import emobox, emotion2vec
from cache.packs.base import Pack
from cache.packs.native import layout_of, read_own
from cache.packs.third_party import ImportOptions


@dataclass(frozen=True, kw_only=True)
class PackFormat:
    """One way features lie in a folder.

    Attributes:
        holds: what the folder holds, for errors.
        fits: whether a folder is of this layout, by a glance.
        opens: opens such a folder.
    """

    holds: str
    fits: Callable[[Path], bool]
    opens: Callable[[Path, ImportOptions], Pack]


# The first that fits is taken: what has more beside the arrays stands before what has less.
LAYOUTS: Mapping[str, PackFormat] = {
    "npy": PackFormat(
        holds="pack.json of mmer-cache export",
        fits=lambda folder: layout_of(folder) == "npy",
        opens=lambda folder, asked: _own(folder, asked, "npy"),
    ),
    "packed": PackFormat(
        holds="the same, packed",
        fits=lambda folder: layout_of(folder) == "packed",
        opens=lambda folder, asked: _own(folder, asked, "packed"),
    ),
    "safetensors": PackFormat(
        holds="the same, in safetensors",
        fits=lambda folder: layout_of(folder) == "safetensors",
        opens=lambda folder, asked: _own(folder, asked, "safetensors"),
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


def open_pack(folder: Path, asked: ImportOptions | None = None, layout: str = "") -> Pack:
    """Opens a feature pack.

    Args:
        folder: where it lies.
        asked: what is said of a foreign pack; a pack of ours says everything itself.
        layout: a name of `LAYOUTS`; empty for the one that fits.

    Raises:
        MmerError: if it is none, or its parts do not agree.
    """
    if not folder.is_dir():
        raise MmerError(f"no folder {folder}; name the folder of a feature pack")
    return LAYOUTS[layout or recognised(folder)].opens(folder, asked or ImportOptions())


def recognised(folder: Path) -> str:
    """Names the layout of a folder.

    Raises:
        MmerError: if it has none of them.
    """
    for name, layout in LAYOUTS.items():
        if layout.fits(folder):
            return name
    known = "; ".join(f"{name} ({layout.holds})" for name, layout in LAYOUTS.items())
    raise MmerError(f"{folder} is of no layout that mmer knows: {known}")


def _own(folder: Path, asked: ImportOptions, layout: str) -> Pack:
    if asked.role or asked.metadata:
        raise MmerError(f"{folder} is a pack of mmer and describes itself; leave --role and --metadata away")
    return read_own(folder, layout)
