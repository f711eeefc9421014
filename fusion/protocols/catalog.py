"""Protocols: who is trained on, chosen on and tested on, and what that promises; every promise is checked on each fold.

The table is that of the literature: leave one session or speaker out and the six-class convention for IEMOCAP, five
random fifths because it is published so, the publisher's split of MELD, EmoBox's folds for RAVDESS (Ma et al., 2024,
arXiv:2406.07162). Dev is never part of test (systems.md C-2).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.stream import StreamSpec
from cache.utterance import Utterance
from fusion.arrays import Indices
from fusion.protocols.folds import (
    Fold,
    Splitting,
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
    check_parts,
    check_speakers,
    note_dev,
    note_dialogues,
    note_share,
    note_speakers,
)

AUTO = "auto"
DIALOGUES = "dialogues"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way to divide a corpus.

    Attributes:
        split: makes the folds.
        promise: what they promise, in words to print.
        tenth_of: what dev is a tenth of, taken whole; empty where it is not.
        checks: functions that hold each fold to it.
        history: whether streams with the turns before may be read at all.
    """

    split: Splitting
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
    "official": Protocol(split=by_published_split, promise="the published split: it promises what its publisher does"),
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

# Corpus -> its protocol unless one is asked for.
DEFAULTS: Mapping[str, str] = {"iemocap": "session", "meld": "official", "ravdess": "actor6", "demo": "session"}


def choose_protocol(
    asked: str | None, corpus: str, utterances: Sequence[Utterance], classes: Indices
) -> tuple[str, list[str]]:
    """Gives the name of the protocol to take, never ``auto``, and what to print about the choice.

    Args:
        asked: name of a protocol, ``auto``, or None or empty for the default of the corpus.
        corpus: name of the corpus in the cache.
        utterances: all of the cache.
        classes: class index of each, -1 for those that are left out.

    Raises:
        MmerError: if there is no such protocol.
    """
    name = asked or DEFAULTS.get(corpus, AUTO)
    if name == AUTO:
        return _automatic(UtteranceTable.of(utterances, classes))
    _protocol(name)
    return name, []


def make_folds(
    utterances: Sequence[Utterance], classes: Indices, protocol: str, data_seed: int, names: Sequence[str] = ()
) -> list[Fold]:
    """Divides the utterances of a label set, and checks on every fold what the protocol promises.

    Args:
        utterances: all of the cache.
        classes: class index of each, int64 ``(n,)``, -1 for those that are left out.
        protocol: name of a protocol, or ``auto``.
        data_seed: decides every draw.
        names: names of the classes, for messages.

    Raises:
        MmerError: if the corpus does not fit the protocol, or a promise does not hold; names the offenders.
    """
    members = UtteranceTable.of(utterances, classes)
    if protocol == AUTO:
        protocol = _automatic(members)[0]
    chosen = _protocol(protocol)
    names = names or [str(index) for index in range(int(classes.max()) + 1)]
    folds = list(chosen.split(members, data_seed))
    for fold in folds:
        check_parts(fold)
        for check in chosen.checks:
            check(fold, utterances)
        check_classes(fold, classes, names)
    return folds


def refuse_history(
    folds: Sequence[Fold], utterances: Sequence[Utterance], specs: Sequence[StreamSpec], protocol: str
) -> None:
    """Refuses streams with the turns before under a protocol that divides dialogues.

    Raises:
        MmerError: with the streams, and the dialogue where it is the folds that divide one.
    """
    told = [spec.name for spec in specs if spec.preprocessing.get("history")]
    if told and not _protocol(protocol).history:
        raise MmerError(
            f"protocol {protocol} divides dialogues, and {', '.join(told)} holds the turns before; "
            "take a stream without history, or another --protocol"
        )
    for fold in folds:
        check_history(fold, utterances, specs)


def describe(protocol: str) -> str:
    """Says in words what a protocol promises.

    Example:
        >>> describe("random5")
        'random5: five random fifths of the utterances: speaker-dependent, no promise'
    """
    return f"{protocol}: {_protocol(protocol).promise}"


def notes_on(
    folds: Sequence[Fold], utterances: Sequence[Utterance], classes: Indices, names: Sequence[str], protocol: str
) -> list[str]:
    """Tells of speakers on both sides, of unknown ones, of unknown dialogues, and of what is odd about dev."""
    tenth_of, notes = _protocol(protocol).tenth_of, note_dialogues(folds, utterances)
    return [
        *(notes if tenth_of == DIALOGUES else []),
        *(note for fold in folds for note in note_speakers(fold, utterances)),
        *(note for fold in folds for note in note_dev(fold, classes, names)),
        *(note for fold in folds if tenth_of for note in note_share(fold)),
    ]


def _protocol(name: str) -> Protocol:
    try:
        return PROTOCOLS[name]
    except KeyError:
        raise MmerError(f"unknown protocol {name!r}; known: {', '.join([*PROTOCOLS, AUTO])}") from None


def _automatic(members: UtteranceTable) -> tuple[str, list[str]]:
    """Takes the first protocol whose promise the columns can keep."""
    if (members.splits != "").any():
        return "official", []
    if _divides(members.sessions) and not _shared(members.sessions, members.speakers):
        return "session", []
    if (members.speakers != "").all() and _divides(members.speaker_groups, at_least=3):  # one for each part
        return "actor5", []
    return "random5", ["neither split, session nor speaker tells how to divide: protocol random5, speaker-dependent"]


def _divides(values: npt.NDArray[np.str_], at_least: int = 2) -> bool:
    return bool((values != "").all()) and len(set(values)) >= at_least


def _shared(sessions: npt.NDArray[np.str_], speakers: npt.NDArray[np.str_]) -> bool:
    """Tells whether a known speaker is in two sessions."""
    pairs = {(speaker, session) for speaker, session in zip(speakers, sessions, strict=True) if speaker}
    return len(pairs) > len({speaker for speaker, _ in pairs})
