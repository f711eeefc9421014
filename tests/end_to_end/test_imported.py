"""Features of another toolkit in a cache that mmer-featurize goes on with: they stay, and nobody doubts them."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from cache.audit import verify, verify_recordings
from cache.doctor import examine
from cache.errors import MmerError
from cache.packs.catalog import open_pack
from cache.packs.importing import import_pack
from cache.packs.third_party import ImportOptions
from cache.store import FeatureCache
from featurize.extraction.staleness import current_audio_digests
from tests.support.packs import everything, frames, write_emotion2vec
from tests.support.voices import RATE_HZ, featurized, tone

NAME = "emotion2vec"


def add(cache: Path, folder: Path, *, role: str = "audio") -> None:
    """Imports features of all recordings, in another order."""
    arrays = {name: frames(5 + place, seed=place) for place, name in enumerate("fbdace")}
    import_pack(open_pack(write_emotion2vec(folder, arrays), ImportOptions(role=role)), cache)


@pytest.mark.parametrize("role", ["audio", "text"])
def test_a_later_run_keeps_what_was_imported(corpus: Path, cache: Path, tmp_path: Path, role: str) -> None:
    add(cache, tmp_path / "feats", role=role)
    before = everything(cache)
    featurized(corpus, cache, encoders=("mfcc39",), audio_only=True)
    after = everything(cache)
    assert after["streams"].pop("mfcc39")
    assert after == before
    opened = FeatureCache(cache)
    assert verify(opened) == []
    assert verify_recordings(opened, current_audio_digests(corpus.parent)) == []
    for place, name in enumerate("fbdace"):
        rows = opened.stream(NAME).read(opened.ids.index(name))
        np.testing.assert_array_equal(rows, frames(5 + place, seed=place))


def test_a_changed_recording_recomputes_everything_but_what_was_imported(
    corpus: Path, cache: Path, tmp_path: Path
) -> None:
    add(cache, tmp_path / "feats")
    before = everything(cache)["streams"]
    soundfile.write(corpus.parent / "b.wav", tone(0.3, pitch_hz=120, seed=99), RATE_HZ)
    featurized(corpus, cache)
    after = everything(cache)["streams"]
    assert after[NAME] == before[NAME]
    assert after["logmel80"] != before["logmel80"]


def test_no_recording_is_decoded_for_what_was_imported(corpus: Path, tmp_path: Path) -> None:
    folder = write_emotion2vec(tmp_path / "feats", {name: frames(3, seed=ord(name)) for name in "abcdef"})
    import_pack(open_pack(folder), tmp_path / "a.h5", corpus="manifest")
    (corpus.parent / "c.wav").write_bytes(b"")
    before = everything(tmp_path / "a.h5")["streams"][NAME]
    featurized(corpus, tmp_path / "a.h5", encoders=("mfcc39",), audio_only=True)
    assert everything(tmp_path / "a.h5")["streams"][NAME] == before


def test_features_of_utterances_that_left_are_not_lost_silently(corpus: Path, cache: Path, tmp_path: Path) -> None:
    add(cache, tmp_path / "feats")
    with pytest.raises(MmerError, match=r"holds features of 3 utterances that this run would drop"):
        featurized(corpus, cache, limit=3)


def test_the_doctor_finds_no_twins_among_different_features(cache: Path, tmp_path: Path) -> None:
    add(cache, tmp_path / "feats")
    found = {one.what: one.found for one in examine(FeatureCache(cache))}
    assert found["groups of identical recordings"] == 0
    assert found[f"committed in {NAME}"] == 6


def test_replace_computes_a_stream_that_was_imported_under_its_name(corpus: Path, tmp_path: Path) -> None:
    folder = write_emotion2vec(tmp_path / "feats", {name: frames(3, seed=ord(name)) for name in "abcdef"})
    import_pack(open_pack(folder), tmp_path / "a.h5", streams=(f"wav2vec2-tiny={NAME}",), corpus="manifest")
    featurized(corpus, tmp_path / "a.h5", encoders=("wav2vec2-tiny",), mel=False, audio_only=True, replace=True)
    stream = FeatureCache(tmp_path / "a.h5").stream("wav2vec2-tiny")
    assert not stream.spec.imported
    assert (stream.state == 1).all()
