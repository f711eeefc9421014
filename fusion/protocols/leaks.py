"""What must not be on both sides of a split: speakers, dialogues, and whatever an encoder has seen or read.

The functions named ``check_…`` raise an `MmerError` that names the fold and the offenders; those named ``note_…`` give
a line for what is worth printing and no reason to stop.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from cache.errors import MmerError
from cache.joined import AnyStream
from cache.layout import COMMITTED
from cache.stream import SPEECH, TRANSCRIPT, StreamSpec
from cache.utterance import Utterance
from fusion.arrays import Indices
from fusion.protocols.folds import Fold

NAMED = 5  # how many offenders a message spells out
SENTENCE = 5  # words: shorter ones are said by chance (21.9% of IEMOCAP are said in another session, 8.1% so long)
WORD, EVENT = re.compile(r"\w+(?:'\w+)*"), re.compile(r"\[[^\]]*\]")
LEAST_DEV, MOST_DEV = 0.05, 0.2  # shares of what is not test that pass for a tenth

Check = Callable[[Fold, Sequence[Utterance]], None]


def check_speakers(fold: Fold, utterances: Sequence[Utterance]) -> None:
    """Refuses a speaker of test who is in train or dev too."""
    _check_apart(fold, utterances, "speaker", "test", ("train", "dev"))


def check_dev_speakers(fold: Fold, utterances: Sequence[Utterance]) -> None:
    """Refuses a speaker of dev who is in train too."""
    _check_apart(fold, utterances, "speaker", "dev", ("train",))


def check_dialogues(fold: Fold, utterances: Sequence[Utterance]) -> None:
    """Refuses a dialogue that train and dev share."""
    _check_apart(fold, utterances, "dialogue", "dev", ("train",))


def check_parts(fold: Fold) -> None:
    """Refuses a fold with an empty part, or with an utterance in two of them."""
    for name, part in fold.subsets.items():
        if not len(part):
            raise MmerError(f"fold {fold.name} has no {name} utterance; choose another --protocol")
    every = np.concatenate(list(fold.subsets.values()))
    if len(np.unique(every)) < len(every):
        raise MmerError(f"fold {fold.name} has an utterance in two of its parts")


def check_classes(fold: Fold, classes: Indices, names: Sequence[str]) -> None:
    """Refuses a fold whose train or test lacks a class."""
    for part in ("train", "test"):
        counts = np.bincount(classes[fold.subsets[part]], minlength=len(names))
        missing = [name for name, count in zip(names, counts, strict=True) if not count]
        if missing:
            raise MmerError(
                f"fold {fold.name} has no {part} utterance of class {_some(missing)}; "
                "choose another --protocol, or --labels without it"
            )


def check_history(fold: Fold, utterances: Sequence[Utterance], specs: Sequence[StreamSpec]) -> None:
    """Refuses streams that were read with their history where a dialogue has turns in two parts of the fold."""
    told = [spec.name for spec in specs if spec.preprocessing.get("history")]
    if not told:
        return
    parts = {name: _values(utterances, part, "dialogue") for name, part in fold.subsets.items()}
    for one, other in (("test", "train"), ("test", "dev"), ("dev", "train")):
        shared = parts[one].keys() & parts[other].keys()
        if shared:
            raise MmerError(
                f"fold {fold.name}: {_some(told)} holds the turns before, and {one} and {other} share dialogue "
                f"{_some(shared)}; take a stream without history, or another --protocol"
            )


def check_encoders(
    fold: Fold, utterances: Sequence[Utterance], specs: Sequence[StreamSpec], corpus: str, *, allow_leak: bool = False
) -> list[str]:
    """Refuses streams whose encoder was trained on speakers or dialogues of the test part.

    Speakers whom the fold itself has in train are no matter of the encoder, so where it names its dialogues too, those
    alone decide about them (the published split of MELD). An encoder that names no speakers has seen them all.

    Args:
        fold: one fold.
        utterances: all of the cache.
        specs: of the streams that are read.
        corpus: name of the corpus; an encoder of another corpus has seen nobody.
        allow_leak: give what was found as notes to print, instead of an error.

    Raises:
        MmerError: with the stream and whom it has seen.
    """
    found = [
        f"fold {fold.name}: the encoder of {spec.name} {seen}"
        for spec in specs
        if (seen := _seen(fold, utterances, spec.trained_on, corpus))
    ]
    if found and not allow_leak:
        raise MmerError(f"{found[0]}; take an encoder that has not, or --allow-leak")
    return found


def note_speakers(fold: Fold, utterances: Sequence[Utterance]) -> list[str]:
    """Tells of speakers that test shares with train or dev, and of utterances whose speaker nobody knows."""
    test = _values(utterances, fold.test, "speaker")
    shared = test.keys() & _values(utterances, np.concatenate([fold.train, fold.dev]), "speaker").keys()
    notes = [f"fold {fold.name}: {len(shared)} of {len(test)} test speakers are in train or dev"] if shared else []
    unknown = sum(not utterances[index].speaker for part in fold.subsets.values() for index in part.tolist())
    if unknown:
        notes.append(f"fold {fold.name}: {unknown} utterances name no speaker, who may be on both sides")
    return notes


def note_dialogues(folds: Sequence[Fold], utterances: Sequence[Utterance]) -> list[str]:
    """Tells of utterances whose dialogue nobody knows, so that train and dev may share it."""
    used = np.unique(np.concatenate([part for fold in folds for part in fold.subsets.values()])).tolist()
    unknown = sum(not utterances[index].dialogue for index in used)
    if not unknown:
        return []
    return [f"{unknown} of {len(used)} utterances name no dialogue: of these, dev is drawn one by one"]


def note_dev(fold: Fold, classes: Indices, names: Sequence[str]) -> list[str]:
    """Tells of classes that dev lacks; its UA is the mean over the others."""
    counts = np.bincount(classes[fold.dev], minlength=len(names))
    missing = [name for name, count in zip(names, counts, strict=True) if not count]
    return [f"fold {fold.name}: dev has no utterance of class {_some(missing)}"] if missing else []


def note_share(fold: Fold) -> list[str]:
    """Tells where dev, which should be a tenth, is much more or less of what is not test."""
    share = len(fold.dev) / (len(fold.train) + len(fold.dev))
    told = f"fold {fold.name}: dev is {share:.0%} of what is not test, since what it is taken of is so large or small"
    return [] if LEAST_DEV <= share <= MOST_DEV else [told]


def note_twins(fold: Fold, ids: Sequence[str], streams: Sequence[AnyStream]) -> list[str]:
    """Tells of identical recordings on both sides of a split, by what the first speech stream consumed."""
    stream = next((one for one in streams if one.spec.consumes == SPEECH), None)
    if stream is None:
        return []
    digests = {name: _digests(stream, part) for name, part in fold.subsets.items()}
    notes = []
    for one, other in (("test", "train"), ("test", "dev"), ("dev", "train")):
        twins = [
            f"{ids[index]} = {ids[digests[other][digest]]}"
            for digest, index in digests[one].items()
            if digest in digests[other]
        ]
        if twins:
            notes.append(f"fold {fold.name}: recordings of {one} that are in {other} too: {_some(twins)}")
    return notes


def note_transcripts(fold: Fold, utterances: Sequence[Utterance], specs: Sequence[StreamSpec]) -> list[str]:
    """Tells how much of test says, in five words or more, what train or dev says too, where text is read."""
    if not any(spec.consumes == TRANSCRIPT for spec in specs):
        return []
    known = {_said(utterances[index].text) for part in (fold.train, fold.dev) for index in part.tolist()}
    test = [_said(utterances[index].text) for index in fold.test.tolist()]
    shared = sum(said in known and len(said) >= SENTENCE for said in test)
    told = f"fold {fold.name}: {shared} of {len(test)} test utterances have a transcript of {SENTENCE} words or more"
    return [f"{told} that train or dev has too"] if shared else []


def _check_apart(fold: Fold, utterances: Sequence[Utterance], column: str, one: str, others: Sequence[str]) -> None:
    mine = _values(utterances, fold.subsets[one], column)
    for other in others:
        theirs = _values(utterances, fold.subsets[other], column)
        shared = sorted(mine.keys() & theirs.keys())
        if shared:
            first = shared[0]
            raise MmerError(
                f"fold {fold.name}: {one} shares {column} {_some(shared)} with {other} "
                f"({utterances[mine[first]].id}, {utterances[theirs[first]].id}); choose another --protocol"
            )


def _values(utterances: Sequence[Utterance], part: Indices, column: str) -> dict[str, int]:
    """Returns each known value of a column with one utterance that has it."""
    values = {str(getattr(utterances[index], column)): index for index in part.tolist()}
    values.pop("", None)
    return values


def _seen(fold: Fold, utterances: Sequence[Utterance], told: Mapping[str, object], corpus: str) -> str:
    """Says what of the test part an encoder was trained on; empty if nothing."""
    if not told or str(told.get("corpus") or corpus).casefold() != corpus.casefold():
        return ""
    speakers, dialogues = _names(told.get("speakers")), _names(told.get("dialogues"))
    if not speakers and not dialogues:
        return f"was trained on {corpus}, nobody says on which speakers"
    test = _values(utterances, fold.test, "dialogue")
    if shared := dialogues & test.keys():
        return f"has seen dialogue {_some(shared)} of test"
    shared = speakers & _values(utterances, fold.test, "speaker").keys()
    if dialogues and test:
        shared -= _values(utterances, fold.train, "speaker").keys()
    return f"has seen speaker {_some(shared)} of test" if shared else ""


def _names(told: Any) -> set[str]:
    return {str(name) for name in told} if isinstance(told, list | tuple | set) else set()


@lru_cache(1 << 17)  # of every fold and every combination of a grid
def _said(text: str) -> tuple[str, ...]:
    """Gives the words of a transcript without event tags, in lower case."""
    return tuple(WORD.findall(EVENT.sub(" ", text).lower().replace("\u2019", "'")))


def _digests(stream: AnyStream, part: Indices) -> dict[bytes, int]:
    state, digests = stream.state, stream.input_digest
    return {bytes(digests[index]): index for index in part.tolist() if state[index] == COMMITTED}


def _some(names: Sequence[str] | set[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - NAMED} more" if len(ordered) > NAMED else ""
    return ", ".join(ordered[:NAMED]) + more
