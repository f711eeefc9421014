"""Catalog of protocols: how a corpus is split into folds, and what each protocol promises; checked on every fold.

The table follows the literature: leave one session or one speaker out and the six-class convention for IEMOCAP, five
random fifths because papers use them, the published split of MELD, EmoBox's folds for RAVDESS (Ma et al., 2024,
arXiv:2406.07162). The development subset is never part of the test subset (docs/decisions.md#c-2).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.near_names import nearest
from cache.stream import StreamSpec
from cache.utterance import Utterance
from fusion.arrays import ClassIds
from fusion.protocols.dev import DIALOGUES, SPEAKERS, dev_words
from fusion.protocols.folds import (
    FIFTHS,
    Fold,
    SplitFunction,
    UtteranceTable,
    by_actor_group,
    by_emobox_actors,
    by_last_session,
    by_published_split,
    by_random_fifth,
    by_session,
    by_single_speaker,
    by_speaker,
    by_speaker_groups,
)
from fusion.protocols.leaks import (
    Check,
    check_classes,
    check_dev_speakers,
    check_dialogues,
    check_history,
    check_speakers,
    check_subsets,
    note_classes,
    note_dev,
    note_dialogues,
    note_share,
    note_speakers,
)
from fusion.protocols.own_folds import OWN, OwnFolds

AUTO = "auto"
CROSS = "cross"  # trains on each of several corpora; no way to split one
GROUPS = "speakers:K"  # in lists; K is a number
MANY_FOLDS = 24  # more folds than that (the actors of RAVDESS) are a note on time
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """One way to split a corpus into folds.

    Attributes:
        split: function that makes the folds.
        promise: properties of every fold, in words, for printing.
        checks: functions that check the promise on a fold.
        history: True if streams with dialogue history may be read.
    """

    split: SplitFunction
    promise: str
    checks: tuple[Check, ...] = ()
    history: bool = True


_BY_DIALOGUE = "dev is a tenth of the training dialogues, and train and dev share none"
_BY_SPEAKER = "dev is whole training speakers, about a tenth of the utterances"

PROTOCOLS: Mapping[str, Protocol] = {
    "session": Protocol(
        split=by_session,
        promise=f"leave one session out: test shares no speaker with train or dev; {_BY_DIALOGUE}",
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
        checks=(check_speakers, check_dialogues),
    ),
    "random5": Protocol(
        split=by_random_fifth,
        promise="five random fifths of the utterances: speaker-dependent, no promise",
        history=False,
    ),
    "official": Protocol(split=by_published_split, promise="the published split, with the promises of its publisher"),
    "actor6": Protocol(
        split=by_emobox_actors,
        promise=f"EmoBox's six folds of four actors: train, dev and test share no speaker; {_BY_SPEAKER}",
        checks=(check_speakers, check_dev_speakers, check_dialogues),
    ),
    "actor5": Protocol(
        split=by_actor_group,
        promise="five groups of speakers: train, dev and test share no speaker, train and dev no dialogue; "
        f"{_BY_SPEAKER}",
        checks=(check_speakers, check_dev_speakers, check_dialogues),
    ),
    "loso": Protocol(
        split=by_single_speaker,
        promise="leave one speaker out: train, dev and test share no speaker, train and dev no dialogue; dev is the "
        "partners in dialogue, else whole training speakers, about a tenth of the utterances",
        checks=(check_speakers, check_dev_speakers, check_dialogues),
    ),
}

# Names that other programs and papers use -> what to choose here.
HABITS: Mapping[str, str] = {
    "kfold": "speakers:5 (speakers held out) or random5 (speaker-dependent)",
    "cv": "speakers:5 (speakers held out) or random5 (speaker-dependent)",
    "random": "random5 (speaker-dependent) or speakers:5 (speakers held out)",
    "stratified": "random5 (speaker-dependent) or speakers:5 (speakers held out)",
    "loo": "loso (leave one speaker out)",
    "leave-one-speaker-out": "loso",
    "leave-one-out": "loso (leave one speaker out)",
    "logo": "loso (leave one speaker out)",
    "speaker-independent": "speakers:5 or loso",
    "leave-one-session-out": "session",
    "losso": "session",
    "sessions": "session",
    "actor": "actor6 (EmoBox's folds of RAVDESS) or loso",
    "emobox": "actor6 on RAVDESS, or --folds emobox:DIR with its files",
    "predefined": "official",
    "published": "official",
    "split": "official",
    "holdout": "official with a column split, or --folds FILE",
    "cross": "--protocol cross of mmer-train with --test-cache OTHER",
    "cross-corpus": "--protocol cross of mmer-train with --test-cache OTHER",
    OWN: "--folds FILE, which needs no --protocol",
}
_N_FOLD = re.compile(r"(\d+)-?folds?(-?cv)?|(?:cv|kfold|random|group)-?(\d+)|groups?:(\d+)")

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
    """Looks up a protocol by its name; ``speakers:K`` is one for each number K.

    Raises:
        MmerError: if the name is unknown; names what it may mean.
    """
    kind, colon, number = name.partition(":")
    if kind == SPEAKERS:
        if not colon or not number.isdecimal() or not 2 <= int(number) < 1000:
            raise MmerError(f"protocol {name!r} needs a number of groups of speakers from 2, such as speakers:5")
        return _speaker_groups(int(number))
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    raise MmerError(f"unknown protocol {name!r}; {_near(name)}")


def list_protocols() -> list[tuple[str, str]]:
    """Returns name and promise of every protocol, ``speakers:K`` and ``auto`` included."""
    groups = _speaker_groups(5).promise.replace("five groups", "K groups", 1)
    automatic = "official, session or actor5, whichever the columns of the corpus allow first; else random5"
    return [
        *((name, protocol.promise) for name, protocol in PROTOCOLS.items()),
        (GROUPS, groups),
        (AUTO, automatic),
    ]


def _speaker_groups(count: int) -> Protocol:
    return Protocol(
        split=partial(by_speaker_groups, count=count),
        promise=f"{_number(count)} groups of speakers with similar classes: train, dev and test share no speaker, "
        f"train and dev no dialogue; {_BY_SPEAKER}",
        checks=(check_speakers, check_dev_speakers, check_dialogues),
    )


def _near(name: str) -> str:
    """Returns a hint for an unknown name: what another program calls so, a similar name, or all names."""
    plain = re.sub(r"[\s_]+", "-", name.strip().lower())
    if plain in HABITS:
        return f"choose {HABITS[plain]}"
    if match := _N_FOLD.fullmatch(plain):
        number = match[1] or match[3] or match[4]
        random = " or random5 (speaker-dependent)" if number == "5" else ""
        return f"choose speakers:{number} (speakers held out){random}"
    return nearest(name, [*PROTOCOLS, GROUPS, AUTO])


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
        The name of the protocol, never ``auto``, and a note on the choice of ``auto``.

    Raises:
        MmerError: if the protocol is unknown.
    """
    name = requested or DEFAULTS.get(corpus, AUTO)
    if name == AUTO:
        return _automatic(UtteranceTable.of(utterances, classes))
    find_protocol(name)
    return name, []


