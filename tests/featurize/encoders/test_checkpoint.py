import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertModel,
    HubertConfig,
    HubertForCTC,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    ViTConfig,
    ViTModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2ForPreTraining,
    WavLMConfig,
    WavLMModel,
)

from cache.errors import MmerError
from featurize.encoders.base import SpeechInput, TextInput
from featurize.encoders.catalog import parse_requests
from featurize.encoders.checkpoint import load_speech, load_text, open_checkpoint, weights_digest
from featurize.encoders.load import Encoders, load_encoders
from featurize.encoders.options import EncodingOptions

CPU = torch.device("cpu")
SPEECH_SIZE: Mapping[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
QUANTIZER_SIZE = {"codevector_dim": 16, "proj_codevector_dim": 16, "num_codevectors_per_group": 20}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "i", "know", "the", "garden", "##s", "."]
TEXT_SIZE: Mapping[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
WEIGHTS = "model.safetensors"
REVISION = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = Path(__file__).parents[3]

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-training checkpoint with its quantizer."""
    return saved(tmp_path_factory.mktemp("checkpoint") / "mini", Wav2Vec2ForPreTraining, **QUANTIZER_SIZE)


def saved(folder: Path, model: Any = Wav2Vec2ForPreTraining, **how: Any) -> Path:
    torch.manual_seed(0)
    model(Wav2Vec2Config(**{**SPEECH_SIZE, **how})).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return folder


def altered(original: Path, folder: Path, change: Callable[[Weights], Weights], *, as_bin: bool = False) -> Path:
    """Copies a checkpoint with other weights."""
    shutil.copytree(original, folder, ignore=shutil.ignore_patterns(WEIGHTS))
    weights = change(load_file(original / WEIGHTS))
    if as_bin:
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def same(weights: Weights) -> Weights:
    return weights


def with_old_names(weights: Weights) -> Weights:
    new = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    found = dict(weights)
    for later, before in new.items():
        found = {name.replace(later, before): tensor for name, tensor in found.items()}
    assert found.keys() != weights.keys()
    return found


def without(*parts: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: one for name, one in weights.items() if not name.startswith(parts)}


def changed(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: one + 1 if part in name else one for name, one in weights.items()}


def speech_digest_of(folder: Path) -> str:
    return weights_digest(load_speech(open_checkpoint(str(folder))).base)


def loaded(source: Path | str, **options: Any) -> Encoders:
    return load_encoders(parse_requests([str(source)]), EncodingOptions(device=CPU, **options))


def speech_of(source: Path | str, **options: Any) -> SpeechInput:
    (encoder,) = loaded(source, **options).speech
    return encoder


def keys_of(source: Path | str) -> dict[str, str]:
    return {spec.name: spec.key for spec in speech_of(source).specs}


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


@pytest.mark.parametrize("rename", [same, with_old_names], ids=["today's names", "weight_g and weight_v"])
@pytest.mark.parametrize("as_bin", [False, True], ids=["safetensors", "bin"])
def test_the_digest_does_not_depend_on_the_format_of_the_file(
    wav2vec2: Path, tmp_path: Path, rename: Callable[[Weights], Weights], *, as_bin: bool
) -> None:
    copy = altered(wav2vec2, tmp_path / "mini", rename, as_bin=as_bin)
    assert speech_digest_of(copy) == speech_digest_of(wav2vec2)
    assert keys_of(copy) == keys_of(wav2vec2)


def test_the_digest_does_not_depend_on_how_the_file_is_split(wav2vec2: Path, tmp_path: Path) -> None:
    Wav2Vec2ForPreTraining.from_pretrained(wav2vec2).save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert speech_digest_of(tmp_path) == speech_digest_of(wav2vec2)


def test_the_digest_does_not_depend_on_what_masks_in_training(wav2vec2: Path, tmp_path: Path) -> None:
    other = altered(wav2vec2, tmp_path / "other", changed("masked_spec_embed"))
    lacking = altered(wav2vec2, tmp_path / "lacking", without("wav2vec2.masked_spec_embed"))
    assert speech_digest_of(other) == speech_digest_of(lacking) == speech_digest_of(wav2vec2)


def test_the_digest_depends_on_every_other_weight(wav2vec2: Path) -> None:
    base = load_speech(open_checkpoint(str(wav2vec2))).base
    expected = weights_digest(base)
    for name, parameter in base.named_parameters():
        if not name.endswith("masked_spec_embed"):
            before = parameter.data.reshape(-1)[0].clone()
            parameter.data.reshape(-1)[0] = before + 1
            assert weights_digest(base) != expected, name
            parameter.data.reshape(-1)[0] = before
    assert weights_digest(base) == expected


def test_moving_a_folder_does_not_change_the_key_but_other_weights_do(wav2vec2: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(wav2vec2, tmp_path / "elsewhere" / wav2vec2.name)
    other = altered(wav2vec2, tmp_path / "other" / wav2vec2.name, changed("layers.1.attention.k_proj.bias"))
    assert keys_of(moved) == keys_of(wav2vec2)
    assert keys_of(f"{moved}/../{moved.name}/") == keys_of(wav2vec2)
    assert keys_of(other).keys() == keys_of(wav2vec2).keys()
    assert keys_of(other)["mini"] != keys_of(wav2vec2)["mini"]


def test_another_normalization_changes_the_key(wav2vec2: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(wav2vec2, tmp_path / "mini")
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(copy)  # type: ignore[no-untyped-call]
    assert keys_of(copy)["mini"] != keys_of(wav2vec2)["mini"]


@pytest.mark.parametrize("part", ["quantizer.weight_proj.bias", "quantizer.codevectors"])
def test_another_quantizer_changes_the_key_of_the_codes(wav2vec2: Path, tmp_path: Path, part: str) -> None:
    found = keys_of(altered(wav2vec2, tmp_path / "mini", changed(part)))
    assert found["mini"] == keys_of(wav2vec2)["mini"]
    assert found["mini.codes"] != keys_of(wav2vec2)["mini.codes"]


class Marker:
    """Runs code when it is unpickled by a loader that lets it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def save_by_torch(path: Path, weights: object) -> None:
    torch.save(weights, path)


def save_by_pickle(path: Path, weights: object) -> None:
    path.write_bytes(pickle.dumps(weights, protocol=2))  # the protocol of torch.save


@pytest.mark.parametrize("save", [save_by_torch, save_by_pickle])
def test_a_bin_that_would_run_code_is_refused_and_runs_nothing(
    wav2vec2: Path, tmp_path: Path, save: Callable[[Path, object], None]
) -> None:
    copy = altered(wav2vec2, tmp_path / "mini", same, as_bin=True)
    save(copy / "pytorch_model.bin", {"wav2vec2.encoder.layer_norm.bias": Marker(tmp_path / "ran")})
    with pytest.raises(MmerError, match="holds more than weights and is not loaded"):
        loaded(copy)
    assert not (tmp_path / "ran").exists()
    with (copy / "pytorch_model.bin").open("rb") as file:  # the test can fail: the file does run code
        torch.load(file, weights_only=False) if save is save_by_torch else pickle.load(file)
    assert (tmp_path / "ran").exists()


def test_safetensors_are_preferred_to_a_bin(wav2vec2: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(wav2vec2, tmp_path / "mini")
    save_by_torch(copy / "pytorch_model.bin", {"wav2vec2.encoder.layer_norm.bias": Marker(tmp_path / "ran")})
    assert speech_digest_of(copy) == speech_digest_of(wav2vec2)
    assert not (tmp_path / "ran").exists()


def test_code_in_a_checkpoint_never_runs(wav2vec2: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(wav2vec2, tmp_path / "mini")
    (copy / "remote.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})\n")
    config = json.loads((copy / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "remote.Config", "AutoModel": "remote.Model"}
    (copy / "config.json").write_text(json.dumps(config))
    assert speech_digest_of(copy) == speech_digest_of(wav2vec2)
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "remote"}))
    with pytest.raises(MmerError, match="holds no checkpoint that can be loaded"):
        loaded(copy)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("wav2vec2.encoder.layers.1.attention.k_proj.weight", r"lacks 1 weights \(first: wav2vec2\.encoder\.layers\.1"),
        ("wav2vec2.encoder.pos_conv_embed", "lacks 3 weights"),
        ("wav2vec2", r"lacks \d\d weights"),
        ("quantizer.weight_proj", r"lacks 2 weights \(first: quantizer\.weight_proj\.bias\)"),
        ("project_hid.bias", r"lacks 1 weights \(first: project_hid\.bias\)"),
        (("quantizer", "project_q"), r"lacks 5 weights \(first: project_q\.bias\)"),
    ],
)
def test_a_checkpoint_that_lacks_weights_is_refused(
    wav2vec2: Path, tmp_path: Path, lost: str | tuple[str, ...], message: str
) -> None:
    parts = (lost,) if isinstance(lost, str) else lost
    with pytest.raises(MmerError, match=message):
        loaded(altered(wav2vec2, tmp_path / "mini", without(*parts)))


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
    with pytest.raises(MmerError, match=r"mini has no quantizer, so no codes; take a pre-training checkpoint"):
        loaded(folder, codes=True)


