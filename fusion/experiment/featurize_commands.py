"""Commands that an error prints: the ``mmer-featurize`` command that adds a stream to a cache, or repairs its rows.

A command reads the corpus as the cache records it, so that it can be pasted.
"""

import re
from collections.abc import Mapping
from itertools import count as count_up
from pathlib import Path
from shlex import quote
from typing import Any

from cache.joined import AnyCache
from cache.json_text import is_count
from cache.stream import INTEGER_ROLES, SPEECH, VIEW, StreamSpec
from cache.transcripts import VARIANT
from fusion.head_config import TEXT

# Role -> the encoders that compute it: a published one, and the built-in one of the demo.
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
DEMO = "demo"  # corpus with built-in encoders
MANIFEST = "manifest"  # corpus that is described by a table
MANIFEST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".ndjson")
SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d+)-of-(?P<count>\d+)")  # file name by mmer-featurize --shards
FEATURIZE_DEFAULTS: Mapping[str, object] = {
    "dtype": "float16",
    "precision": "float32",
    "max-seconds": 60.0,
    "event-tags": "strip",
}


def featurize_command_for_role(cache: AnyCache, role: str) -> str:
    """Returns the command that adds a stream for a role to a cache."""
    return featurize_command_for_encoder(cache, ADDED_BY[role][corpus_of(cache) == DEMO])


def featurize_command_for_encoder(cache: AnyCache, encoder: str) -> str:
    """Returns the command that adds the streams of an encoder to a cache."""
    return featurize_command(cache, f"--encoder {quote(encoder)}")


def featurize_command(cache: AnyCache, options: str) -> str:
    """Returns the ``mmer-featurize`` command for the utterances of a cache, with options.

    Where no command would work, because the corpus is not where the cache records it, the text says what is needed.
    """
    root = _root_of(cache)
    if corpus_of(cache) != DEMO and not root:
        recorded = str(cache.header["corpus"].get("root", ""))
        where = f"recorded as {recorded}, which is not here" if recorded else "which the cache does not record"
        return f"mmer-featurize, the corpus {corpus_of(cache)!r} as --root ({where}) and {options}"
    joined, target = _target(cache)
    root_option = f" --root {quote(root)}" if root else ""
    return f"{joined}mmer-featurize {quote(corpus_of(cache))}{root_option}{_reading(cache)} --cache {target} {options}"


def repair_command(cache: AnyCache, name: str) -> str:
    """Returns the command that computes the damaged rows of a stream again, with the options that computed it."""
    spec = cache.stream(name).spec
    if spec.imported:
        return f"mmer-cache drop {quote(str(cache.path))} {quote(name)}, then mmer-cache import with its pack"
    specs = [stream.spec for stream in cache.streams.values()]
    kin = [held for held in specs if held.encoder == spec.encoder or (spec.role == "chars" and held.role == TEXT)]
    leader = next((held for held in kin if held.role not in INTEGER_ROLES and not held.view), spec)
    options = [options_for(leader.name), *_computed_with(leader)]
    options += [f"--view {_view_option(spec.view)}"] if spec.view else []
    options += ["--audio-only"] if spec.consumes == SPEECH else []
    options += [] if leader.role == "mel" else ["--no-mel"]
    return featurize_command(cache, " ".join([*options, "--replace"]))


def _computed_with(spec: StreamSpec) -> list[str]:
    """Returns the options of ``mmer-featurize`` that a stream records, where they differ from the defaults."""
    recorded: dict[str, object] = {
        "dtype": spec.dtype,
        "precision": spec.precision,
        "max-seconds": spec.limits.get("max_seconds"),
        "history": spec.preprocessing.get("history"),
        "max-tokens": spec.preprocessing.get("max_tokens"),
        "event-tags": spec.preprocessing.get("event_tags"),
    }
    given = {name: value for name, value in recorded.items() if value and value != FEATURIZE_DEFAULTS.get(name)}
    options = [f"--{name} {value}" for name, value in given.items()]
    flags = {"chunk": spec.limits.get("chunk"), "truncate": spec.preprocessing.get("truncate")}
    return [*options, *(f"--{name}" for name, value in flags.items() if value)]


