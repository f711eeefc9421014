"""The mmer-featurize command that adds to a cache what a head misses."""

import re
from collections.abc import Mapping
from shlex import quote

from cache.joined import AnyCache

LANGUAGE = "language"  # JFM's language layers where they belong to another encoder than its text stream

# Role -> the encoders that give it, published and built in.
ADDED_BY: Mapping[str, tuple[str, str]] = {
    "audio": ("wav2vec2-base", "wav2vec2-tiny"),
    "codes": ("wav2vec2-base", "wav2vec2-tiny"),
    "text": ("roberta-base", "roberta-tiny"),
    "tokens": ("roberta-base", "roberta-tiny"),
    "chars": ("roberta-base", "roberta-tiny"),
    "language": ("roberta-large@12", "roberta-tiny@4"),
    "mel": ("logmel80", "logmel80"),
    "patches": ("vit-mel-base", "vit-mel-tiny"),
}
DEMO = "demo"  # has the built-in encoders
SHARD = re.compile(r"(?P<stem>.+)-\d+-of-(?P<count>\d+)")  # how mmer-featurize --shards names files


def adding_role(cache: AnyCache, role: str) -> str:
    """Gives the command that adds a stream for a role."""
    return featurizing(cache, ADDED_BY[role][corpus_of(cache) == DEMO])


def featurizing(cache: AnyCache, encoder: str) -> str:
    """Gives the command that computes an encoder's streams for the utterances of a cache."""
    return command(cache, f"--encoder {quote(encoder)}")


def command(cache: AnyCache, options: str) -> str:
    """Gives the command that computes for the utterances of a cache what some options say."""
    root = str(cache.header["corpus"].get("root", ""))
    told = f"--root {quote(root)} " if root else ""
    return f"mmer-featurize {quote(corpus_of(cache))} {told}--cache {_files(cache)} {options}"


def corpus_of(cache: AnyCache) -> str:
    """Names the corpus of a cache."""
    return str(cache.header["corpus"].get("name", ""))


def _files(cache: AnyCache) -> str:
    """Says where the command writes; shards are written by the name that they were cut from."""
    first = cache.parts[0].path
    shard = SHARD.fullmatch(first.stem)
    if len(cache.parts) == 1 or shard is None:
        return quote(str(cache.path))
    return f"{quote(str(first.with_name(shard['stem'] + first.suffix)))} --shards {shard['count']}"