def test_codes_that_are_not_wanted_are_not_made(wav2vec2: Path) -> None:
    found = loaded(wav2vec2, codes=False)
    assert [spec.name for spec in found.speech[0].specs] == ["mini"]
    assert found.speech[0].start_weights == {}
    assert found.notes == []


def test_a_checkpoint_that_does_not_say_how_it_normalizes_is_noted(wav2vec2: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(wav2vec2, tmp_path / "mini")
    (copy / "preprocessor_config.json").unlink()
    found = loaded(copy)
    assert found.speech[0].specs[0].preprocessing["normalize"] is True
    assert found.notes == ["mini has no preprocessor_config.json: utterances are normalized, as is the default"]


def test_a_damaged_preprocessor_config_is_an_error_and_not_the_default(wav2vec2: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(wav2vec2, tmp_path / "mini")
    (copy / "preprocessor_config.json").write_text('{"do_normalize": fal')
    with pytest.raises(MmerError, match=r"preprocessor_config\.json"):
        loaded(copy)


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


def no_files(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def no_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def damaged_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def unknown_type(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "something"}')


def truncated_weights(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:5000])


def truncated_bin(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes((folder / "pytorch_model.bin").read_bytes()[:5000])


def other_shapes(folder: Path) -> None:
    weights = {**load_file(folder / WEIGHTS), "project_q.bias": torch.zeros(3)}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "damage",
    [
        no_files,
        no_weights,
        no_config,
        damaged_config,
        unknown_type,
        truncated_weights,
        truncated_bin,
        other_shapes,
    ],
)
def test_a_folder_that_cannot_be_loaded_gives_one_line(
    wav2vec2: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    copy = shutil.copytree(wav2vec2, tmp_path / "mini")
    damage(copy)
    with pytest.raises(MmerError, match=f"^{copy} holds no checkpoint that can be loaded: [^\n]+$"):
        loaded(copy)


def test_an_unsupported_family_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)).save_pretrained(
        tmp_path
    )
    with pytest.raises(MmerError, match="family vit; mmer takes wav2vec2, hubert, wavlm, roberta, bert, distilbert"):
        loaded(tmp_path)


def test_a_checkpoint_with_an_adapter_is_refused(wav2vec2: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(wav2vec2, tmp_path / "mini")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "add_adapter": True}))
    with pytest.raises(MmerError, match="adapter"):
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


