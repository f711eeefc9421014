"""Catalog of protocols: how a corpus is split into folds, and what each protocol promises; checked on every fold.

The table follows the literature: leave one session or one speaker out and the six-class convention for IEMOCAP, five
random fifths because papers use them, the published split of MELD, EmoBox's folds for RAVDESS (Ma et al., 2024,
arXiv:2406.07162). The development subset is never part of the test subset (docs/decisions.md#c-2).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.stream import StreamSpec
from cache.utterance import Utterance
from fusion.arrays import ClassIds
from fusion.protocols.folds import (
    Fold,
    SplitFunction,
    UtteranceTable,
    by_actor_group,
    by_emobox_actors,
    by_last_session,
    by_published_split,
    by_random_fifth,
    by_session,
    by_speaker,
)
from fusion.protocols.leaks import (
    Check,
    check_classes,
    check_dev_speakers,
    check_dialogues,
    check_history,
    check_speakers,
    check_subsets,
    note_dev,
    note_dialogues,
    note_share,
    note_speakers,
)

AUTO = "auto"
DIALOGUES = "dialogues"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way to split a corpus into folds.

    Attributes:
        split: function that makes the folds.
        promise: properties of every fold, in words, for printing.
        tenth_of: unit of which dev is a tenth (``dialogues``, ``speakers``, ``utterances``); empty if dev is no tenth.
        checks: functions that check the promise on a fold.
        history: True if streams with dialogue history may be read.
    """

    split: SplitFunction
    promise: str
    tenth_of: str = ""
    checks: tuple[Check, ...] = ()
    history: bool = True


_BY_DIALOGUE = "dev is a tenth of the training dialogues, and train and dev share none"

PROTOCOLS: Mapping[str, Protocol] = {
    "session": Protocol(
        split=by_session,
        promise=f"leave one session out: test shares no speaker with train or dev; {_BY_DIALOGUE}",
        tenth_of=DIALOGUES,
        checks=(check_speakers, check_dialogues),
    ),
    "speaker": Protocol(
        split=by_speaker,
        promise="leave one speaker out: train, dev and test share no speaker; dev is the partner in the session",
        checks=(check_speakers, check_dev_speakers, check_dialogues),
    ),
    "session5": Protocol(
        split=by_last_session,
        promise=f"session 5 is test: it shares no speaker with train or dev; {_BY_DIALOGUE}",
        tenth_of=DIALOGUES,
        checks=(check_speakers, check_dialogues),
    ),
    "random5": Protocol(
        split=by_random_fifth,
        promise="five random fifths of the utterances: speaker-dependent, no promise",
        tenth_of="utterances",
        history=False,
    ),
    "official": Protocol(split=by_published_split, promise="the published split, with the promises of its publisher"),
    "actor6": Protocol(
        split=by_emobox_actors,
        promise="EmoBox's six folds of four actors: train, dev and test share no speaker; dev is a tenth of the "
        "training speakers",
        tenth_of="speakers",
        checks=(check_speakers, check_dev_speakers, check_dialogues),
    ),
    "actor5": Protocol(
        split=by_actor_group,
        promise="five groups of speakers: train, dev and test share no speaker, train and dev no dialogue; dev is a "
        "tenth of the training speakers",
        tenth_of="speakers",
        checks=(check_speakers, check_dev_speakers, check_dialogues),
    ),
}

# Corpus -> default protocol.
# ESD has a published split, but it shares its speakers.
DEFAULTS: Mapping[str, str] = {
    "iemocap": "session",
    "meld": "official",
    "ravdess": "actor6",
    "esd": "actor5",
    "demo": "session",
}


def find_protocol(name: str) -> Protocol:
    """Looks up a protocol by its name.

    Raises:
        MmerError: if the name is unknown.
    """
    try:
        return PROTOCOLS[name]
    except KeyError:
        raise MmerError(f"unknown protocol {name!r}; known: {', '.join([*PROTOCOLS, AUTO])}") from None


def choose_protocol(
    requested: str | None, corpus: str, utterances: Sequence[Utterance], classes: ClassIds
) -> tuple[str, list[str]]:
    """Selects the protocol of a run.

    Args:
        requested: name of a protocol, or ``auto``; None or empty for the default of the corpus.
        corpus: name of the corpus in the cache.
        utterances: all utterances of the cache.
        classes: class index of each, int64 ``(n,)``; -1 for utterances that are left out.

    Returns:
        The name of the protocol, never ``auto``, and notes on the choice.

    Raises:
        MmerError: if the protocol is unknown.
    """
    name = requested or DEFAULTS.get(corpus, AUTO)
    if name == AUTO:
        return _automatic(UtteranceTable.of(utterances, classes))
    find_protocol(name)
    return name, []


