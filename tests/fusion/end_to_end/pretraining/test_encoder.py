"""The encoder is found by source or by the name of its streams; each input that cannot be used is one clear line."""

import shutil
from pathlib import Path

import pytest
from transformers import HubertModel, Wav2Vec2ForCTC

from cache.errors import MmerError
from cache.joined import open_cache
from featurize.encoders.catalog import EncoderRequest
from fusion.end_to_end.pretraining.encoder import CONV, WAVE, find_request, load_start
from tests.support.checkpoints import QUANTIZER_SIZE, altered, changed, saved
from tests.support.pretraining import featurize_sessions
from tests.support.runs import write_cache
from tests.support.voices import write_voices


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a quantizer."""
    return saved(tmp_path_factory.mktemp("encoders") / "mine", **QUANTIZER_SIZE)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voices(tmp_path_factory.mktemp("voices") / "tones", "abc")


@pytest.fixture(scope="module")
def cache(manifest: Path, folder: Path) -> Path:
    """A cache of the built-in encoder and of that checkpoint, as ``pre``; ``last`` has no convolutional features."""
    encoders = ["wav2vec2-tiny@conv", f"pre={folder}@conv", "last=wav2vec2-tiny"]
    return featurize_sessions(manifest, manifest.parent.parent / "a.h5", *encoders)


def error_of(cache: Path, text: str, start: str = CONV) -> str:
    opened = open_cache(cache)
    with pytest.raises(MmerError) as caught:
        load_start(opened, find_request(opened, text), start, seed=0)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "name", "source"),
    [
        ("wav2vec2-tiny", "wav2vec2-tiny", "wav2vec2-tiny"),
        ("wav2vec2-tiny@conv", "wav2vec2-tiny", "wav2vec2-tiny"),
        ("last", "last", "wav2vec2-tiny"),
        ("a=facebook/wav2vec2-base", "a", "facebook/wav2vec2-base"),
    ],
)
def test_an_encoder_is_found_by_its_source_or_the_name_of_its_streams(
    cache: Path, text: str, name: str, source: str
) -> None:
    request = find_request(open_cache(cache), text)
    assert (request.name, request.source) == (name, source)


def test_a_folder_is_found_by_name_and_path(cache: Path, folder: Path) -> None:
    opened = open_cache(cache)
    start = load_start(opened, find_request(opened, f"pre={folder}"), CONV, seed=0)
    assert (start.name, start.source, start.normalize) == ("pre", "mine", False)
    assert start.stream.spec.name == "pre@conv"


def test_the_path_of_a_folder_must_be_given(cache: Path) -> None:
    assert error_of(cache, "pre") == (
        f"pre was read from a folder named mine, whose path {cache} does not record; pass it as --encoder pre=PATH"
    )


def test_weights_that_are_gone(cache: Path, tmp_path: Path) -> None:
    gone = tmp_path / "some" / "gone"
    assert error_of(cache, f"pre={gone}") == (
        f"folder {gone} of --encoder pre={gone} not found; pass the folder that holds config.json"
    )


def test_an_encoder_that_is_not_known(cache: Path) -> None:
    assert "unknown encoder 'wav2vec2-tyny'; did you mean wav2vec2-tiny" in error_of(cache, "wav2vec2-tyny")


def test_layers_of_an_encoder(cache: Path) -> None:
    assert "leave out @3" in error_of(cache, "wav2vec2-tiny@3")


def test_a_missing_stream_is_answered_by_the_command_that_adds_it(cache: Path) -> None:
    found = error_of(cache, "last")
    assert f"{cache} has no stream last@conv" in found
    assert "mmer-featurize manifest --root" in found
    assert "--encoder last=wav2vec2-tiny@conv, or pass --from wave" in found


def test_other_weights_than_those_of_the_stream(cache: Path, folder: Path, tmp_path: Path) -> None:
    other = altered(folder, tmp_path / "other", changed("encoder.layers.0"))
    found = error_of(cache, f"pre={other}")
    assert f"the weights of {other} are not those that computed pre@conv in {cache}" in found
    assert "of mine); pass the folder of those weights as --encoder pre=PATH" in found


def test_rows_in_int8(manifest: Path, tmp_path: Path) -> None:
    cache = featurize_sessions(manifest, tmp_path / "a.h5", "wav2vec2-tiny@conv", dtype="int8")
    found = error_of(cache, "wav2vec2-tiny")
    assert "wav2vec2-tiny@conv is stored as int8, whose rounding the encoder would learn" in found
    assert f"mmer-cache drop {cache} wav2vec2-tiny@conv, then mmer-featurize" in found


@pytest.mark.parametrize("start", [CONV, WAVE])
def test_an_encoder_without_a_quantizer(manifest: Path, tmp_path: Path, start: str) -> None:
    encoder = saved(tmp_path / "ctc", Wav2Vec2ForCTC)
    cache = featurize_sessions(manifest, tmp_path / "a.h5", f"ctc={encoder}@conv")
    assert f"{encoder} (wav2vec2) has no quantizer, whose codes pre-training predicts" in error_of(
        cache, f"ctc={encoder}", start
    )


def test_hubert_has_no_quantizer(cache: Path, tmp_path: Path) -> None:
    from transformers import HubertConfig

    from tests.support.models import SPEECH_SIZE

    HubertModel(HubertConfig(**SPEECH_SIZE)).save_pretrained(tmp_path / "hubert")
    found = error_of(cache, f"hubert={tmp_path / 'hubert'}", WAVE)
    assert "(hubert) has no quantizer" in found
    assert "wav2vec2-base" in found


@pytest.mark.parametrize("name", ["roberta-tiny", "logmel80", "vit-mel-tiny"])
def test_other_kinds_of_encoders(cache: Path, name: str) -> None:
    assert f"{name} is not a wav2vec 2.0 encoder" in error_of(cache, name, WAVE)


def test_a_cache_without_speech(tmp_path: Path) -> None:
    speech = ["voice", "voice.codes", "logmel80", "vit"]
    cache = write_cache(tmp_path / "text.h5", without=speech)
    assert "has no stream of speech that recordings can be compared with" in error_of(cache, "wav2vec2-tiny", WAVE)


def test_a_missing_mask_embedding_is_drawn_from_the_seed(manifest: Path, tmp_path: Path, folder: Path) -> None:
    without = altered(
        folder,
        tmp_path / "bare",
        lambda weights: {name: one for name, one in weights.items() if "masked_spec_embed" not in name},
    )
    opened = open_cache(featurize_sessions(manifest, tmp_path / "a.h5", f"bare={without}@conv"))
    request = EncoderRequest(name="bare", source=str(without), layers=("conv",))
    drawn = [
        load_start(opened, request, CONV, seed=seed).model.base_model.masked_spec_embed.tolist() for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    shutil.rmtree(without)
