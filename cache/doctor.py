"""Compares a cache with what is known of its corpus: published counts, twin recordings, odd durations.

Counts: IEMOCAP with happy and excited merged, by session, from the index that the MMER repository ships (5531);
turns of the release: 10,039 (Busso et al., 2008, doi:10.1007/s10579-008-9076-6). RAVDESS: Livingstone and Russo,
2018, doi:10.1371/journal.pone.0196391, 60 speech recordings of each of 24 actors, 44 songs of each of 23.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cache.layout import COMMITTED
from cache.store import FeatureCache
from cache.stream import SPEECH
from cache.utterance import Utterance

LONG_S, SHORT_S = 30.0, 0.4  # the papers' heads take 30 s of speech; below 0.4 s there is hardly a syllable


@dataclass(frozen=True)
class Finding:
    """One thing the doctor looked at; `expected` is None where nothing is published."""

    what: str
    found: int
    expected: int | None
    detail: str = ""

    @property
    def differs(self) -> bool:
        """Tells whether the count is not the published one."""
        return self.expected is not None and self.found != self.expected


_IEMOCAP_CLASSES = {"ang": "ang", "hap": "hap", "exc": "hap", "neu": "neu", "sad": "sad"}
_IEMOCAP_COUNTS: Mapping[str, Mapping[str, int]] = {
    "1": {"ang": 229, "hap": 278, "neu": 384, "sad": 194},
    "2": {"ang": 137, "hap": 327, "neu": 362, "sad": 197},
    "3": {"ang": 240, "hap": 286, "neu": 320, "sad": 305},
    "4": {"ang": 327, "hap": 303, "neu": 258, "sad": 143},
    "5": {"ang": 170, "hap": 442, "neu": 384, "sad": 245},
}
_RAVDESS_SPEECH = {
    "neutral": 96,
    "calm": 192,
    "happy": 192,
    "sad": 192,
    "angry": 192,
    "fearful": 192,
    "disgust": 192,
    "surprised": 192,
}


def examine(cache: FeatureCache) -> list[Finding]:
    """Lists the findings for a cache, published counts first."""
    corpus = str(cache.layout.header["corpus"].get("name", ""))
    counts = COUNTS.get(corpus, _label_counts)(cache.utterances)
    return [*counts, *_twins(cache), *_durations(cache.utterances), *_coverage(cache)]


def _iemocap(utterances: Sequence[Utterance]) -> list[Finding]:
    found = Counter((one.session, _IEMOCAP_CLASSES.get(one.label, "")) for one in utterances)
    table = [
        Finding(f"session {session}, {label}", found[session, label], expected)
        for session, classes in _IEMOCAP_COUNTS.items()
        for label, expected in classes.items()
    ]
    sessions = [
        Finding(
            f"session {session}, four classes", sum(found[session, label] for label in classes), sum(classes.values())
        )
        for session, classes in _IEMOCAP_COUNTS.items()
    ]
    total = sum(finding.found for finding in sessions)
    expected = sum(sum(classes.values()) for classes in _IEMOCAP_COUNTS.values())
    return [
        Finding("turns", len(utterances), 10039),
        Finding("four classes (ang, hap + exc, neu, sad)", total, expected),
        *sessions,
        *table,
    ]


def _ravdess(utterances: Sequence[Utterance]) -> list[Finding]:
    speech = [one for one in utterances if one.channel == "speech"]
    songs = len(utterances) - len(speech)
    labels = Counter(one.label for one in speech)
    speakers = Counter(one.speaker for one in speech)
    odd = [f"actor {speaker} has {count}" for speaker, count in sorted(speakers.items()) if count != 60]
    return [
        Finding("speech recordings", len(speech), 1440, "; ".join(odd)),
        Finding("song recordings", songs, 1012 if songs else None),
        Finding("actors of the speech part", len(speakers), 24),
        *(Finding(f"speech, {label}", labels[label], expected) for label, expected in _RAVDESS_SPEECH.items()),
    ]


def _label_counts(utterances: Sequence[Utterance]) -> list[Finding]:
    labels = Counter(one.label or "(no label)" for one in utterances)
    speakers = len({one.speaker for one in utterances})
    return [
        Finding("utterances", len(utterances), None),
        Finding("speakers", speakers, None),
        *(Finding(f"label {label}", count, None) for label, count in sorted(labels.items())),
    ]


COUNTS: Mapping[str, Callable[[Sequence[Utterance]], list[Finding]]] = {"iemocap": _iemocap, "ravdess": _ravdess}


def _twins(cache: FeatureCache) -> list[Finding]:
    """Finds recordings whose samples are the same: they may stand on both sides of a split."""
    for stream in cache.streams.values():
        if stream.spec.consumes == SPEECH:
            groups: dict[bytes, list[str]] = defaultdict(list)
            for index in np.flatnonzero(stream.state == COMMITTED).tolist():
                groups[bytes(stream.input_digest[index])].append(cache.ids[index])
            twins = [ids for ids in groups.values() if len(ids) > 1]
            detail = "; ".join(" = ".join(ids) for ids in twins[:5])
            return [Finding("groups of identical recordings", len(twins), None, detail)]
    return []


def _durations(utterances: Sequence[Utterance]) -> list[Finding]:
    known = {one.id: one.duration_s for one in utterances if one.duration_s is not None}
    long = [f"{name} {duration_s:.1f} s" for name, duration_s in known.items() if duration_s > LONG_S]
    short = [f"{name} {duration_s:.2f} s" for name, duration_s in known.items() if duration_s < SHORT_S]
    return [
        Finding(f"longer than {LONG_S:g} s", len(long), None, "; ".join(long[:5])),
        Finding(f"shorter than {SHORT_S:g} s", len(short), None, "; ".join(short[:5])),
    ]


def _coverage(cache: FeatureCache) -> list[Finding]:
    return [
        Finding(f"committed in {name}", int(np.count_nonzero(stream.state == COMMITTED)), len(cache.utterances))
        for name, stream in cache.streams.items()
    ]
