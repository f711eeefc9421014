"""Whatever happens to a corpus and its cache, in whatever order: the file ends as that of a fresh run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cache.audit import verify
from cache.layout import read_weights
from cache.rebuild import drop_stream
from cache.store import FeatureCache, Stream
from tests.support.voices import RATE_HZ, featurized, tone, write_corpus

RUNS: Mapping[str, Mapping[str, Any]] = {
    "sound": {"encoders": ("mfcc39",), "mel": False, "audio_only": True},
    "mel": {"encoders": ("logmel80",), "audio_only": True},
    "text": {"encoders": ("roberta-tiny@4",), "mel": False},
    "history": {"encoders": ("roberta-tiny",), "mel": False, "history": 2},
}
STREAMS: Mapping[str, Sequence[str]] = {  # CTC targets come with every run that reads transcripts and belong to none
    "sound": ("mfcc39",),
    "mel": ("logmel80",),
    "text": ("roberta-tiny@4", "roberta-tiny.tokens"),
    "history": ("roberta-tiny+history2", "roberta-tiny+history2.tokens"),
}


@dataclass
class World:
    """A corpus as it is now: recording and words of each utterance, and which runs its cache is to hold."""

    folder: Path
    sounds: dict[str, int] = field(default_factory=lambda: dict.fromkeys("abc", 0))
    words: dict[str, int] = field(default_factory=lambda: dict.fromkeys("abc", 0))
    runs: list[str] = field(default_factory=lambda: ["sound", "text"])
    limit: int | None = None

    def write(self) -> Path:
        for name, take in self.sounds.items():
            seconds = 0.1 + 0.03 * (ord(name) % 5 + take)
            soundfile.write(self.folder / f"{name}.wav", tone(seconds, seed=take), RATE_HZ)
        rows = [
            {"id": name, "text": f"we know {take}" * (take != 2), "dialogue": "d", "turn": ord(name)}
            for name, take in self.words.items()
        ]
        return write_corpus(self.folder, rows)

    def featurize(self, cache: Path, runs: Sequence[str]) -> None:
        manifest = self.write()
        for run in runs:
            featurized(manifest, cache, **RUNS[run], limit=self.limit, replace=True)


CHANGES = st.one_of(
    st.tuples(st.sampled_from(["record", "rewrite", "add", "remove"]), st.sampled_from("abcde")),
    st.tuples(st.just("limit"), st.sampled_from([None, 2, 3])),
    st.tuples(st.sampled_from(["run", "drop"]), st.sampled_from(list(RUNS))),
)


def apply(world: World, cache: Path, what: str, which: Any) -> None:
    """Changes the corpus, or runs or drops an encoder on the way."""
    if what == "record" and which in world.sounds:
        world.sounds[which] += 1
    elif what == "rewrite" and which in world.words:
        world.words[which] += 1
    elif what == "add" and which not in world.words:
        world.sounds[which] = world.words[which] = 0
    elif what == "remove" and which in world.words and len(world.words) > 2:
        del world.sounds[which], world.words[which]
    elif what == "limit":
        world.limit = which
    elif what == "run":
        world.runs += [which] * (which not in world.runs)
        world.featurize(cache, [which])
    elif what == "drop" and which in world.runs and len(world.runs) > 1 and cache.exists():
        world.runs.remove(which)
        for stream in set(STREAMS[which]) & set(FeatureCache(cache).streams):
            if len(FeatureCache(cache).streams) > 1:
                drop_stream(cache, stream)


def assert_same(found: Stream, expected: Stream) -> None:
    """Compares two streams; transcripts share batches with others, which moves the last bit of a value."""
    assert found.key == expected.key
    for name in ("state", "input_digest", "lengths"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for index in range(len(expected)):
        assert found.reason(index) == expected.reason(index)
        one, other = found.stored(index).values, expected.stored(index).values
        np.testing.assert_allclose(one.astype(np.float64), other.astype(np.float64), rtol=2e-3, atol=2e-3)


@example([("record", "a"), ("rewrite", "b"), ("add", "d"), ("run", "mel")])  # every kind of change, and a few at random
@example([("limit", 2), ("run", "history"), ("remove", "c"), ("drop", "sound"), ("limit", None)])
@settings(max_examples=2)
@given(st.lists(CHANGES, min_size=2, max_size=4))
def test_any_sequence_of_changes_ends_in_the_file_of_a_fresh_run(changes: Sequence[tuple[str, Any]]) -> None:
    with TemporaryDirectory() as folder:
        world, changed, fresh = World(Path(folder)), Path(folder) / "changed.h5", Path(folder) / "fresh.h5"
        world.featurize(changed, world.runs)
        for what, which in changes:
            apply(world, changed, what, which)
        world.featurize(changed, world.runs)
        world.featurize(fresh, world.runs)
        found, expected = FeatureCache(changed), FeatureCache(fresh)
        assert found.utterances == expected.utterances
        for name, stream in expected.streams.items():
            assert_same(found.stream(name), stream)
        assert set(found.streams) - set(expected.streams) <= {"ctc.chars"}
        assert read_weights(changed).keys() == read_weights(fresh).keys()
        assert verify(found) == []
