"""Checkpoint folders of the speech families other than wav2vec 2.0."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import (
    Data2VecAudioForCTC,
    Data2VecAudioModel,
    Wav2Vec2ConformerForCTC,
    Wav2Vec2ConformerForPreTraining,
    Wav2Vec2FeatureExtractor,
)

from cache.errors import MmerError
from tests.support.checkpoints import QUANTIZER_SIZE, altered, changed, keys_of, loaded, speech_of, without
from tests.support.models import SPEECH_FAMILIES, SPEECH_SIZE, alone, last_of, lively, waveforms, worst

POSITIONS = ("conformer", "conformer-rope")


def config_of(family: str, **more: Any) -> Any:
    configuration, _, particular = SPEECH_FAMILIES[family]
    return configuration(**{**SPEECH_SIZE, "feat_extract_norm": "layer", **particular, **more})


def saved(folder: Path, family: str, model: Any, **more: Any) -> tuple[Path, Any]:
    built = lively(model, config_of(family, **more))
    built.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return folder, built


@pytest.fixture(scope="module", params=POSITIONS)
def conformer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp(request.param) / "mini"
    return saved(folder, request.param, Wav2Vec2ConformerForPreTraining, **QUANTIZER_SIZE)


def test_a_conformer_gives_frames_codes_and_what_heads_start_from(conformer: tuple[Path, Any]) -> None:
    folder, model = conformer
    encoder = speech_of(folder)
    (wave,) = waveforms([9000])
    frames, codes = encoder.encode([wave])[0]
    assert [spec.name for spec in encoder.specs] == ["mini", "mini.codes"]
    assert worst([frames], [last_of(alone(model.wav2vec2_conformer, wave, normalize=True))]) <= 1e-5
    assert codes.shape == (len(frames), 2)
    np.testing.assert_array_equal(encoder.start_weights["codevectors"], model.quantizer.codevectors[0].detach())


def test_the_convolution_that_a_conformer_never_reads_may_be_any_or_absent(
    conformer: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, _ = conformer
    other = altered(folder, tmp_path / "other" / "mini", changed("pos_conv_embed"))
    lacking = altered(folder, tmp_path / "lacking" / "mini", without("wav2vec2_conformer.encoder.pos_conv_embed"))
    assert keys_of(other) == keys_of(lacking) == keys_of(folder)


@pytest.mark.parametrize("part", ["conv_module.depthwise_conv.weight", "batch_norm.running_mean", "self_attn.linear_q"])
def test_every_other_part_of_a_conformer_enters_the_key(conformer: tuple[Path, Any], tmp_path: Path, part: str) -> None:
    folder, _ = conformer
    assert keys_of(altered(folder, tmp_path / "mini", changed(part)))["mini"] != keys_of(folder)["mini"]


def test_a_conformer_that_lacks_weights_is_refused(conformer: tuple[Path, Any], tmp_path: Path) -> None:
    lost = "wav2vec2_conformer.encoder.layers.1.conv_module.depthwise_conv"
    with pytest.raises(MmerError, match=r"lacks 1 weights \(first: wav2vec2_conformer\.encoder\.layers\.1"):
        loaded(altered(conformer[0], tmp_path / "mini", without(lost)))


def test_the_kind_of_positions_enters_the_key(tmp_path: Path) -> None:
    rotary, _ = saved(tmp_path / "rotary" / "mini", "conformer-rope", Wav2Vec2ConformerForCTC, vocab_size=32)
    other, _ = saved(
        tmp_path / "other" / "mini",
        "conformer-rope",
        Wav2Vec2ConformerForCTC,
        vocab_size=32,
        rotary_embedding_base=500,
    )
    assert keys_of(rotary)["mini"] != keys_of(other)["mini"]
    assert loaded(rotary).notes == ["mini has no quantizer: no codes"]


@pytest.mark.parametrize("model", [Data2VecAudioModel, Data2VecAudioForCTC])
def test_data2vec_gives_the_features_of_the_model_saved_in_it(tmp_path: Path, model: Any) -> None:
    folder, built = saved(tmp_path / "mini", "data2vec", model)
    waves = waveforms([9000, 1200])
    expected = [last_of(alone(built.base_model, wave, normalize=True)) for wave in waves]
    found = [rows[0] for rows in speech_of(folder).encode(waves)]
    assert worst(found, expected) <= 1e-5
    assert loaded(folder).notes == ["mini has no quantizer: no codes"]
