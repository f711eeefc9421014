"""Shards of a corpus: each has a cache file of its own, so that many machines write without waiting for each other."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from cache.errors import MmerError
from cache.utterance import Utterance


@dataclass(frozen=True)
class Shard:
    """One of `count` shards, numbered from 1; the shard of an utterance depends on its id alone.

    Raises:
        ValueError: if the number is not in 1 to `count`.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"a shard of {self.count} is numbered 1 to {self.count}, got {self.number}")

    def holds(self, utterance_id: str) -> bool:
        """Returns whether an utterance belongs to this shard, regardless of the other utterances."""
        return _shard_number(utterance_id, self.count) == self.number

    def path(self, cache: Path) -> Path:
        """Returns the file of this shard: ``voices-03-of-16.h5`` for ``voices.h5``."""
        width = len(str(self.count))
        return cache.with_name(f"{cache.stem}-{self.number:0{width}d}-of-{self.count}{cache.suffix}")


def all_shards(count: int) -> list[Shard]:
    """Returns all shards of a corpus."""
    return [Shard(number, count) for number in range(1, count + 1)]


def shard_pattern(cache: Path, count: int) -> Path:
    """Returns the pattern that only the files of all shards match: ``voices-[0-9][0-9]-of-16.h5``."""
    number = "[0-9]" * len(str(count))
    return cache.with_name(f"{cache.stem}-{number}-of-{count}{cache.suffix}")


def check_shards(utterances: Sequence[Utterance], count: int) -> None:
    """Checks that every shard has an utterance.

    Raises:
        MmerError: if a shard would be empty.
    """
    sizes = Counter(_shard_number(utterance.id, count) for utterance in utterances)
    if len(sizes) < count:
        raise MmerError(
            f"--shards {count} leaves {count - len(sizes)} shards without any of the {len(utterances)} utterances; "
            "choose fewer shards"
        )


def _shard_number(utterance_id: str, count: int) -> int:
    return 1 + int.from_bytes(blake2b(utterance_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()) % count
