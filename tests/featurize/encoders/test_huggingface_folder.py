import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import HubertConfig, HubertForCTC, Wav2Vec2ForPreTraining, WavLMConfig, WavLMModel

from cache.errors import MmerError
from featurize.encoders.huggingface import weights_digest
from tests.support.checkpoints import keys_of, loaded, speech_of
from tests.support.models import SPEECH_SIZE


def test_a_folder_gives_frames_codes_and_what_heads_start_from(wav2vec2: Path) -> None:
    found = loaded(wav2vec2)
    (encoder,) = found.speech
    model = Wav2Vec2ForPreTraining.from_pretrained(wav2vec2)
    assert [spec.name for spec in encoder.specs] == ["mini", "mini.codes"]
    assert encoder.specs[0].source == "mini"
    assert encoder.specs[0].revision == ""
    assert encoder.specs[0].weights == weights_digest(model.wav2vec2)
    assert encoder.specs[0].preprocessing["normalize"] is False
    assert found.notes == []
    np.testing.assert_array_equal(encoder.start_weights["codevectors"], model.quantizer.codevectors[0].detach())
    np.testing.assert_array_equal(encoder.start_weights["project_hid.bias"], model.project_hid.bias.detach())
    assert set(encoder.start_weights) == {
        "codevectors",
        *(f"{part}.{name}" for part in ("project_q", "project_hid") for name in ("weight", "bias")),
    }


def test_a_folder_gives_the_features_of_the_model_saved_in_it(wav2vec2: Path) -> None:
    wave = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    model = Wav2Vec2ForPreTraining.from_pretrained(wav2vec2)  # in eval mode
    with torch.inference_mode():
        expected = model.wav2vec2(torch.from_numpy(wave)[None]).last_hidden_state[0].numpy()
    np.testing.assert_allclose(speech_of(wav2vec2).encode([wave])[0][0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("configuration", "model"), [(HubertConfig, HubertForCTC), (WavLMConfig, WavLMModel)], ids=["hubert", "wavlm"]
)
def test_hubert_and_wavlm_load(tmp_path: Path, configuration: Any, model: Any) -> None:
    torch.manual_seed(0)
    original = model(configuration(**SPEECH_SIZE)).eval()
    original.save_pretrained(tmp_path / "mini")
    base = getattr(original, "hubert", original)
    (encoder,) = loaded(tmp_path / "mini").speech
    assert encoder.specs[0].weights == weights_digest(base)
    wave = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    normed = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
    with torch.inference_mode():
        expected = base(torch.from_numpy(normed)[None]).last_hidden_state[0].numpy()
    np.testing.assert_allclose(encoder.encode([wave])[0][0], expected, atol=1e-5)


def test_a_checkpoint_that_does_not_say_how_it_normalizes_is_noted(wav2vec2: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(wav2vec2, tmp_path / "mini")
    (copy / "preprocessor_config.json").unlink()
    found = loaded(copy)
    assert found.speech[0].specs[0].preprocessing["normalize"] is True
    assert found.notes == ["mini has no preprocessor_config.json: utterances are normalized, which is the default"]


def test_a_damaged_preprocessor_config_is_an_error_and_not_the_default(wav2vec2: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(wav2vec2, tmp_path / "mini")
    (copy / "preprocessor_config.json").write_text('{"do_normalize": fal')
    with pytest.raises(MmerError, match=r"preprocessor_config\.json"):
        loaded(copy)


def test_what_a_checkpoint_was_trained_on_enters_the_spec_but_not_the_key(wav2vec2: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(wav2vec2, tmp_path / "mini")
    seen = {"corpus": "iemocap", "speakers": ["Ses01F", "Ses01M"], "dialogues": ["Ses01F_impro01"]}
    (copy / "trained_on.json").write_text(json.dumps(seen))
    assert [spec.trained_on for spec in speech_of(copy).specs] == [seen, seen]
    assert keys_of(copy) == keys_of(wav2vec2)
    assert speech_of(wav2vec2).specs[0].trained_on == {}


@pytest.mark.parametrize("text", ['{"corpus": ', "[]", '["iemocap"]', '"iemocap"', "null"])
def test_a_trained_on_file_that_says_nothing_is_refused(wav2vec2: Path, tmp_path: Path, text: str) -> None:
    copy = shutil.copytree(wav2vec2, tmp_path / "mini")
    (copy / "trained_on.json").write_text(text)
    with pytest.raises(MmerError, match=r"trained_on\.json"):
        loaded(copy)
