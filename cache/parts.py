"""Which files a pattern names, and what must hold for them to be one corpus."""

import glob
from collections.abc import Sequence
from pathlib import Path

from cache.errors import CacheMissing, MmerError
from cache.store import FeatureCache

NEVER_MATCHED = (".lock", ".part")  # what lies beside a cache file


def cache_files(path: Path) -> list[Path]:
    """Lists the files that a pattern names, in sorted order; a path that is none stands for itself.

    Raises:
        CacheMissing: if nothing matches the pattern.
    """
    if path.exists() or not any(sign in str(path) for sign in "*?["):
        return [path]
    names = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path.glob finds hidden files too
    files = [Path(name) for name in sorted(names) if not name.endswith(NEVER_MATCHED) and Path(name).is_file()]
    if not files:
        raise CacheMissing(f"no cache matches {path}; make one with mmer-featurize CORPUS --cache FILE")
    return files


def check_same_corpus(parts: Sequence[FeatureCache]) -> None:
    """Refuses files of two corpora.

    Raises:
        MmerError: with the two names.
    """
    first = parts[0]
    held = first.header["corpus"].get("name")
    for part in parts[1:]:
        name = part.header["corpus"].get("name")
        if name != held:
            raise MmerError(f"{part.path} holds the corpus {name}, {first.path} the corpus {held}; leave one out")


def check_same_key(first: FeatureCache, other: FeatureCache, name: str) -> None:
    """Refuses a stream that two files computed in two ways.

    Raises:
        MmerError: with the fields that differ.
    """
    mine, theirs = first.stream(name), other.stream(name)
    if mine.key != theirs.key:
        changed = "; ".join(mine.spec.differences(theirs.spec)) or f"key {mine.key} -> {theirs.key}"
        raise MmerError(
            f"{other.path}: {name} was computed otherwise than in {first.path} ({changed}); "
            "recompute it in one of them by --replace, or drop it"
        )


def check_apart(parts: Sequence[FeatureCache]) -> None:
    """Refuses an utterance that stands in two files.

    Raises:
        MmerError: with its id and both files.
    """
    seen: dict[str, FeatureCache] = {}
    for part in parts:
        for name in part.ids:
            if name in seen:
                raise MmerError(
                    f"{part.path}: utterance {name} is in {seen[name].path} too; "
                    "name files without common utterances, or make one file of them by mmer-cache merge"
                )
            seen[name] = part


def check_same_streams(parts: Sequence[FeatureCache]) -> None:
    """Refuses a stream that is not in every file under the same key.

    Raises:
        MmerError: with the file that lacks it, or the fields that differ.
    """
    names = dict.fromkeys(name for part in parts for name in part.streams)
    for name in names:
        holding = next(part for part in parts if name in part.streams)
        for part in parts:
            if name not in part.streams:
                raise MmerError(
                    f"{part.path} has no stream {name}, {holding.path} has it; "
                    "compute it there by mmer-featurize, or drop it from the others"
                )
            check_same_key(holding, part, name)
