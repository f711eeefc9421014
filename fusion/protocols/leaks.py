"""Leakage checks: speakers, dialogues and training data of encoders must not be on both sides of a split.

The functions named ``check_...`` raise an `MmerError` that names the fold and the offenders. The functions named
``note_...`` return notes: facts worth printing that are not errors.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from cache.errors import MmerError
from cache.joined import AnyStream
from cache.layout import COMMITTED
from cache.stream import SPEECH, TRANSCRIPT, StreamSpec
from cache.utterance import Utterance
from fusion.arrays import ClassIds, Indices
from fusion.protocols.folds import Fold
from fusion.protocols.known_encoders import seen_corpora

NAMED = 5  # offenders that a message names

# Words of a transcript that count as a sentence. Shorter ones repeat by chance: 21.9% of IEMOCAP's transcripts occur in
# another session, 8.1% of this length.
SENTENCE = 5
WORD, EVENT = re.compile(r"\w+(?:'\w+)*"), re.compile(r"\[[^\]]*\]")
LEAST_DEV, MOST_DEV = 0.05, 0.25  # shares of the utterances outside test that need no note
PAIRS = (("test", "train"), ("test", "dev"), ("dev", "train"))

Check = Callable[[Fold, Sequence[Utterance]], None]


def check_speakers(fold: Fold, utterances: Sequence[Utterance]) -> None:
    """Checks that test shares no speaker with train or dev."""
    _check_disjoint(fold, utterances, "speaker", "test", ("train", "dev"))


def check_dev_speakers(fold: Fold, utterances: Sequence[Utterance]) -> None:
    """Checks that dev shares no speaker with train."""
    _check_disjoint(fold, utterances, "speaker", "dev", ("train",))


def check_dialogues(fold: Fold, utterances: Sequence[Utterance]) -> None:
    """Checks that dev shares no dialogue with train."""
    _check_disjoint(fold, utterances, "dialogue", "dev", ("train",))


def check_subsets(fold: Fold) -> None:
    """Checks that no subset is empty and no utterance is in two subsets."""
    for name, subset in fold.subsets.items():
        if not len(subset):
            raise MmerError(f"fold {fold.name} has no {name} utterance; choose another --protocol")
    indices = np.concatenate(list(fold.subsets.values()))
    if len(np.unique(indices)) < len(indices):
        raise MmerError(f"fold {fold.name} has an utterance in two subsets")


def check_classes(folds: Sequence[Fold], classes: ClassIds, names: Sequence[str]) -> None:
    """Checks that each training subset, and all test subsets together, have utterances of every class."""
    subsets = [(f"fold {fold.name} has no train utterance", fold.train) for fold in folds]
    every_test = np.concatenate([fold.test for fold in folds])
    alone = f"fold {folds[0].name} has no test utterance"
    for problem, subset in [*subsets, (alone if len(folds) == 1 else "no fold has a test utterance", every_test)]:
        if missing := _missing(classes[subset], names):
            raise MmerError(f"{problem} of class {_listed(missing)}; choose another --protocol, or --labels without it")


def check_history(fold: Fold, utterances: Sequence[Utterance], specs: Sequence[StreamSpec]) -> None:
    """Checks that no dialogue is in two subsets if a stream with dialogue history is read."""
    streams = [spec.name for spec in specs if spec.preprocessing.get("history")]
    if not streams:
        return
    dialogues = {name: _values(utterances, subset, "dialogue") for name, subset in fold.subsets.items()}
    for first, second in PAIRS:
        shared = dialogues[first].keys() & dialogues[second].keys()
        if shared:
            raise MmerError(
                f"fold {fold.name}: {_listed(streams)} contains previous turns, and {first} and {second} share "
                f"dialogue {_listed(shared)}; choose a stream without history, or another --protocol"
            )


def check_encoders(
    fold: Fold, utterances: Sequence[Utterance], specs: Sequence[StreamSpec], corpus: str, *, allow_leak: bool = False
) -> list[str]:
    """Checks that no encoder was trained on speakers or dialogues of the test subset.

    An encoder that names neither speakers nor dialogues counts as trained on all of them. If test speakers are in train
    of the fold itself and the encoder names its dialogues, the dialogues alone decide about these speakers (the
    published split of MELD).

    Args:
        fold: one fold.
        utterances: all utterances of the cache.
        specs: streams that are read.
        corpus: name of the corpus; an encoder that was trained on another corpus passes.
        allow_leak: return the findings as notes instead of raising an error.

    Returns:
        Notes on leaking encoders; empty unless `allow_leak` is set.

    Raises:
        MmerError: if an encoder leaks; names the stream and the speakers or dialogues.
    """
    found = [
        f"fold {fold.name}: the encoder of {spec.name} {seen}"
        for spec in specs
        if (seen := _seen_in_test(fold, utterances, spec, corpus))
    ]
    if found and not allow_leak:
        raise MmerError(f"{found[0]}; choose another encoder, or pass --allow-leak")
    return found


def choose_streams(
    fold: Fold,
    utterances: Sequence[Utterance],
    candidates: Mapping[str, Sequence[StreamSpec]],
    corpus: str,
    *,
    allow_leak: bool = False,
) -> tuple[dict[str, str], list[str]]:
    """Chooses, for each role, the stream whose encoder has not seen the test subset of a fold.

    Of several, the one whose encoder was trained on the fold of this name is chosen, else the first.

    Args:
        fold: one fold.
        utterances: all utterances of the cache.
        candidates: role -> specs of its streams.
        corpus: name of the corpus.
        allow_leak: choose the first stream, with a note, if all encoders have seen test speakers.

    Returns:
        Stream by role, and notes on leaking encoders.

    Raises:
        MmerError: if all encoders of a role have seen test speakers or dialogues.
    """
    chosen, notes = {}, []
    for role, specs in candidates.items():
        seen = {spec.name: _seen_in_test(fold, utterances, spec, corpus) for spec in specs}
        unseen = [spec for spec in specs if not seen[spec.name]]
        unseen.sort(key=lambda spec: str(spec.trained_on.get("fold", "")) != fold.name)  # stable: else in their order
        if not unseen:
            notes += check_encoders(fold, utterances, specs[:1], corpus, allow_leak=allow_leak)
        chosen[role] = (unseen or specs)[0].name
    return chosen, notes


def note_speakers(fold: Fold, utterances: Sequence[Utterance]) -> list[str]:
    """Returns notes on speakers that test shares with train or dev, and on utterances without a speaker."""
    test = _values(utterances, fold.test, "speaker")
    shared = test.keys() & _values(utterances, np.concatenate([fold.train, fold.dev]), "speaker").keys()
    notes = [f"fold {fold.name}: {len(shared)} of {len(test)} test speakers are in train or dev"] if shared else []
    unknown = sum(not utterances[index].speaker for subset in fold.subsets.values() for index in subset.tolist())
    if unknown:
        notes.append(f"fold {fold.name}: {unknown} utterances have no speaker; subsets may share speakers")
    return notes


def note_dialogues(folds: Sequence[Fold], utterances: Sequence[Utterance]) -> list[str]:
    """Returns a note on utterances without a dialogue, since train and dev may share their dialogues."""
    used = np.unique(np.concatenate([subset for fold in folds for subset in fold.subsets.values()])).tolist()
    unknown = sum(not utterances[index].dialogue for index in used)
    if not unknown:
        return []
    return [f"{unknown} of {len(used)} utterances have no dialogue: each counts as a dialogue of its own for dev"]


def note_classes(folds: Sequence[Fold], classes: ClassIds, names: Sequence[str]) -> list[str]:
    """Returns notes on classes that a test subset lacks; UA and macro F1 of the fold are over the other classes."""
    notes = [
        f"fold {fold.name}: test has no utterance of class {_listed(missing)}; its UA and M-F1 are means over the "
        "other classes"
        for fold in folds
        if (missing := _missing(classes[fold.test], names))
    ]
    notes += [
        f"{part} has no utterance of class {_listed(missing)}; its UA and M-F1 are means over the other classes"
        for fold in folds
        for part, indices in fold.test_parts.items()
        if (missing := _missing(classes[indices], names))
    ]
    if len(notes) > NAMED:
        more = len(notes) - NAMED
        notes = [*notes[:NAMED], f"{more} more test subsets lack a class; pooled scores are over all classes"]
    return notes


def note_dev(fold: Fold, classes: ClassIds, names: Sequence[str]) -> list[str]:
    """Returns a note on classes without a dev utterance; UA on dev is then the mean over the other classes."""
    missing = _missing(classes[fold.dev], names)
    return [f"fold {fold.name}: dev has no utterance of class {_listed(missing)}"] if missing else []


def note_share(fold: Fold) -> list[str]:
    """Returns a note if a drawn dev is a very small or a large share of the utterances outside test."""
    share = len(fold.dev) / (len(fold.train) + len(fold.dev))
    if not fold.dev_of or LEAST_DEV <= share <= MOST_DEV:
        return []
    share_text = f"dev is {share:.0%} of the utterances outside test"
    return [f"fold {fold.name}: {share_text}, because it consists of whole {fold.dev_of}"]


def note_twins(fold: Fold, ids: Sequence[str], streams: Sequence[AnyStream]) -> list[str]:
    """Returns notes on identical recordings in two subsets, by the input digests of the first speech stream.

    Args:
        fold: one fold.
        ids: ids of all utterances of the cache.
        streams: streams that are read.
    """
    stream = next((stream for stream in streams if stream.spec.consumes == SPEECH), None)
    if stream is None:
        return []
    digests = {name: _digests(stream, subset) for name, subset in fold.subsets.items()}
    notes = []
    for first, second in PAIRS:
        twins = [
            f"{ids[index]} = {ids[digests[second][digest]]}"
            for digest, index in digests[first].items()
            if digest in digests[second]
        ]
        if twins:
            notes.append(f"fold {fold.name}: identical recordings in {first} and {second}: {_listed(twins)}")
    return notes


def note_transcripts(fold: Fold, utterances: Sequence[Utterance], specs: Sequence[StreamSpec]) -> list[str]:
    """Returns a note on test transcripts that also occur in train or dev, if transcripts are read.

    Only transcripts of `SENTENCE` words or more count.
    """
    if not any(spec.consumes == TRANSCRIPT for spec in specs):
        return []
    known = {_words(utterances[index].text) for subset in (fold.train, fold.dev) for index in subset.tolist()}
    test = [_words(utterances[index].text) for index in fold.test.tolist()]
    shared = sum(words in known and len(words) >= SENTENCE for words in test)
    if not shared:
        return []
    return [
        f"fold {fold.name}: {shared} of {len(test)} test utterances have a transcript of {SENTENCE} words or more "
        "that train or dev has too"
    ]


def _missing(classes: ClassIds, names: Sequence[str]) -> list[str]:
    """Returns the names of the classes that do not occur."""
    counts = np.bincount(classes, minlength=len(names))
    return [name for name, count in zip(names, counts, strict=True) if not count]


def _check_disjoint(
    fold: Fold, utterances: Sequence[Utterance], column: str, subset: str, others: Sequence[str]
) -> None:
    values = _values(utterances, fold.subsets[subset], column)
    for other in others:
        other_values = _values(utterances, fold.subsets[other], column)
        shared = sorted(values.keys() & other_values.keys())
        if shared:
            first = shared[0]
            raise MmerError(
                f"fold {fold.name}: {subset} shares {column} {_listed(shared)} with {other} "
                f"({utterances[values[first]].id}, {utterances[other_values[first]].id}); choose another --protocol"
            )


def _values(utterances: Sequence[Utterance], subset: Indices, column: str) -> dict[str, int]:
    """Returns each known value of a column with the position of an utterance that has it."""
    values = {str(getattr(utterances[index], column)): index for index in subset.tolist()}
    values.pop("", None)
    return values


def _seen_in_test(fold: Fold, utterances: Sequence[Utterance], spec: StreamSpec, corpus: str) -> str:
    """Returns a phrase on speakers or dialogues of test that an encoder was trained on; empty if there are none.

    Its record may hold that of an earlier training.
    """
    trained_on, earlier = spec.trained_on, spec.trained_on.get("earlier")
    if isinstance(earlier, Mapping) and (
        seen := _seen_in_test(fold, utterances, replace(spec, trained_on=earlier), corpus)
    ):
        return seen
    if not trained_on and corpus.casefold() in seen_corpora(spec.source):
        return f"({spec.source}) was trained on {corpus}, on speakers unknown to mmer"
    if not trained_on or str(trained_on.get("corpus") or corpus).casefold() != corpus.casefold():
        return ""
    speakers, dialogues = _name_set(trained_on.get("speakers")), _name_set(trained_on.get("dialogues"))
    if not speakers and not dialogues:
        return f"was trained on unknown speakers of {corpus}"
    test = _values(utterances, fold.test, "dialogue")
    if shared := dialogues & test.keys():
        return f"has seen dialogue {_listed(shared)} of test"
    shared = speakers & _values(utterances, fold.test, "speaker").keys()
    if dialogues and test:
        shared -= _values(utterances, fold.train, "speaker").keys()
    return f"has seen speaker {_listed(shared)} of test" if shared else ""


def _name_set(names: object) -> set[str]:
    return {str(name) for name in names} if isinstance(names, list | tuple | set) else set()


@lru_cache(1 << 17)  # enough for all transcripts; every fold and combination of a grid calls it again
def _words(text: str) -> tuple[str, ...]:
    """Returns the words of a transcript in lower case, without event tags."""
    return tuple(WORD.findall(EVENT.sub(" ", text).lower().replace("\u2019", "'")))


def _digests(stream: AnyStream, subset: Indices) -> dict[bytes, int]:
    """Returns the input digest of each committed utterance of a subset, with its position."""
    state, digests = stream.state, stream.input_digest
    return {bytes(digests[index]): index for index in subset.tolist() if state[index] == COMMITTED}


def _listed(names: Sequence[str] | set[str]) -> str:
    """Formats the first names in sorted order, and the number of the others."""
    ordered = sorted(names)
    more = f" and {len(ordered) - NAMED} more" if len(ordered) > NAMED else ""
    return ", ".join(ordered[:NAMED]) + more
