"""Several cache files read as one corpus: the shards of a job on many machines need no merge.

A pattern names the files. They must be of one corpus, share no utterance, and hold the same streams under equal keys.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from cache.errors import CacheMissing, MmerError
from cache.patterns import is_pattern, matching_files
from cache.rows import StoredRows
from cache.store import FeatureCache, Generation, PackedRows, Stream, find_stream
from cache.stream import StreamSpec
from cache.utterance import Utterance

NEVER_MATCHED = (".lock", ".part")  # files of mmer next to a cache file


def cache_files(path: Path) -> list[Path]:
    """Lists the files that match a pattern, sorted; a path that is not a pattern is listed itself.

    Raises:
        CacheMissing: if nothing matches the pattern.
    """
    if not is_pattern(path):
        return [path]
    files = [file for file in matching_files(path) if not file.name.endswith(NEVER_MATCHED)]
    if not files:
        raise CacheMissing(f"no cache matches {path}; choose existing files, or make one with mmer-featurize")
    return files


def check_same_corpus(files: Sequence[FeatureCache]) -> None:
    """Checks that all files are of one corpus.

    Raises:
        MmerError: with the two names.
    """
    first = files[0]
    expected = first.header["corpus"].get("name")
    for file in files[1:]:
        name = file.header["corpus"].get("name")
        if name != expected:
            raise MmerError(
                f"{file.path} holds the corpus {name}, {first.path} holds the corpus {expected}; leave one of them out"
            )


def check_same_key(first: FeatureCache, other: FeatureCache, name: str) -> None:
    """Checks that two files hold a stream under the same key.

    Raises:
        MmerError: with the fields that differ.
    """
    expected, found = first.stream(name), other.stream(name)
    if found.key != expected.key:
        changed = "; ".join(expected.spec.differences(found.spec)) or f"key {expected.key} -> {found.key}"
        raise MmerError(
            f"{other.path}: {name} was computed differently from {first.path} ({changed}); "
            "recompute it in one of them with --replace, or drop it"
        )


def check_disjoint(files: Sequence[FeatureCache]) -> None:
    """Checks that no utterance is in two files.

    Raises:
        MmerError: with its id and both files.
    """
    seen: dict[str, FeatureCache] = {}
    for file in files:
        for name in file.ids:
            if name in seen:
                raise MmerError(
                    f"{file.path}: utterance {name} is also in {seen[name].path}; "
                    "choose files without common utterances, or make one file of them with "
                    f"mmer-cache merge merged.h5 {' '.join(quote(str(each.path)) for each in files)}"
                )
            seen[name] = file


def check_same_streams(files: Sequence[FeatureCache]) -> None:
    """Checks that every stream is in every file under the same key.

    Raises:
        MmerError: with the file that lacks it, or the fields that differ.
    """
    names = dict.fromkeys(name for file in files for name in file.streams)
    for name in names:
        holder = next(file for file in files if name in file.streams)
        for file in files:
            if name not in file.streams:
                raise MmerError(
                    f"{file.path} has no stream {name}, but {holder.path} has it; "
                    f"compute it there with mmer-featurize, or run "
                    f"mmer-cache drop {quote(str(holder.path))} {quote(name)}"
                )
            check_same_key(holder, file, name)


class JoinedStream:
    """One stream of several files: utterance indices continue from file to file, values stay memory-mapped.

    Attributes:
        streams: the stream of each file.
        spec: spec in the first file; the keys of all files are equal.
        key: key in every file.
        lengths: rows of each utterance, int64 ``(n,)``.
        offsets: int64 ``(n + 1,)``, as if all rows lay in one file.
    """

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.streams = streams
        self.spec: StreamSpec = streams[0].spec
        self.key = streams[0].key
        self.lengths = np.concatenate([stream.lengths for stream in streams])
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])
        self._firsts = np.cumsum([0, *(len(stream) for stream in streams[:-1])])  # index of each file's first utterance

    def __len__(self) -> int:
        return sum(len(stream) for stream in self.streams)

    @property
    def rows(self) -> int:
        """Rows of all utterances together."""
        return sum(stream.rows for stream in self.streams)

    @cached_property
    def state(self) -> npt.NDArray[np.uint8]:
        """State of each utterance at the first access, uint8 ``(n,)``."""
        return np.concatenate([stream.state for stream in self.streams])

    @cached_property
    def checksum(self) -> npt.NDArray[np.uint64]:
        """Checksum of each utterance's rows at the first access, uint64 ``(n,)``."""
        return np.concatenate([stream.checksum for stream in self.streams])

    @cached_property
    def input_digest(self) -> npt.NDArray[Any]:
        """Digest of each utterance's encoder input at the first access, 16 bytes each, ``(n,)``."""
        return np.concatenate([stream.input_digest for stream in self.streams])

    def reason(self, index: int) -> str:
        """Returns why an utterance failed, or the note of a committed utterance."""
        stream, inside = self._locate(index)
        return stream.reason(inside)

    def stored(self, index: int) -> StoredRows:
        """Returns the rows of an utterance in their stored type, without a copy and in any state."""
        stream, inside = self._locate(index)
        return stream.stored(inside)

    def read(self, index: int) -> npt.NDArray[Any]:
        """Returns the rows of one utterance, ``(rows, ...)``.

        They are read-only, and not copied unless the stream is int8.

        Raises:
            MmerError: if the utterance is not committed.
        """
        stream, inside = self._locate(index)
        return stream.read(inside)

    def check_rows(self, indices: npt.NDArray[np.int64]) -> None:
        """Compares rows of committed utterances with their checksums, as `cache.store.Stream.check_rows` does.

        Raises:
            DamagedRows: if rows are not those that were committed.
            CacheUnreadable: if a file was cut short.
        """
        files = np.searchsorted(self._firsts, indices, side="right") - 1
        for file in np.unique(files).tolist():
            self.streams[file].check_rows(indices[files == file] - self._firsts[file])

    def recheck_rows(self) -> None:
        """Makes `check_rows` compare all rows again."""
        for stream in self.streams:
            stream.recheck_rows()

    def row_versions(self) -> npt.NDArray[np.uint64]:
        """Returns the checksum of each committed utterance as the files have it now, 0 for others, uint64 ``(n,)``."""
        return np.concatenate([stream.row_versions() for stream in self.streams])

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
        out = self.streams[0].output_array(total, out)
        files = np.searchsorted(self._firsts, chosen, side="right") - 1  # (batch,): the file of each utterance
        for file in np.unique(files).tolist():
            in_file = files == file
            self.streams[file].copy_into(out, chosen[in_file] - self._firsts[file], ends[in_file])
        return PackedRows(out[:total], lengths)

    def _locate(self, index: int) -> tuple[Stream, int]:
        """Returns the stream of the file that holds an utterance, and the utterance's index in that file."""
        file = int(np.searchsorted(self._firsts, index, side="right")) - 1
        return self.streams[file], index - int(self._firsts[file])


