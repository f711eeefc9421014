"""Opens several cache files as one corpus: a job on many machines writes a file per shard, and nothing is merged.

Which files a pattern names, and what must hold for them to be one corpus.
"""

import glob
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cache.errors import CacheMissing, MmerError
from cache.rows import StoredRows
from cache.store import FeatureCache, PackedRows, Stream, stream_named
from cache.stream import StreamSpec
from cache.utterance import Utterance

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


class JoinedStream:
    """One stream of several files; utterances count on from file to file, values stay where they are mapped.

    Attributes:
        spec: of the first file; the keys of all are the same.
        key: of every file.
        lengths: rows of each utterance, int64 ``(n,)``.
        offsets: int64 ``(n + 1,)``, as if all rows lay in one file.
    """

    def __init__(self, parts: Sequence[Stream]) -> None:
        self.parts = parts
        self.spec: StreamSpec = parts[0].spec
        self.key = parts[0].key
        self.lengths = np.concatenate([part.lengths for part in parts])
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        self._firsts = np.cumsum([0, *(len(part) for part in parts[:-1])])  # index of each file's first utterance

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def rows(self) -> int:
        """Rows of all utterances together."""
        return sum(part.rows for part in self.parts)

    @cached_property
    def state(self) -> npt.NDArray[np.uint8]:
        """State of each utterance when it was first asked for, ``(n,)``."""
        return np.concatenate([part.state for part in self.parts])

    @cached_property
    def checksum(self) -> npt.NDArray[np.uint64]:
        """Checksum of each utterance's rows when it was first asked for, ``(n,)``."""
        return np.concatenate([part.checksum for part in self.parts])

    @cached_property
    def input_digest(self) -> npt.NDArray[Any]:
        """Digest of what was encoded of each utterance when it was first asked for, 16 bytes each, ``(n,)``."""
        return np.concatenate([part.input_digest for part in self.parts])

    def reason(self, index: int) -> str:
        """Says why an utterance failed, or what was noted of a committed one."""
        part, inside = self._place(index)
        return part.reason(inside)

    def stored(self, index: int) -> StoredRows:
        """Gives the rows of an utterance in their stored type, without a copy and whatever their state."""
        part, inside = self._place(index)
        return part.stored(inside)

    def read(self, index: int) -> npt.NDArray[Any]:
        """Gives the rows of one utterance, ``(rows, ...)``; read-only, without a copy where the type allows.

        Raises:
            MmerError: if the utterance is not committed.
        """
        part, inside = self._place(index)
        return part.read(inside)

    def pack(self, indices: Sequence[int], out: npt.NDArray[Any] | None = None) -> PackedRows:
        """Copies the rows of several utterances into one array without padding, as `cache.store.Stream.pack` does.

        Raises:
            MmerError: if one of the utterances is not committed.
            ValueError: if `out` is too short.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        lengths: npt.NDArray[np.int64] = self.lengths[chosen]
        ends = np.cumsum(lengths)
        total = int(lengths.sum())
        out = self.parts[0].room(total, out)
        places = np.searchsorted(self._firsts, chosen, side="right") - 1
        for place in np.unique(places).tolist():
            here = places == place
            self.parts[place].copy_into(out, chosen[here] - self._firsts[place], ends[here])
        return PackedRows(out[:total], lengths)

    def _place(self, index: int) -> tuple[Stream, int]:
        place = int(np.searchsorted(self._firsts, index, side="right")) - 1
        return self.parts[place], index - int(self._firsts[place])


class JoinedCache:
    """Several open files that are one corpus; reads like a `cache.store.FeatureCache`.

    Args:
        path: what the user named, such as ``cache/voices-*.h5``.
        files: the files, in the order of their utterances.

    Raises:
        MmerError: if an utterance is in two of the files, if they are of two corpora, or if a stream is not in each of
            them under the same key.
    """

    def __init__(self, path: Path, parts: Sequence[FeatureCache]) -> None:
        check_same_corpus(parts)
        check_apart(parts)
        check_same_streams(parts)
        self.path = path
        self.files = parts
        self.utterances: Sequence[Utterance] = [one for part in parts for one in part.utterances]
        self.ids = [one.id for one in self.utterances]
        self.streams: Mapping[str, JoinedStream] = {
            name: JoinedStream([part.streams[name] for part in parts]) for name in parts[0].streams
        }

    def __reduce__(self) -> tuple[type["JoinedCache"], tuple[Path, Sequence[FeatureCache]]]:
        return JoinedCache, (self.path, self.files)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def paths(self) -> list[Path]:
        """The files, in the order of their utterances."""
        return [part.path for part in self.files]

    @property
    def header(self) -> Mapping[str, Any]:
        """``mmer_version``, ``created`` and ``corpus`` of the first file."""
        return self.files[0].header

    def stream(self, name: str) -> JoinedStream:
        """Gives a stream by name.

        Raises:
            MmerError: if there is none of that name.
        """
        return stream_named(self.streams, name, self.path)

    def weights(self, encoder: str) -> dict[str, npt.NDArray[Any]]:
        """Reads the weights of an encoder that heads start from, by name; empty where there are none."""
        return self.all_weights().get(encoder, {})

    def all_weights(self) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """Reads the weights of all encoders, by encoder and name; the first file that has an array counts."""
        united: dict[str, dict[str, npt.NDArray[Any]]] = {}
        for part in self.files:
            for encoder, arrays in part.all_weights().items():
                united[encoder] = {**arrays, **united.get(encoder, {})}
        return united


AnyCache: TypeAlias = FeatureCache | JoinedCache
AnyStream: TypeAlias = Stream | JoinedStream


def open_cache(path: str | Path) -> AnyCache:
    """Opens a cache file, or all files that match a pattern as one.

    Args:
        path: a file, or a pattern such as ``cache/voices-*.h5`` that is no file itself.

    Raises:
        CacheMissing: if there is no such file, or none that matches.
        CacheUnreadable: if one of them is no cache that can be read.
        MmerError: if the files are not one corpus.
    """
    path = Path(path)
    files = cache_files(path)
    return FeatureCache(files[0]) if len(files) == 1 else JoinedCache(path, [FeatureCache(file) for file in files])