def _root_of(cache: AnyCache) -> str:
    """Returns the folder of a corpus, or the file of a manifest; empty if it is not where the cache records it."""
    corpus = cache.header["corpus"]
    root = str(corpus.get("root", ""))
    if not root or not Path(root).is_dir():
        return ""
    if corpus_of(cache) != MANIFEST:
        return root
    if corpus.get("table"):
        table = Path(root, str(corpus["table"]))
        return str(table) if table.is_file() else ""
    tables = sorted(path for path in Path(root).iterdir() if path.suffix.lower() in MANIFEST_SUFFIXES)
    named = [path for path in tables if path.stem == Path(cache.path).stem]
    return str((named or tables)[0]) if len(tables) == 1 or named else ""


def _reading(cache: AnyCache) -> str:
    """Returns the options with which the corpus of a cache was read."""
    corpus = cache.header["corpus"]
    encoding = f" --encoding {quote(str(corpus['encoding']))}" if corpus.get("encoding") else ""
    columns = _listed_options(corpus, "columns", "--column") + _listed_options(corpus, "keep_columns", "--keep-column")
    limit = f" --limit {corpus['limit']}" if is_count(corpus.get("limit")) else ""
    return f"{encoding}{columns}{' --allow-outside' if corpus.get('allow_outside') else ''}{limit}"


def _listed_options(corpus: Mapping[str, Any], name: str, option: str) -> str:
    values = corpus.get(name)
    return "".join(f" {option} {quote(str(value))}" for value in values) if isinstance(values, list) else ""


def _target(cache: AnyCache) -> tuple[str, str]:
    """Returns a command that has to run first, and the value of ``--cache`` with the shards that it consists of."""
    files = [file.path for file in cache.files]
    shards = [SHARD.fullmatch(path.stem) for path in files]
    cut = {
        (path.with_name(shard["stem"] + path.suffix), shard["count"])
        for path, shard in zip(files, shards, strict=True)
        if shard
    }
    if all(shards) and len(cut) == 1:
        ((whole, count),) = cut
        single = f" --shard {int(shards[0]['number'])}" if len(files) == 1 and shards[0] else ""
        return "", f"{quote(str(whole))} --shards {count}{single}"
    if len(files) == 1:
        return "", quote(str(files[0]))
    merged = next(path for number in count_up(1) if not (path := files[0].with_name(f"joined-{number}.h5")).exists())
    return f"mmer-cache merge {quote(str(merged))} {' '.join(quote(str(path)) for path in files)} && ", quote(
        str(merged)
    )


def corpus_of(cache: AnyCache) -> str:
    """Returns the name of the corpus of a cache."""
    return str(cache.header["corpus"].get("name", ""))


def options_for(name: str) -> str:
    """Returns the options of ``mmer-featurize`` that compute a stream.

    Args:
        name: name of the stream, which may be a view.

    Example:
        >>> options_for("roberta-base~cbca3")
        '--encoder roberta-base --view cbca:3'
    """
    original, _, view = name.partition(VIEW)
    options = f" --view {_view_option(view)}" if view else ""
    if VARIANT in name:
        options += " --asr MODEL"
    return f"--encoder {quote(encoder_of(original))}{options}"


def _view_option(view: str) -> str:
    """Returns the value of --view that computes a view, such as ``cbca:3`` for cbca3."""
    return quote(re.sub(r"(?<=[a-z])(?=[0-9]+$)", ":", view))


def encoder_of(name: str) -> str:
    """Returns the encoder, layers included, that computes a stream.

    Args:
        name: name of the stream.

    Example:
        >>> encoder_of("wav2vec2-base@9.codes")
        'wav2vec2-base@9'
    """
    return name.partition("+")[0].removesuffix(".codes").removesuffix(".tokens")