def make_folds(
    utterances: Sequence[Utterance],
    classes: ClassIds,
    protocol: str,
    data_seed: int,
    names: Sequence[str] = (),
    *,
    own_folds: OwnFolds | None = None,
    earlier_dev: bool = False,
) -> list[Fold]:
    """Splits the utterances of a label set, and checks the promises of the protocol on every fold.

    Args:
        utterances: all utterances of the cache.
        classes: class index of each, int64 ``(n,)``; -1 for utterances that are left out.
        protocol: name of a protocol, or ``auto``.
        data_seed: random seed of all draws.
        names: names of the classes, for messages.
        own_folds: folds that take the place of the protocol; they promise nothing that could be broken.
        earlier_dev: draw dev as version 0.1 did.

    Raises:
        MmerError: if the corpus does not fit the protocol, or a promise does not hold; names the offenders.
    """
    table = UtteranceTable.of(utterances, classes, earlier_dev=earlier_dev)
    if protocol == AUTO:
        protocol = _automatic(table)[0]
    chosen = _chosen(protocol, own_folds)
    names = names or [str(index) for index in range(int(classes.max()) + 1)]
    folds = list(chosen.split(table, data_seed))
    for fold in folds:
        check_subsets(fold)
        for check in (*chosen.checks, *((check_dev_speakers,) if fold.dev_of == SPEAKERS else ())):
            check(fold, utterances)
    check_classes(folds, classes, names)
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
    if streams and protocol != OWN and not find_protocol(protocol).history:
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
    return f"{protocol}: {'folds of a file' if protocol == OWN else find_protocol(protocol).promise}"


