"""Choice of columns: which column of a table or of a corpus is read as which column of utterances, and which are kept.

``--column label=emotion`` reads the label from the column emotion; ``--keep-column gender`` keeps a further column of a
table as an own column of its utterances, for ``--only gender=f``.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cache.errors import MmerError
from cache.utterance import COLUMNS, TEXT, Utterance, own_columns
from featurize.corpora.base import CorpusReading

READ_FROM_TABLES = tuple(name for name in COLUMNS if name not in {"duration_s", "further"})
READ_FROM_CORPORA = tuple(name for name, kind in COLUMNS.items() if kind == TEXT and name not in {"id", "audio"})


@dataclass(frozen=True, kw_only=True)
class ColumnChoice:
    """The columns that the user renames and keeps.

    Attributes:
        renamed: column of utterances -> column of the table or of the corpus that it is read from.
        kept: further columns of a table, kept under their own names.
    """

    renamed: Mapping[str, str] = field(default_factory=dict)
    kept: Sequence[str] = ()

    @property
    def named(self) -> set[str]:
        """The columns of the table that are named."""
        return {*self.renamed.values(), *self.kept}

    def cells(self, cells: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the cells of a record under the names of columns of utterances."""
        if not self.renamed:
            return cells
        taken = {*self.renamed.values()} - {*self.kept}
        return {name: value for name, value in cells.items() if name not in taken} | {
            name: cells[source] for name, source in self.renamed.items() if source in cells
        }

    def check_found(self, found: Collection[str], location: object) -> None:
        """Checks that a table has the columns.

        Args:
            found: names of its columns.
            location: the table, for messages.

        Raises:
            MmerError: if one is missing.
        """
        options = [(source, f"--column {name}={source}") for name, source in self.renamed.items()]
        for source, option in [*options, *((name, f"--keep-column {name}") for name in self.kept)]:
            if source not in found:
                known = ", ".join(name if name.isprintable() and name else ascii(name) for name in found) or "none"
                raise MmerError(f"{option}: {location} has no column {source!r}; its columns: {known}")


NO_CHOICE = ColumnChoice()


def parse_columns(pairs: Sequence[str], kept: Sequence[str] = ()) -> ColumnChoice:
    """Reads the values of ``--column`` and ``--keep-column``.

    Args:
        pairs: ``NAME=COLUMN``.
        kept: names of columns.

    Raises:
        MmerError: if a pair has another form, or a name is unknown or occurs twice.

    Example:
        >>> parse_columns(["label=emotion"], ["gender"])
        ColumnChoice(renamed={'label': 'emotion'}, kept=('gender',))
    """
    renamed: dict[str, str] = {}
    for pair in pairs:
        name, sign, source = (part.strip() for part in pair.partition("="))
        if not (name and sign and source):
            raise MmerError(f"--column expects NAME=COLUMN, as in --column label=emotion, got {pair!r}")
        if name not in READ_FROM_TABLES:
            raise MmerError(f"--column {pair}: unknown column {name!r}; known: {', '.join(READ_FROM_TABLES)}")
        if name in renamed:
            raise MmerError(f"--column {pair}: {name} is read from {renamed[name]} already; give it once")
        renamed[name] = source
    for name in kept:
        if name in COLUMNS:
            raise MmerError(f"--keep-column {name}: the column {name} is read anyway; leave the option out")
    return ColumnChoice(renamed=renamed, kept=tuple(dict.fromkeys(kept)))


def rename_columns(reading: CorpusReading, choice: ColumnChoice, corpus: str) -> CorpusReading:
    """Fills columns of the utterances of a corpus from its own columns, or from other columns of text.

    Args:
        reading: utterances of a corpus that is not a table.
        choice: the columns.
        corpus: name of the corpus, for messages.

    Raises:
        MmerError: if a column is kept, is not one of text, or does not exist.
    """
    if not choice.renamed and not choice.kept:
        return reading
    available = own_columns(reading.utterances)
    if choice.kept:
        raise MmerError(
            f"--keep-column is for tables; all own columns of {corpus} are kept "
            f"({', '.join(available) or 'it has none'})"
        )
    for name in choice.renamed:
        if name not in READ_FROM_CORPORA:
            raise MmerError(f"--column {name}=... is for tables; of {corpus}, choose {', '.join(READ_FROM_CORPORA)}")
    choice.check_found([*available, *READ_FROM_CORPORA], f"the corpus {corpus}")
    return replace(reading, utterances=[_renamed(utterance, choice.renamed) for utterance in reading.utterances])


def _renamed(utterance: Utterance, renamed: Mapping[str, str]) -> Utterance:
    texts: dict[str, Any] = {name: utterance.text_of(source) for name, source in renamed.items()}
    return replace(utterance, **texts)
