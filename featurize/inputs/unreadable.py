"""Reasons why a path is no recording: nothing there, not a file, or a file of another kind."""

import stat
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

SHOWN = 100  # characters of a path in a reason: the end of a long one; caches hold 200 bytes
HEAD_BYTES = 1024
LISTED = 64  # folders whose names are remembered

KINDS: Mapping[Callable[[int], bool], str] = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a named pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}
# First bytes of files that are often found in the place of a recording -> what they are, and the way out.
FOREIGN: Mapping[bytes, str] = {
    b"version https://git-lfs.github.com/spec/": "a Git LFS pointer, not the recording; run git lfs pull",
    b"/annex/objects/": "a git-annex pointer, not the recording; run git annex get",
    b"#EXTM3U": "a playlist, not a recording",
    b"[playlist]": "a playlist, not a recording",
    b"PK\3\4": "a ZIP archive; unpack it first",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"BZh": "a bzip2 archive; unpack it first",
    b"\xfd7zXZ": "an xz archive; unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
    b"%PDF": "a PDF document, not a recording",
    b"\x89PNG": "a PNG picture, not a recording",
    b"\xff\xd8\xff": "a JPEG picture, not a recording",
    b"GIF8": "a GIF picture, not a recording",
    b"\x89HDF": "an HDF5 file, not a recording",
    b"\x93NUMPY": "a numpy array, not a recording",
    b"MThd": "MIDI: notes without sound",
    b"ajkg": "Shorten, which nothing here decodes; convert it: ffmpeg -i FILE FILE.wav",
}
MARKUP = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!doctype")


def not_a_file(path: Path) -> str:
    """Returns why a path does not lead to a file with contents; empty if it does."""
    try:
        state = path.stat()
    except ValueError:
        return "missing: not found; a path cannot hold a NUL character"
    except (FileNotFoundError, NotADirectoryError):
        return missing(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not stat.S_ISREG(state.st_mode):
        kind = next((kind for is_kind, kind in KINDS.items() if is_kind(state.st_mode)), "something else")
        return f"not a file: {kind}"
    return "" if state.st_size else "empty: zero bytes"


def missing(path: Path) -> str:
    """Returns the reason for a path at which there is nothing: the path, and a file of nearly the same name."""
    shown = str(path) if len(str(path)) <= SHOWN else f"...{str(path)[-SHOWN:]}"
    return f"missing: not found{_hint(path)} (tried {shown})"


def foreign_kind(head: bytes) -> str:
    """Returns what a file that no decoder reads is, by its first bytes; empty if that is not known."""
    for mark, kind in FOREIGN.items():
        if head.startswith(mark):
            return kind
    if not head.strip(b"\0"):
        return "nothing but zero bytes; copy it again"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(MARKUP):
        return "an HTML or XML page, not a recording; download it again"
    try:
        text = head[: len(head) - 3].decode("utf-8") if len(head) == HEAD_BYTES else head.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return "a text, not a recording" if all(sign.isprintable() or sign in "\r\n\t" for sign in text) else ""


def _hint(path: Path) -> str:
    """Returns a hint at a file that exists under nearly the same name."""
    if path.is_symlink():
        return "; it is a link to nothing"
    slashed = Path(str(path).replace("\\", "/"))
    if slashed != path:
        return "; write / for \\, then it is found" if slashed.exists() else "; it holds \\: write / between folders"
    near = _near(path)
    if near is None or near == path:
        return ""
    if unicodedata.normalize("NFC", str(near)) == unicodedata.normalize("NFC", str(path)):
        return "; a file of that name in another Unicode normalization is there"
    case = ", in another letter case" if str(near).casefold() == str(path).casefold() else ""
    return f"; {_difference(near, path)} is there{case}"


def _difference(near: Path, path: Path) -> str:
    """Returns the first part of a path that differs from another."""
    return next((here for here, there in zip(near.parts, path.parts, strict=False) if here != there), near.name)


def _near(path: Path) -> Path | None:
    """Finds the file whose name differs only in letter case, normalization, spaces or its ending."""
    folder = Path(path.anchor) if path.is_absolute() else Path()
    parts = path.parts[1:] if path.is_absolute() else path.parts
    for number, part in enumerate(parts):
        if part in {".."} or (folder / part).exists():
            folder /= part
            continue
        names = _names(str(folder), _changed(folder))
        found = names.get(_plain(part))
        if found is None and number == len(parts) - 1:
            found = names.get(_plain(Path(part).stem) + ".*")
        if found is None:
            return None
        folder /= found
    return folder


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().strip()


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(LISTED)
def _names(folder: str, changed_ns: int) -> Mapping[str, str]:
    """Returns the names in a folder by what is left of them without case and normalization, and without endings."""
    try:
        names = sorted(path.name for path in Path(folder).iterdir())
    except OSError:
        return {}
    by_stem = {f"{_plain(Path(name).stem)}.*": name for name in reversed(names)}
    return by_stem | {_plain(name): name for name in names}
