"""Tables of folds for ``--folds``."""

from pathlib import Path

from cache.joined import open_cache


def table_of_folds(cache: Path, path: Path, more: str = "") -> Path:
    """Writes two folds of whole sessions: ``a`` tests the first of them, ``b`` all others.

    Args:
        cache: its utterances.
        path: of the table.
        more: rows to add.
    """
    first = min(held.session for held in open_cache(cache).utterances)
    rows = [f"{held.id},{'a' if held.session == first else 'b'}" for held in open_cache(cache).utterances]
    path.write_text("\n".join(["id,fold", *rows, more]))
    return path
