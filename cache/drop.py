"""Takes a stream out of a cache file, or of each of several."""

from contextlib import ExitStack
from pathlib import Path

from cache.errors import MmerError
from cache.layout import read_weights
from cache.parts import cache_files
from cache.rebuild import build_file, plan_of
from cache.store import FeatureCache, stream_named
from cache.writer import writing_lock


def drop_stream(path: Path, name: str) -> None:
    """Removes a stream from a cache, and the weights of its encoder when no other stream is left of it.

    Args:
        path: the file, or a pattern: the stream is removed from all files that have it.
        name: of the stream.

    Raises:
        MmerError: if there is no such stream, or a file has only this one.
    """
    files = [file.resolve() if file.is_symlink() else file for file in cache_files(path)]
    caches = [FeatureCache(file) for file in files]
    stream_named({known: cache for cache in caches for known in cache.streams}, name, path)
    holding = [cache.path for cache in caches if name in cache.streams]
    for cache in caches:
        if list(cache.streams) == [name]:
            raise MmerError(f"{name} is the only stream of {cache.path}; remove the file instead")
    with ExitStack() as locks:
        for file in holding:
            locks.enter_context(writing_lock(file))
        for file in holding:
            _drop_from(FeatureCache(file), name)


def _drop_from(cache: FeatureCache, name: str) -> None:
    kept = [stream for other, stream in cache.streams.items() if other != name]
    encoders = {stream.spec.encoder for stream in kept}
    build_file(
        cache.path,
        header=cache.header,
        utterances=cache.utterances,
        plans=[plan_of(cache.layout, stream, cache.utterances) for stream in kept],
        weights={encoder: arrays for encoder, arrays in read_weights(cache.path).items() if encoder in encoders},
    )
