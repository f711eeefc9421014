"""A share of a corpus that has a cache file of its own, so that many machines write without waiting for each other."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from cache.errors import MmerError
from cache.utterance import Utterance


@dataclass(frozen=True)
class Shard:
    """One of `count` shares, numbered from 1; an utterance's share follows from its id alone.

    Raises:
        ValueError: if there is no share of that number.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"a shard of {self.count} is numbered 1 to {self.count}, got {self.number}")

    def holds(self, name: str) -> bool:
        """Tells whether the utterance of that id belongs here, whatever else the corpus holds."""
        return _number(name, self.count) == self.number

    def path(self, cache: Path) -> Path:
        """Gives its file: ``voices-03-of-16.h5`` for ``voices.h5``, so that ``voices-*.h5`` names them all."""
        width = len(str(self.count))
        return cache.with_name(f"{cache.stem}-{self.number:0{width}d}-of-{self.count}{cache.suffix}")


def all_shards(count: int) -> list[Shard]:
    """Gives the shares that a corpus is divided into."""
    return [Shard(number, count) for number in range(1, count + 1)]


def shard_pattern(cache: Path, count: int) -> Path:
    """Gives the pattern that the files of all shares match, and no other cache's: ``voices-[0-9][0-9]-of-16.h5``."""
    number = "[0-9]" * len(str(count))
    return cache.with_name(f"{cache.stem}-{number}-of-{count}{cache.suffix}")


def check_shards(utterances: Sequence[Utterance], count: int) -> None:
    """Refuses more shares than there is something to put in.

    Raises:
        MmerError: if a share would be empty.
    """
    sizes = Counter(_number(utterance.id, count) for utterance in utterances)
    if len(sizes) < count:
        raise MmerError(
            f"--shards {count} leaves {count - len(sizes)} shards without one of the {len(utterances)} utterances; "
            "take fewer"
        )


def _number(name: str, count: int) -> int:
    return 1 + int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()) % count
