"""Comparison of a cache with the published facts of its corpus: counts, broken clips, duplicates, odd durations."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cache.audit import left_out
from cache.corpus_facts import (
    IEMOCAP_CLASSES,
    IEMOCAP_SESSIONS,
    IEMOCAP_TURNS,
    MELD_DIALOGUES,
    MELD_DIALOGUES_NOTE,
    MELD_EMOTIONS,
    MELD_SENTIMENTS,
    MELD_UTTERANCES,
    PUBLISHED,
    RAVDESS_SPEECH,
    Defect,
    Table,
    broken_clips,
)
from cache.joined import AnyCache, AnyStream
from cache.layout import COMMITTED, FAILED
from cache.stream import SPEECH
from cache.utterance import Utterance, alike_labels, alike_note

SIDES = ("speaker", "session", "split")  # columns by which a protocol puts utterances into different subsets
LONG_S, SHORT_S = 30.0, 0.4  # heads of the papers accept 30 s of speech; less than 0.4 s hardly holds a syllable


@dataclass(frozen=True)
class Finding:
    """One count and its published value; `expected` is None where nothing is published."""

    what: str
    found: int
    expected: int | None
    detail: str = ""

    @property
    def differs(self) -> bool:
        """True where the count differs from the published one."""
        return self.expected is not None and self.found != self.expected


def examine(cache: AnyCache) -> list[Finding]:
    """Lists the findings for a cache, published counts first."""
    corpus = str(cache.header["corpus"].get("name", ""))
    renamed = [str(pair).partition("=")[0] for pair in cache.header["corpus"].get("columns") or ()]
    defects = broken_clips(corpus)
    return [
        *_counted(corpus, cache.utterances, renamed),
        *_alike(cache.utterances),
        *_broken(cache, defects),
        *_twins(cache),
        *_durations(cache.utterances),
        *_coverage(cache, defects),
    ]


def _counted(corpus: str, utterances: Sequence[Utterance], renamed: Sequence[str]) -> list[Finding]:
    """Counts utterances, and compares the columns that are read as the corpus has them with published counts."""
    if "label" in renamed or (corpus not in COUNTS and corpus not in PUBLISHED):
        return _label_counts(utterances)
    if corpus in COUNTS:
        return COUNTS[corpus](utterances)
    releases = PUBLISHED[corpus]
    counts = min(releases, key=lambda counts: abs(counts.utterances - len(utterances)))
    labels, splits = (Counter(getattr(utterance, name) for utterance in utterances) for name in ("label", "split"))
    speakers = {utterance.speaker for utterance in utterances} - {""}
    has_splits = any(splits[name] for name in counts.splits)  # copies of some corpora lack the folders of the split
    return [
        Finding(
            "utterances", len(utterances), counts.utterances, f"release {counts.release}" if counts.release else ""
        ),
        Finding("speakers", len(speakers), counts.speakers),
        *(Finding(name, splits[name], count if has_splits else None) for name, count in counts.splits.items()),
        *(Finding(f"label {name!r}", labels[name], count) for name, count in counts.labels.items()),
        *(
            Finding(f"label {name!r}" if name else "no label", count, None)
            for name, count in sorted(labels.items())
            if name not in counts.labels
        ),
    ]


def _iemocap(utterances: Sequence[Utterance]) -> list[Finding]:
    found = Counter((utterance.session, IEMOCAP_CLASSES.get(utterance.label, "")) for utterance in utterances)
    table = [
        Finding(f"session {session}, {label}", found[session, label], expected)
        for session, classes in IEMOCAP_SESSIONS.items()
        for label, expected in classes.items()
    ]
    sessions = [
        Finding(
            f"session {session}, four classes", sum(found[session, label] for label in classes), sum(classes.values())
        )
        for session, classes in IEMOCAP_SESSIONS.items()
    ]
    total = sum(finding.found for finding in sessions)
    expected = sum(sum(classes.values()) for classes in IEMOCAP_SESSIONS.values())
    return [
        Finding("turns", len(utterances), IEMOCAP_TURNS),
        Finding("four classes (ang, hap + exc, neu, sad)", total, expected),
        *sessions,
        *table,
    ]


def _ravdess(utterances: Sequence[Utterance]) -> list[Finding]:
    speech = [utterance for utterance in utterances if utterance.channel == "speech"]
    songs = len(utterances) - len(speech)
    labels = Counter(utterance.label for utterance in speech)
    speakers = Counter(utterance.speaker for utterance in speech)
    odd = [f"actor {speaker} has {count}" for speaker, count in sorted(speakers.items()) if count != 60]
    return [
        Finding("speech recordings", len(speech), 1440, "; ".join(odd)),
        Finding("song recordings", songs, 1012 if songs else None),
        Finding("actors of the speech part", len(speakers), 24),
        *(Finding(f"speech, {label}", labels[label], expected) for label, expected in RAVDESS_SPEECH.items()),
    ]


def _meld(utterances: Sequence[Utterance]) -> list[Finding]:
    splits = Counter(utterance.split for utterance in utterances)
    dialogues = Counter(split for split, _ in {(utterance.split, utterance.dialogue) for utterance in utterances})
    emotions = Counter((utterance.split, utterance.label) for utterance in utterances)
    sentiments = Counter((utterance.split, utterance.sentiment) for utterance in utterances)
    return [
        Finding("utterances", len(utterances), sum(MELD_UTTERANCES.values())),
        *(Finding(f"{split}, utterances", splits[split], count) for split, count in MELD_UTTERANCES.items()),
        *(
            Finding(f"{split}, dialogues", dialogues[split], count, MELD_DIALOGUES_NOTE.get(split, ""))
            for split, count in MELD_DIALOGUES.items()
        ),
        *_by_split(emotions, MELD_EMOTIONS, "{split}, {label}"),
        *_by_split(sentiments, MELD_SENTIMENTS, "{split}, sentiment {label}"),
    ]


def _by_split(found: Mapping[tuple[str, str], int], table: Table, what: str) -> list[Finding]:
    return [
        Finding(what.format(split=split, label=label), found[split, label], expected)
        for split, counts in table.items()
        for label, expected in counts.items()
    ]


def _label_counts(utterances: Sequence[Utterance]) -> list[Finding]:
    # Quoted, so that white space around a label is seen.
    labels = Counter(f"label {utterance.label!r}" if utterance.label else "no label" for utterance in utterances)
    speakers = len({utterance.speaker for utterance in utterances})
    return [
        Finding("utterances", len(utterances), None),
        Finding("speakers", speakers, None),
        *(Finding(label, count, None) for label, count in sorted(labels.items())),
    ]


COUNTS: Mapping[str, Callable[[Sequence[Utterance]], list[Finding]]] = {
    "iemocap": _iemocap,
    "ravdess": _ravdess,
    "meld": _meld,
}


def _alike(utterances: Sequence[Utterance]) -> list[Finding]:
    groups = alike_labels(utterance.label for utterance in utterances)
    return [Finding("labels alike", len(groups), None, "; ".join(map(alike_note, groups)))] if groups else []


def _broken(cache: AnyCache, defects: Mapping[str, Defect]) -> list[Finding]:
    """Lists the known broken clips without features; a repaired copy has features."""
    failed = {name for stream in cache.streams.values() for name in _failed_clips(cache, stream, defects)}
    detail = "; ".join(f"{name}: {defect.what}" for name, defect in defects.items() if name in failed)
    return [Finding("known broken clips without features", len(failed), None, detail)] if defects else []


def _failed_clips(cache: AnyCache, stream: AnyStream, defects: Mapping[str, Defect]) -> list[str]:
    failed = np.flatnonzero(stream.state == FAILED).tolist() if stream.spec.consumes == SPEECH else []
    return [cache.ids[index] for index in failed if cache.ids[index] in defects]


def _unexpected(cache: AnyCache, stream: AnyStream, defects: Mapping[str, Defect]) -> set[str]:
    """Returns the utterances without rows that cannot be computed, or that get no view."""
    return {*_failed_clips(cache, stream, defects), *(cache.ids[index] for index in left_out(stream))}


def _twins(cache: AnyCache) -> list[Finding]:
    """Finds recordings with identical samples, and those that are on both sides of a split by a column."""
    stream = next((stream for stream in cache.streams.values() if stream.spec.consumes == SPEECH), None)
    if stream is None:
        return []
    by_sound: dict[bytes, list[Utterance]] = defaultdict(list)
    for index in np.flatnonzero(stream.state == COMMITTED).tolist():
        by_sound[bytes(stream.input_digest[index])].append(cache.utterances[index])
    groups = [group for group in by_sound.values() if len(group) > 1]
    crossing = {column: [group for group in groups if len(_values(group, column)) > 1] for column in SIDES}
    return [
        Finding("groups of identical recordings", len(groups), None, "; ".join(map(_group_text, groups))),
        *(
            Finding(f"identical recordings of several {column}s", len(found), None, "; ".join(map(_group_text, found)))
            for column, found in crossing.items()
            if found
        ),
    ]


def _group_text(group: Sequence[Utterance]) -> str:
    """Returns the ids of identical recordings, with the columns in which they differ."""
    ids = " = ".join(utterance.id for utterance in group)
    values = {column: _values(group, column) for column in (*SIDES, "label")}
    differing = [f"{column}s {', '.join(found)}" for column, found in values.items() if len(found) > 1]
    return f"{ids} ({'; '.join(differing)})" if differing else ids


def _values(group: Sequence[Utterance], column: str) -> list[str]:
    return sorted({str(getattr(utterance, column)) for utterance in group} - {""})


def _durations(utterances: Sequence[Utterance]) -> list[Finding]:
    known = {utterance.id: utterance.duration_s for utterance in utterances if utterance.duration_s is not None}
    long = [f"{name} {duration_s:.1f} s" for name, duration_s in known.items() if duration_s > LONG_S]
    short = [f"{name} {duration_s:.2f} s" for name, duration_s in known.items() if duration_s < SHORT_S]
    return [
        Finding(f"longer than {LONG_S:g} s", len(long), None, "; ".join(long[:5])),
        Finding(f"shorter than {SHORT_S:g} s", len(short), None, "; ".join(short[:5])),
    ]


def _coverage(cache: AnyCache, defects: Mapping[str, Defect]) -> list[Finding]:
    """Counts the committed utterances of every stream; known broken clips and left-out views are not expected."""
    return [
        Finding(
            f"committed in {name}",
            int(np.count_nonzero(stream.state == COMMITTED)),
            len(cache.utterances) - len(_unexpected(cache, stream, defects)),
            f"no {'views' if stream.spec.view else 'rows'} of {len(left_out(stream))} utterances"
            if left_out(stream)
            else "",
        )
        for name, stream in cache.streams.items()
    ]
