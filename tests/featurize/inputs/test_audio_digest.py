from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from featurize.inputs.audio import cut, load, probe
from tests.support.sounds import load_whole, noise, written


def test_the_digest_is_that_of_the_samples_and_not_of_the_file(tmp_path: Path) -> None:
    sound = noise(3000, 2)
    paths = [written(tmp_path / name, sound) for name in ("a.wav", "b.flac", "c.aiff")]
    paths.append(written(tmp_path / "d.wav", sound, subtype="PCM_24"))
    digests = {load_whole(path).digest for path in paths}
    assert len(digests) == 1
    assert len(digests.pop()) == 16


def test_the_digest_is_that_of_the_span(tmp_path: Path) -> None:
    sound = noise(16_000)
    whole = probe(written(tmp_path / "a.wav", sound))
    part = probe(written(tmp_path / "b.wav", sound[4000:8000]))
    assert load(cut(whole, 0.25, 0.5)).digest == load(cut(part, None, None)).digest
    assert load(cut(whole, 0.25, 0.5)).digest != load(cut(whole, 0.25, 0.6)).digest


@settings(deadline=None, max_examples=30)
@given(index=st.integers(0, 499), channel=st.integers(0, 1))
def test_the_digest_changes_with_any_sample(index: int, channel: int) -> None:
    sound = noise(500, 2)
    changed = sound.copy()
    changed[index, channel] += 1 / (1 << 15)
    with TemporaryDirectory() as folder_name:
        found = [load_whole(written(Path(folder_name) / "a.wav", samples)).digest for samples in (sound, changed)]
    assert found[0] != found[1]


def test_the_digest_changes_with_the_rate_and_the_channels(tmp_path: Path) -> None:
    sound = noise(3000)
    digests = [
        load_whole(written(tmp_path / "a.wav", sound, 16_000)).digest,
        load_whole(written(tmp_path / "b.wav", sound, 32_000)).digest,
        load_whole(written(tmp_path / "c.wav", np.repeat(sound, 2, axis=1))).digest,
        load_whole(written(tmp_path / "d.wav", sound.reshape(1500, 2))).digest,
    ]
    assert len(set(digests)) == 4