def promise_of(
    protocol: str,
    folds: Sequence[Fold],
    utterances: Sequence[Utterance],
    corpus: str,
    own_folds: OwnFolds | None = None,
) -> str:
    """Returns what a protocol is and promises on a corpus, in words.

    Args:
        protocol: name of the protocol.
        folds: its folds.
        utterances: all utterances of the cache.
        corpus: name of the corpus.
        own_folds: folds that take the place of the protocol.
    """
    if own_folds is not None:
        return own_folds.promise(folds, utterances)
    promise = find_protocol(protocol).promise
    if any(fold.dev_of == SPEAKERS for fold in folds):
        promise = f"{promise.partition('; dev is ')[0]}; {dev_words(folds, utterances)}"
    if protocol == "actor5":
        return promise.replace("five groups", f"{_number(len(folds))} groups")
    if protocol == "actor6" and corpus != "ravdess":
        groups = f"{_number(len(folds))} groups of speakers (those of EmoBox's folds of RAVDESS)"
        return promise.replace("EmoBox's six folds of four actors", groups)
    return promise


def protocol_words(protocol: str, notes: Iterable[str]) -> str:
    """Returns a protocol in a few words, from its promise among the notes of a run; its name without that note.

    Args:
        protocol: name of the protocol.
        notes: notes of a run of any version.

    Example:
        >>> protocol_words("actor5", ["actor5: four groups of speakers: train, dev and test share no speaker"])
        'four groups of speakers'
        >>> protocol_words("actor5", [])
        'actor5'
    """
    start = f"{protocol}: "
    promise = next((note.removeprefix(start) for note in notes if note.startswith(start)), protocol)
    return re.split("[:;,] ", promise, maxsplit=1)[0]


def protocol_notes(
    folds: Sequence[Fold],
    utterances: Sequence[Utterance],
    classes: ClassIds,
    names: Sequence[str],
    protocol: str,
    *,
    own_folds: OwnFolds | None = None,
) -> list[str]:
    """Returns notes on folds: their number, speakers, unknown dialogues, classes of test, classes and size of dev.

    Args:
        folds: folds of the protocol.
        utterances: all utterances of the cache.
        classes: class index of each, int64 ``(n,)``; -1 for utterances that are left out.
        names: names of the classes.
        protocol: name of the protocol.
        own_folds: folds that take the place of the protocol.
    """
    many = f"{len(folds)} folds are {len(folds)} trainings for each seed; --protocol speakers:5 has five"
    return [
        *([many] if len(folds) > MANY_FOLDS else []),
        *note_classes(folds, classes, names),
        *(note_dialogues(folds, utterances) if any(fold.dev_of == DIALOGUES for fold in folds) else []),
        *(note for fold in folds for note in note_speakers(fold, utterances)),
        *(note for fold in folds for note in note_dev(fold, classes, names)),
        *(note for fold in folds for note in note_share(fold)),
    ]


def _chosen(protocol: str, own_folds: OwnFolds | None) -> Protocol:
    if own_folds is None:
        return find_protocol(protocol)
    return Protocol(split=own_folds.split, promise="folds of a file")


def _automatic(table: UtteranceTable) -> tuple[str, list[str]]:
    """Selects the first protocol whose promise the columns can keep; the note states what was selected and why."""
    if (table.splits != "").any():
        return "official", ["protocol auto uses official: the column split names the subsets"]
    if _divides(table.sessions) and not _has_shared_speaker(table.sessions, table.speakers):
        count = len(set(table.sessions.tolist()))
        return "session", [f"protocol auto uses session: the column session has {count} values and shares no speaker"]
    if (table.speakers != "").all() and _divides(table.speaker_groups, at_least=3):  # one for each subset
        speakers, groups = (len(set(column.tolist())) for column in (table.speakers, table.speaker_groups))
        number = _number(min(FIFTHS, groups))
        return "actor5", [f"protocol auto uses actor5: {number} groups of the {speakers} speakers, no usable session"]
    return "random5", ["no usable column split, session or speaker: protocol random5 is used, speaker-dependent"]


def _number(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def _divides(values: npt.NDArray[np.str_], at_least: int = 2) -> bool:
    return bool((values != "").all()) and len(set(values)) >= at_least


def _has_shared_speaker(sessions: npt.NDArray[np.str_], speakers: npt.NDArray[np.str_]) -> bool:
    """Checks whether a known speaker occurs in two sessions."""
    pairs = {(speaker, session) for speaker, session in zip(speakers, sessions, strict=True) if speaker}
    return len(pairs) > len({speaker for speaker, _ in pairs})
