"""Label sets: classes over the raw labels of a corpus; utterances with other labels are left out.

iemocap4 merges happy and excited as GCF2-Net, Mul-TAB and LE-MER do; bi-modal bi-task states no merge, JFM no class set
(docs/decisions.md#class-counts). iemocap6 is the six-class convention (C-2).
meld7 and meld3 are the emotions and the sentiments of Poria et al., 2019, arXiv:1810.02508.
msp-podcast8 are the eight primary emotions that the rater chooses from, without other and no agreement (Busso et al.);
msp-improv4 are the four emotions that the scenarios of MSP-IMPROV aim at.
ravdess8 has the channel of speech only: two of its emotions were never sung (Livingstone and Russo, 2018).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cache.errors import MmerError
from cache.near_names import nearest
from cache.utterance import Utterance, alike_labels, alike_note
from fusion.arrays import ClassIds

LEFT_OUT = -1  # the class of an utterance that is not part of the label set


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """Classes over the raw labels of a corpus.

    Attributes:
        name: name for ``--labels``; the definition itself for a custom set.
        classes: class -> its raw labels, in the order of the class indices.
        corpus: corpus of the set; empty for any.
        column: column of the utterances with the raw labels.
        channels: channels that take part; empty for all.
    """

    name: str
    classes: Mapping[str, tuple[str, ...]]
    corpus: str = ""
    column: str = "label"
    channels: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their indices."""
        return tuple(self.classes)

    def raw(self, utterance: Utterance) -> str:
        """Returns the raw label of an utterance; empty without a label, or if its channel is left out."""
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
        channels=("speech", ""),  # packs of other toolkits have no channel and no song
    ),
    "msp-podcast8": LabelSet(
        name="msp-podcast8",
        corpus="msp-podcast",
        classes=_as_published("angry sad happy surprise fear disgust contempt neutral"),
    ),
    "msp-improv4": LabelSet(name="msp-improv4", corpus="msp-improv", classes=_as_published("angry happy neutral sad")),
}

# Corpus -> default label set; for other corpora, every raw label is a class.
DEFAULTS: Mapping[str, str] = {
    "iemocap": "iemocap4",
    "meld": "meld7",
    "ravdess": "ravdess8",
    "msp-podcast": "msp-podcast8",
    "msp-improv": "msp-improv4",
}


def choose_labels(requested: str | None, corpus: str, utterances: Sequence[Utterance]) -> LabelSet:
    """Selects the label set of a run.

    Args:
        requested: name of a set, or a definition such as ``happy=hap+exc,sad=sad``; None or empty for the default of
            the corpus.
        corpus: name of the corpus in the cache.
        utterances: all utterances of the cache; without a default, their raw labels are the classes.

    Raises:
        MmerError: if the name is unknown, the definition is invalid, or the utterances have fewer than two labels.
    """
    name = requested or DEFAULTS.get(corpus, "")
    if not name:
        return _published_labels(corpus, utterances)
    return find_label_set(name)


def find_label_set(name: str) -> LabelSet:
    """Looks up a label set by its name, or reads its definition.

    Raises:
        MmerError: if the name is unknown or the definition cannot be read.
    """
    if "=" in name:
        return parse_labels(name)
    if name not in LABEL_SETS:
        hint = nearest(name, LABEL_SETS)
        raise MmerError(f"unknown label set {name!r}; {hint} (or define a set: --labels happy=hap+exc,sad=sad)")
    return LABEL_SETS[name]


def parse_labels(definition: str) -> LabelSet:
    """Reads a custom label set.

    Args:
        definition: classes separated by commas, each ``class=raw+raw``.

    Raises:
        MmerError: if a class has no name or no raw label, is defined twice, or shares a raw label with another class;
            or if there is only one class.

    Example:
        >>> dict(parse_labels("happy=hap+exc,sad=sad").classes)
        {'happy': ('hap', 'exc'), 'sad': ('sad',)}
    """
    classes: dict[str, tuple[str, ...]] = {}
    for item in definition.split(","):
        name, _, raws = (part.strip() for part in item.partition("="))
        labels = tuple(raw.strip() for raw in raws.split("+"))
        if not name or not all(labels):
            raise MmerError(f"--labels: invalid class {item.strip()!r}; expected class=raw+raw, such as happy=hap+exc")
        if name in classes:
            raise MmerError(f"--labels: class {name!r} is defined twice; define it once, with + between its raw labels")
        classes[name] = labels
    counts = Counter(raw for labels in classes.values() for raw in labels)
    repeated = [raw for raw, count in counts.items() if count > 1]
    if repeated:
        raise MmerError(f"--labels: raw label {_quoted(repeated)} is listed twice; a label belongs to one class")
    if len(classes) < 2:
        raise MmerError(f"--labels: {definition!r} defines one class; expected at least two")
    return LabelSet(name=definition, classes=classes)


def classes_of(utterances: Sequence[Utterance], labels: LabelSet) -> ClassIds:
    """Returns the class index of each utterance, int64 ``(n,)``; -1 for utterances that are left out.

    Raises:
        MmerError: if no utterance is left, a class has no utterance, or a raw label of a custom set does not occur.
    """
    raws = [labels.raw(utterance) for utterance in utterances]
    index_of = {raw: index for index, members in enumerate(labels.classes.values()) for raw in members}
    classes = np.array([index_of.get(raw, LEFT_OUT) for raw in raws], dtype=np.int64)
    if not (classes >= 0).any():
        raise MmerError(f"label set {labels.name} leaves no utterance; {_found_text(raws, labels)}")
    if labels.name not in LABEL_SETS:
        unknown = [raw for raw in index_of if raw not in raws]
        if unknown:
            raise MmerError(f"--labels: raw label {_quoted(unknown)} not found; {_found_text(raws, labels)}")
    empty = [name for index, name in enumerate(labels.names) if not (classes == index).any()]
    if empty:
        raise MmerError(
            f"label set {labels.name}: no utterance of class {_quoted(empty)}; {_found_text(raws, labels)}; "
            "define a set without it: --labels class=raw,..."
        )
    return classes


def alike_notes(utterances: Sequence[Utterance], labels: LabelSet) -> list[str]:
    """Returns a note on each group of raw labels that differ only in case or white space, unless they are one class."""
    index_of = {raw: index for index, members in enumerate(labels.classes.values()) for raw in members}
    groups = alike_labels(labels.raw(utterance) for utterance in utterances)
    return [alike_note(group) for group in groups if len({index_of.get(raw) for raw in group}) > 1]


def _published_labels(corpus: str, utterances: Sequence[Utterance]) -> LabelSet:
    names = sorted({utterance.label for utterance in utterances} - {""})
    if len(names) < 2:
        found = f"only {names[0]!r}" if names else "none"
        raise MmerError(f"the utterances of {corpus} need at least two different labels, got {found}")
    return LabelSet(name="as published", classes={name: (name,) for name in names}, corpus=corpus)


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def _found_text(raws: Sequence[str], labels: LabelSet) -> str:
    """Returns a text with the raw labels of utterances and their counts, most frequent first."""
    counts = Counter(raws)
    without = counts.pop("", 0)
    found = [f"{raw!r} ({count})" for raw, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    where = f" of the {'/'.join(filter(None, labels.channels))} channel" if labels.channels else ""
    unlabelled = [f"{without} utterances without a {labels.column}{where}"] if without else []
    return f"found: {', '.join([*found, *unlabelled]) or 'no utterances'}"