class JoinedCache:
    """Several open files of one corpus; it reads like a `cache.store.FeatureCache`.

    Args:
        path: the pattern that the user passed, such as ``cache/voices-*.h5``.
        files: the files, in the order of their utterances.

    Raises:
        MmerError: if an utterance is in two of the files, if they are of two corpora, or if a stream is not in each of
            them under the same key.
    """

    def __init__(self, path: Path, files: Sequence[FeatureCache]) -> None:
        check_same_corpus(files)
        check_disjoint(files)
        check_same_streams(files)
        self.path = path
        self.files = files
        self.utterances: Sequence[Utterance] = [utterance for file in files for utterance in file.utterances]
        self.ids = [utterance.id for utterance in self.utterances]
        self.streams: Mapping[str, JoinedStream] = {
            name: JoinedStream([file.streams[name] for file in files]) for name in files[0].streams
        }

    def __reduce__(self) -> tuple[type["JoinedCache"], tuple[Path, Sequence[FeatureCache]]]:
        return JoinedCache, (self.path, self.files)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def paths(self) -> list[Path]:
        """The files, in the order of their utterances."""
        return [file.path for file in self.files]

    @property
    def generation(self) -> Generation:
        """Times of the last writing to each file, as `cache.store.FeatureCache.generation`."""
        return tuple(times for file in self.files for times in file.generation)

    @property
    def header(self) -> Mapping[str, Any]:
        """``mmer_version``, ``created`` and ``corpus`` of the first file."""
        return self.files[0].header

    def stream(self, name: str) -> JoinedStream:
        """Returns a stream by name.

        Raises:
            MmerError: if no stream has that name.
        """
        return find_stream(self.streams, name, self.path)

    def weights(self, encoder: str) -> dict[str, npt.NDArray[Any]]:
        """Reads the weights of an encoder that initialize heads, by name; empty if it has none."""
        united: dict[str, npt.NDArray[Any]] = {}
        for file in self.files:
            united = {**file.weights(encoder), **united}
        return united

    def all_weights(self) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """Reads the weights of all encoders, by encoder and name, each from the first file that has it."""
        united: dict[str, dict[str, npt.NDArray[Any]]] = {}
        for file in self.files:
            for encoder, arrays in file.all_weights().items():
                united[encoder] = {**arrays, **united.get(encoder, {})}
        return united


AnyCache: TypeAlias = FeatureCache | JoinedCache
AnyStream: TypeAlias = Stream | JoinedStream


def open_cache(path: str | Path) -> AnyCache:
    """Opens a cache file, or all files that match a pattern as one cache.

    Args:
        path: a file, or a pattern such as ``cache/voices-*.h5``; an existing file is never read as a pattern.

    Raises:
        CacheMissing: if the file does not exist, or no file matches.
        CacheUnreadable: if a file is not a readable cache.
        MmerError: if the files are not one corpus.
    """
    path = Path(path)
    files = cache_files(path)
    return FeatureCache(files[0]) if len(files) == 1 else JoinedCache(path, [FeatureCache(file) for file in files])
