"""Label sets: which raw labels of a corpus make up which class, and what is left out.

iemocap4 merges happy and excited, as all five papers do (systems.md 1.5); iemocap6 is the six-class convention of C-2.
meld7 and meld3 are the emotions and the sentiments of Poria et al., 2019, arXiv:1810.02508.
ravdess8 is the speech part alone: two of its emotions were never sung (Livingstone and Russo, 2018).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.utterance import Utterance

LEFT_OUT = -1  # the class of an utterance that is not part of the label set


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """Classes over the raw labels of a corpus.

    Attributes:
        name: what ``--labels`` calls it; the definition itself for a custom one.
        classes: class -> its raw labels; the order is that of the class indices.
        corpus: the corpus it is made for, empty for any.
        column: the column of the utterances that holds the raw labels.
        channels: the channels that take part, empty for all.
    """

    name: str
    classes: Mapping[str, tuple[str, ...]]
    corpus: str = ""
    column: str = "label"
    channels: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their indices."""
        return tuple(self.classes)

    def raw(self, utterance: Utterance) -> str:
        """Gives the raw label of an utterance; empty if it has none, or is of a channel that takes no part."""
        if self.channels and utterance.channel not in self.channels:
            return ""
        return str(getattr(utterance, self.column))


def _as_published(names: str) -> dict[str, tuple[str, ...]]:
    return {name: (name,) for name in names.split()}


LABEL_SETS: Mapping[str, LabelSet] = {
    "iemocap4": LabelSet(
        name="iemocap4",
        corpus="iemocap",
        classes={"ang": ("ang",), "hap": ("hap", "exc"), "neu": ("neu",), "sad": ("sad",)},
    ),
    "iemocap5": LabelSet(name="iemocap5", corpus="iemocap", classes=_as_published("ang hap exc neu sad")),
    "iemocap6": LabelSet(name="iemocap6", corpus="iemocap", classes=_as_published("hap exc ang neu sad fru")),
    "meld7": LabelSet(
        name="meld7", corpus="meld", classes=_as_published("neutral surprise fear sadness joy disgust anger")
    ),
    "meld3": LabelSet(
        name="meld3", corpus="meld", classes=_as_published("neutral positive negative"), column="sentiment"
    ),
    "ravdess8": LabelSet(
        name="ravdess8",
        corpus="ravdess",
        classes=_as_published("neutral calm happy sad angry fearful disgust surprised"),
        channels=("speech", ""),  # packs of other toolkits name no channel and hold no song
    ),
}

# Corpus -> its label set unless one is asked for; all others take every raw label for a class.
DEFAULTS: Mapping[str, str] = {"iemocap": "iemocap4", "meld": "meld7", "ravdess": "ravdess8"}


def choose_labels(asked: str | None, corpus: str, utterances: Sequence[Utterance]) -> LabelSet:
    """Gives the label set that ``--labels`` names or defines, or the default of the corpus.

    Args:
        asked: name of a set, a definition such as ``happy=hap+exc,sad=sad``, or None or empty for the default.
        corpus: name of the corpus in the cache.
        utterances: those of the cache; for a corpus without a default, their raw labels are the classes.

    Raises:
        MmerError: if the name is unknown, the definition cannot be read, or no utterance has a label.
    """
    name = asked or DEFAULTS.get(corpus, "")
    if not name:
        return _every_label(corpus, utterances)
    if "=" in name:
        return parse_labels(name)
    if name not in LABEL_SETS:
        known = ", ".join(LABEL_SETS)
        raise MmerError(f"unknown label set {name!r}; known: {known}, or define one: --labels happy=hap+exc,sad=sad")
    return LABEL_SETS[name]


def parse_labels(definition: str) -> LabelSet:
    """Reads a custom label set.

    Args:
        definition: classes parted by commas, each ``class=raw+raw``.

    Raises:
        MmerError: if a class has no name or no raw label, stands there twice, or shares a raw label with another.

    Example:
        >>> dict(parse_labels("happy=hap+exc,sad=sad").classes)
        {'happy': ('hap', 'exc'), 'sad': ('sad',)}
    """
    classes: dict[str, tuple[str, ...]] = {}
    for item in definition.split(","):
        name, _, raws = (part.strip() for part in item.partition("="))
        members = tuple(raw.strip() for raw in raws.split("+"))
        if not name or not all(members):
            raise MmerError(f"--labels: {item.strip()!r} is no class; write class=raw+raw, such as happy=hap+exc")
        if name in classes:
            raise MmerError(f"--labels: the class {name} is defined twice; write all its raw labels once, with +")
        classes[name] = members
    twice = _repeated(raw for members in classes.values() for raw in members)
    if twice:
        raise MmerError(f"--labels: raw label {', '.join(twice)} stands there twice; a label belongs to one class")
    if len(classes) < 2:
        raise MmerError(f"--labels: {definition!r} is one class; a classifier needs at least two")
    return LabelSet(name=definition, classes=classes)


def classes_of(utterances: Sequence[Utterance], labels: LabelSet) -> npt.NDArray[np.int64]:
    """Gives the class index of each utterance, int64 ``(n,)``; -1 for those that are left out.

    Raises:
        MmerError: if the set leaves no utterance, a class has none, or a raw label of a custom set is nowhere.
    """
    raws = [labels.raw(one) for one in utterances]
    index_of = {raw: index for index, members in enumerate(labels.classes.values()) for raw in members}
    classes = np.array([index_of.get(raw, LEFT_OUT) for raw in raws], dtype=np.int64)
    if not (classes >= 0).any():
        raise MmerError(f"label set {labels.name} leaves no utterance; {_there_are(raws, labels)}")
    if labels.name not in LABEL_SETS:
        _check_known(raws, labels)
    empty = [name for index, name in enumerate(labels.names) if not (classes == index).any()]
    if empty:
        told = f"label set {labels.name}: no utterance of class {', '.join(empty)}; {_there_are(raws, labels)}"
        raise MmerError(f"{told}; leave it out by --labels class=raw,...")
    return classes


def _every_label(corpus: str, utterances: Sequence[Utterance]) -> LabelSet:
    names = sorted({one.label for one in utterances} - {""})
    if len(names) < 2:
        found = f"only {names[0]!r}" if names else "none"
        raise MmerError(f"the utterances of {corpus} need labels of at least two kinds, there is {found}")
    return LabelSet(name="as published", classes={name: (name,) for name in names}, corpus=corpus)


def _check_known(raws: Sequence[str], labels: LabelSet) -> None:
    there = set(raws)
    unknown = [raw for members in labels.classes.values() for raw in members if raw not in there]
    if unknown:
        raise MmerError(f"--labels: no utterance has the raw label {', '.join(unknown)}; {_there_are(raws, labels)}")


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _there_are(raws: Sequence[str], labels: LabelSet) -> str:
    """Names what raw labels there are, the most frequent first."""
    counts = Counter(raws)
    without = counts.pop("", 0)
    found = [f"{raw} ({count})" for raw, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    where = f" of the {'/'.join(filter(None, labels.channels))} channel" if labels.channels else ""
    none = [f"{without} utterances without a {labels.column}{where}"] if without else []
    return f"there are: {', '.join([*found, *none]) or 'no utterances'}"