def make_folds(
    utterances: Sequence[Utterance], classes: ClassIds, protocol: str, data_seed: int, names: Sequence[str] = ()
) -> list[Fold]:
    """Splits the utterances of a label set, and checks the promises of the protocol on every fold.

    Args:
        utterances: all utterances of the cache.
        classes: class index of each, int64 ``(n,)``; -1 for utterances that are left out.
        protocol: name of a protocol, or ``auto``.
        data_seed: random seed of all draws.
        names: names of the classes, for messages.

    Raises:
        MmerError: if the corpus does not fit the protocol, or a promise does not hold; names the offenders.
    """
    table = UtteranceTable.of(utterances, classes)
    if protocol == AUTO:
        protocol = _automatic(table)[0]
    chosen = find_protocol(protocol)
    names = names or [str(index) for index in range(int(classes.max()) + 1)]
    folds = list(chosen.split(table, data_seed))
    for fold in folds:
        check_subsets(fold)
        for check in chosen.checks:
            check(fold, utterances)
        check_classes(fold, classes, names)
    return folds


def check_history_streams(
    folds: Sequence[Fold], utterances: Sequence[Utterance], specs: Sequence[StreamSpec], protocol: str
) -> None:
    """Checks that no stream with dialogue history is read where dialogues are split.

    Args:
        folds: folds of the protocol.
        utterances: all utterances of the cache.
        specs: streams that are read.
        protocol: name of the protocol.

    Raises:
        MmerError: if a dialogue with history is split; names the streams, and the dialogue if a fold splits one.
    """
    streams = [spec.name for spec in specs if spec.preprocessing.get("history")]
    if streams and not find_protocol(protocol).history:
        raise MmerError(
            f"protocol {protocol} splits dialogues, and {', '.join(streams)} contains previous turns; "
            "choose a stream without history, or another --protocol"
        )
    for fold in folds:
        check_history(fold, utterances, specs)


def describe_protocol(protocol: str) -> str:
    """Returns the name of a protocol and its promise in words.

    Example:
        >>> describe_protocol("random5")
        'random5: five random fifths of the utterances: speaker-dependent, no promise'
    """
    return f"{protocol}: {find_protocol(protocol).promise}"


def protocol_notes(
    folds: Sequence[Fold], utterances: Sequence[Utterance], classes: ClassIds, names: Sequence[str], protocol: str
) -> list[str]:
    """Returns notes on shared and unknown speakers, on unknown dialogues, and on classes and size of dev.

    Args:
        folds: folds of the protocol.
        utterances: all utterances of the cache.
        classes: class index of each, int64 ``(n,)``; -1 for utterances that are left out.
        names: names of the classes.
        protocol: name of the protocol.
    """
    unit = find_protocol(protocol).tenth_of
    return [
        *(note_dialogues(folds, utterances) if unit == DIALOGUES else []),
        *(note for fold in folds for note in note_speakers(fold, utterances)),
        *(note for fold in folds for note in note_dev(fold, classes, names)),
        *(note for fold in folds if unit for note in note_share(fold, unit)),
    ]


def _automatic(table: UtteranceTable) -> tuple[str, list[str]]:
    """Selects the first protocol whose promise the columns can keep, and a note if there is none."""
    if (table.splits != "").any():
        return "official", []
    if _divides(table.sessions) and not _has_shared_speaker(table.sessions, table.speakers):
        return "session", []
    if (table.speakers != "").all() and _divides(table.speaker_groups, at_least=3):  # one for each subset
        return "actor5", []
    return "random5", ["no usable column split, session or speaker: protocol random5 is used, speaker-dependent"]


def _divides(values: npt.NDArray[np.str_], at_least: int = 2) -> bool:
    return bool((values != "").all()) and len(set(values)) >= at_least


def _has_shared_speaker(sessions: npt.NDArray[np.str_], speakers: npt.NDArray[np.str_]) -> bool:
    """Checks whether a known speaker occurs in two sessions."""
    pairs = {(speaker, session) for speaker, session in zip(speakers, sessions, strict=True) if speaker}
    return len(pairs) > len({speaker for speaker, _ in pairs})
