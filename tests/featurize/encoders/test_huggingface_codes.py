from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import Wav2Vec2ForCTC

from cache.errors import MmerError
from tests.support.checkpoints import altered, changed, keys_of, loaded, saved, without


def without_a_quantizer(original: Path, folder: Path) -> Path:
    return altered(original, folder, without("quantizer", "project_q", "project_hid"))


def as_ctc(original: Path, folder: Path) -> Path:
    del original
    return saved(folder, Wav2Vec2ForCTC, vocab_size=32)


@pytest.mark.parametrize("made", [without_a_quantizer, as_ctc])
def test_a_checkpoint_without_a_quantizer_has_no_codes(
    wav2vec2: Path, tmp_path: Path, made: Callable[[Path, Path], Path]
) -> None:
    folder = made(wav2vec2, tmp_path / "mini")
    found = loaded(folder)
    assert [spec.name for spec in found.speech[0].specs] == ["mini"]
    assert found.speech[0].start_weights == {}
    assert found.notes == ["mini has no quantizer: no codes"]
    assert loaded(folder, codes=False).notes == []
    with pytest.raises(MmerError, match=r"mini has no quantizer, so no codes; use a pre-training checkpoint"):
        loaded(folder, codes=True)


def test_codes_that_are_not_wanted_are_not_made(wav2vec2: Path) -> None:
    found = loaded(wav2vec2, codes=False)
    assert [spec.name for spec in found.speech[0].specs] == ["mini"]
    assert found.speech[0].start_weights == {}
    assert found.notes == []


@pytest.mark.parametrize("part", ["quantizer.weight_proj.bias", "quantizer.codevectors"])
def test_another_quantizer_changes_the_key_of_the_codes(wav2vec2: Path, tmp_path: Path, part: str) -> None:
    found = keys_of(altered(wav2vec2, tmp_path / "mini", changed(part)))
    assert found["mini"] == keys_of(wav2vec2)["mini"]
    assert found["mini.codes"] != keys_of(wav2vec2)["mini.codes"]
