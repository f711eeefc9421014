"""Convolutional features of a cache, and recordings that must be those of the cache."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from cache.errors import MmerError
from cache.joined import open_cache
from featurize.encoders.tiny import build_wav2vec2_tiny
from fusion.end_to_end.pretraining.model import PretrainingModel
from fusion.end_to_end.pretraining.sources import ConvFeatures, Recordings
from tests.support.models import CPU
from tests.support.pretraining import featurize_sessions, write_sessions
from tests.support.voices import RATE_HZ, tone

CHOSEN = np.array([0, 3, 20])
CONV = "wav2vec2-tiny@conv"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    manifest = write_sessions(tmp_path_factory.mktemp("sessions") / "tones")
    return featurize_sessions(manifest, manifest.parent.parent / "a.h5", dtype="float32")


def recordings(cache: Path, root: Path) -> Recordings:
    opened = open_cache(cache)
    config = build_wav2vec2_tiny().config
    return Recordings(opened, opened.stream(CONV), root, CHOSEN, model=config, normalize=True, device=CPU)


def test_recordings_and_cached_features_lead_to_the_same_convolutional_features(corpus: Path) -> None:
    waves = recordings(corpus, corpus.parent / "tones")
    rows = ConvFeatures(open_cache(corpus), CONV, CHOSEN, device=CPU, resident_share=0.5)
    assert waves.frames(CHOSEN).tolist() == rows.frames(CHOSEN).tolist()
    model = PretrainingModel(build_wav2vec2_tiny(), wave=True).eval()
    (wave,), (row,) = waves.batches([CHOSEN]), rows.batches([CHOSEN])
    assert list(wave.frames) == list(row.frames)
    with torch.inference_mode():
        normed = model.convolved(wave)
    for index, frames in enumerate(row.frames):
        torch.testing.assert_close(normed[index, :frames], row.values[index, :frames], rtol=1e-5, atol=1e-5)


def test_many_batches_come_in_order(corpus: Path) -> None:
    waves = recordings(corpus, corpus.parent / "tones")
    groups = [CHOSEN[:1], CHOSEN[1:], CHOSEN[::-1], CHOSEN[:2], CHOSEN[2:]]
    found = [list(batch.frames) for batch in waves.batches(groups)]
    assert found == [waves.frames(group).tolist() for group in groups]


def test_a_changed_recording_is_refused(corpus: Path, tmp_path: Path) -> None:
    for source in (corpus.parent / "tones").glob("*.wav"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    soundfile.write(tmp_path / "u03.wav", tone(0.29, seed=99), RATE_HZ)
    with pytest.raises(MmerError, match=r"the recording of u03 is not the one of .*a.h5 \(it has changed since"):
        recordings(corpus, tmp_path)


def test_the_table_of_a_manifest_stands_for_its_folder(corpus: Path) -> None:
    waves = recordings(corpus, corpus.parent / "tones" / "corpus.csv")
    assert f"3 recordings below {corpus.parent / 'tones'} are read" in waves.describe()


def test_missing_recordings_are_counted(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(
        MmerError,
        match=r"the recording of u00 and 2 more is not .*\(missing: not found \(tried .*\)\); pass the folder of",
    ):
        recordings(corpus, tmp_path)