def save_tokenizer(folder: Path) -> None:
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    fast: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, **{f"{name}_token": token for name, token in special.items()}
    )
    fast.save_pretrained(folder)


def save_bert(folder: Path) -> None:
    BertForMaskedLM(BertConfig(**TEXT_SIZE, max_position_embeddings=40)).save_pretrained(folder)


def save_roberta(folder: Path) -> None:
    config = RobertaConfig(**TEXT_SIZE, max_position_embeddings=42, pad_token_id=0)
    RobertaForMaskedLM(config).save_pretrained(folder)


def save_distilbert(folder: Path) -> None:
    config = DistilBertConfig(vocab_size=len(WORDS), dim=32, n_layers=2, n_heads=2, hidden_dim=64)
    DistilBertModel(config).save_pretrained(folder)


@pytest.fixture(params=[save_bert, save_roberta, save_distilbert])
def text_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    request.param(tmp_path / "mini")
    save_tokenizer(tmp_path / "mini")
    return tmp_path / "mini"


def text_of(source: Path | str, **options: Any) -> TextInput:
    (encoder,) = loaded(source, **options).text
    return encoder


def test_a_text_folder_gives_the_vectors_of_the_model_saved_in_it(text_folder: Path) -> None:
    encoder = text_of(text_folder)
    assert [spec.name for spec in encoder.specs] == ["mini", "mini.tokens"]
    vectors, tokens = encoder.encode(["I know the gardens."])[0]
    assert tokens[:, 0].tolist() == [2, 5, 6, 7, 8, 9, 10, 3]
    checkpoint = open_checkpoint(str(text_folder))
    model, _ = load_text(checkpoint)
    with torch.inference_mode():
        expected = model(torch.from_numpy(tokens[:, 0]).long()[None]).last_hidden_state[0].numpy()
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_weights_and_tokenizer_of_a_text_folder_enter_its_key(text_folder: Path, tmp_path: Path) -> None:
    expected = [spec.key for spec in text_of(text_folder).specs]
    moved = shutil.copytree(text_folder, tmp_path / "elsewhere" / "mini")
    assert [spec.key for spec in text_of(moved).specs] == expected
    other_weights = altered(text_folder, tmp_path / "weights" / "mini", changed("embeddings.word_embeddings.weight"))
    assert text_of(other_weights).specs[0].key != expected[0]
    assert text_of(other_weights).specs[1].key == expected[1]  # tokens are the same
    tokenizer = json.loads((moved / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (moved / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert not {spec.key for spec in text_of(moved).specs} & set(expected)


def test_a_text_folder_that_lacks_weights_is_refused(text_folder: Path, tmp_path: Path) -> None:
    name = next(name for name in load_file(text_folder / WEIGHTS) if "layer.1." in name)
    with pytest.raises(MmerError, match="lacks 1 weights"):
        loaded(altered(text_folder, tmp_path / "other" / "mini", without(name)))


@pytest.mark.parametrize("left", ["tokenizer_config.json", None])
def test_a_text_folder_without_its_tokenizer_is_refused(text_folder: Path, left: str | None) -> None:
    for name in {"tokenizer.json", "tokenizer_config.json"} - {left}:
        (text_folder / name).unlink()
    with pytest.raises(MmerError, match="token"):
        loaded(text_folder)


HUB_SCRIPT = """
import json, torch
from cache.errors import MmerError
from featurize.encoders.catalog import parse_requests
from featurize.encoders.load import load_encoders
from featurize.encoders.options import EncodingOptions

def load(source):
    return load_encoders(parse_requests([source]), EncodingOptions(device=torch.device("cpu")))

def told(source):
    try:
        load(source)
    except MmerError as error:
        return str(error)

(encoder,) = load("acme/wav2vec2-mini").speech
specs = [[spec.name, spec.source, spec.revision, spec.weights] for spec in encoder.specs]
lines = {name: told(name) for name in ("acme/nothing", "hubert-base", "acme/part")}
print(json.dumps({"specs": specs, "lines": lines}))
"""


def cached_on_the_hub(home: Path, repository: str, folder: Path) -> None:
    """Lays a checkpoint out as the hub's local cache does: blobs, and links to them from a snapshot."""
    place = home / "hub" / f"models--{repository.replace('/', '--')}"
    snapshot = place / "snapshots" / REVISION
    for directory in (place / "refs", place / "blobs", snapshot):
        directory.mkdir(parents=True)
    (place / "refs" / "main").write_text(REVISION)
    for number, file in enumerate(sorted(folder.iterdir())):
        blob = place / "blobs" / f"{number:040x}"
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", blob.name))


@pytest.fixture(scope="module")
def hub_answers(wav2vec2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What loading by hub id gives where there is a cache of the hub and no network."""
    home = tmp_path_factory.mktemp("home")
    cached_on_the_hub(home, "acme/wav2vec2-mini", wav2vec2)
    part = altered(wav2vec2, home / "part", same)
    no_weights(part)
    cached_on_the_hub(home, "acme/part", part)
    passed = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment = {**passed, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", HUB_SCRIPT], env=environment, cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


def test_a_hub_id_loads_from_the_cache_of_the_hub_and_records_the_revision(
    wav2vec2: Path, hub_answers: dict[str, Any]
) -> None:
    digest = speech_digest_of(wav2vec2)
    name, source, revision, weights = hub_answers["specs"][0]
    assert (name, source, revision, weights) == ("wav2vec2-mini", "acme/wav2vec2-mini", REVISION, digest)
    assert hub_answers["specs"][1][:3] == ["wav2vec2-mini.codes", "acme/wav2vec2-mini", REVISION]


@pytest.mark.parametrize(
    ("asked", "repository"),
    [("acme/nothing",) * 2, ("acme/part",) * 2, ("hubert-base", "facebook/hubert-base-ls960")],
)
def test_a_hub_id_that_is_not_at_hand_gives_one_line_that_says_how_to_fetch_it(
    hub_answers: dict[str, Any], asked: str, repository: str
) -> None:
    line = hub_answers["lines"][asked]
    assert line.startswith(f"{repository} is neither in the hub cache nor reachable; ")
    assert f"`hf download {repository}`" in line
    assert "\n" not in line
