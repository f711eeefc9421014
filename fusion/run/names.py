"""Default names of run folders: the folder of a run or grid below ``runs/``, and the streams that a run reads."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from cache.stream import INTEGER_ROLES
from fusion.fingerprint import Plain

RUNS = Path("runs")  # folder of all runs without an explicit folder
PATTERN = re.compile(r"[-_.]*[*?\[\]]+[-_.]*")  # wildcards of a file pattern, with the separators around them
UNSAFE = re.compile(r"[^A-Za-z0-9_.@+-]+")  # what shells or file systems may treat differently
# Bytes of the parts of a run's name: with separators and digest at most 240 of the 255 that a file name may have.
STEM_BYTES, HEAD_BYTES, STREAMS_BYTES = 100, 40, 88


def default_folder(cache: Path, ending: str) -> Path:
    """Returns the folder below ``runs/`` for results on a cache.

    Args:
        cache: path of the cache, or pattern of its files.
        ending: last part of the name of the folder.

    Example:
        >>> default_folder(Path("cache/voices-*.h5"), "audio").as_posix()
        'runs/voices-audio'
    """
    return RUNS / f"{_stem(cache)}-{ending}"


def run_name(cache: Path, head: str, streams: Iterable[str], digest: str) -> str:
    """Returns the name of the default folder of a run; at most 240 bytes.

    Args:
        cache: path of the cache, or pattern of its files.
        head: name of the head, as part of a file name.
        streams: names of the streams that the run reads.
        digest: digest of everything that decides the results.

    Example:
        >>> run_name(Path("cache/demo.h5"), "rescmfa", ["wav2vec2-tiny", "roberta-tiny"], "c68a5223")
        'demo-rescmfa-wav2vec2-tiny+roberta-tiny-c68a5223'
    """
    names = "+".join(dict.fromkeys(UNSAFE.sub("_", name).strip("_") for name in streams))
    parts = [_cut(_stem(cache), STEM_BYTES), _cut(head, HEAD_BYTES), _cut(names, STREAMS_BYTES), digest]
    return "-".join(part for part in parts if part)


def stream_names(identity: Plain) -> dict[str, str]:
    """Returns role -> name of the stream that a run reads, from its identity.

    Where each fold reads a stream of its own, all of them are named.

    Example:
        >>> stream_names({"streams": {"audio": "wav2vec2-tiny 0123456789abcdef"}})
        {'audio': 'wav2vec2-tiny'}
    """
    names = {role: text.rpartition(" ")[0] for role, text in identity.get("streams", {}).items()}
    by_role: dict[str, list[str]] = {}
    for held in identity.get("by_fold", {}).values():
        for role, text in held.items():
            by_role.setdefault(role, []).append(text.rpartition(" ")[0])
    return names | {role: ", ".join(dict.fromkeys(held)) for role, held in by_role.items()}


def main_streams(streams: Mapping[str, str]) -> list[str]:
    """Returns the names of streams of features, each once, speech first; ids of codes, tokens and letters follow them.

    Example:
        >>> main_streams({"text": "roberta-tiny", "chars": "ctc.chars", "audio": "wav2vec2-tiny"})
        ['wav2vec2-tiny', 'roberta-tiny']
    """
    return list(dict.fromkeys(streams[role] for role in sorted(streams) if role not in INTEGER_ROLES))


def _stem(cache: Path) -> str:
    return "-".join(part for part in PATTERN.split(cache.stem) if part)


def _cut(text: str, most_bytes: int) -> str:
    return text.encode("utf-8", "replace")[:most_bytes].decode("utf-8", "ignore").rstrip("-+_.")
