"""What is promised of speech encoders: the rows of any batch are those that plain Hugging Face gives one by one."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis.strategies as st
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import example, given, settings
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForPreTraining,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

from cache.rows import Rows
from cache.stream import StreamSpec
from cache.utterance import Utterance
from featurize.corpora.reading import Reading
from featurize.encoders.base import Waveform
from featurize.encoders.layers import parse_layers
from featurize.encoders.options import EncodingOptions
from featurize.encoders.speech import SpeechEncoder, quantizer_codes
from featurize.encoders.tiny import build_wav2vec2_tiny
from featurize.job import Job, Ready
from featurize.parity import TOLERANCE, check_parity, deviation
from featurize.plan import plan_encoder, read_inputs

LAYERS = 3
SMALL: Mapping[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
FAMILIES: Mapping[str, tuple[Any, Any]] = {
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model),
    "hubert": (HubertConfig, HubertModel),
    "wavlm": (WavLMConfig, WavLMModel),
}
HARD_MIX = (400, 401, 719, 720, 16_000, 5000, 48_000)
CPU = torch.device("cpu")


class Variant(NamedTuple):
    """One architecture: its family, the norm of its convolutions, where its layer norms stand, its input."""

    family: str
    norm: str
    stable: bool
    normalize: bool

    def __str__(self) -> str:
        return f"{self.family}-{self.norm}{'-stable' * self.stable}{'-normalized' * self.normalize}"


VARIANTS = [Variant(*one) for one in product(FAMILIES, ("group", "layer"), (False, True), (False, True))]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Models as small as these are ten times slower when threads of several processes wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def model_of(family: str, norm: str, stable: bool) -> Any:
    configuration, model = FAMILIES[family]
    config = configuration(**SMALL, feat_extract_norm=norm, do_stable_layer_norm=stable, conv_bias=norm == "layer")
    return built(model, config)


def built(model: Any, config: Any) -> Any:
    """Builds a model whose biases and norms are random too: those of a fresh model would hide much."""
    torch.manual_seed(1)
    made = model(config).eval()
    for parameter in made.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return made


def encoder_of(
    base: Any,
    *layers: str,
    normalize: bool = True,
    quantizer: Any = None,
    precision: torch.dtype = torch.float32,
) -> SpeechEncoder:
    return SpeechEncoder(
        base=base,
        quantizer=quantizer,
        start_weights={},
        spec=StreamSpec(name="a", role="audio", source="a", shape=(1,), dtype="float32"),
        choices=[parse_layers(text, layers=LAYERS, encoder="a") for text in layers or ("last",)],
        normalize=normalize,
        device=CPU,
        precision=precision,
    )


def speech(lengths: Sequence[int], seed: int = 3) -> list[Waveform]:
    random = np.random.default_rng(seed)
    loudness = random.uniform(0.01, 0.5, len(lengths))
    waves = [0.1 + level * random.standard_normal(samples) for level, samples in zip(loudness, lengths, strict=True)]
    return [wave.astype(np.float32) for wave in waves]


def alone(model: Any, waveform: Waveform, *, normalize: bool) -> Any:
    """Encodes one waveform as Hugging Face documents it: feature extractor, model, no mask."""
    extractor: Any = Wav2Vec2FeatureExtractor(do_normalize=normalize)  # type: ignore[no-untyped-call]
    values = extractor(waveform, sampling_rate=16_000, return_tensors="pt").input_values
    with torch.inference_mode():
        return model(values, output_hidden_states=True)


def last_of(output: Any) -> Rows:
    rows: Rows = output.last_hidden_state[0].numpy()
    return rows


def worst(found: Sequence[Rows], expected: Sequence[Rows]) -> float:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
    return max(deviation(one, other)[0] for one, other in zip(found, expected, strict=True))


def batch_deviation(variant: Variant, lengths: Sequence[int]) -> float:
    model, waves = model_of(*variant[:3]), speech(lengths)
    found = encoder_of(model, normalize=variant.normalize).encode(waves)
    expected = [last_of(alone(model, wave, normalize=variant.normalize)) for wave in waves]
    return worst([rows[0] for rows in found], expected)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_hard_mix_of_lengths_gives_the_rows_of_one_by_one(variant: Variant) -> None:
    assert batch_deviation(variant, HARD_MIX) <= TOLERANCE


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(VARIANTS), st.lists(st.integers(400, 20_000), min_size=1, max_size=5))
@example(VARIANTS[0], [400])
@example(VARIANTS[0], [8000, 8000])
@example(VARIANTS[0], [400, 719])  # as many frames, not as many samples
def test_any_mix_of_lengths_gives_the_rows_of_one_by_one(variant: Variant, lengths: list[int]) -> None:
    assert batch_deviation(variant, lengths) <= TOLERANCE


def padded_batch(encoder: SpeechEncoder, waves: Sequence[Waveform], *, masked: bool) -> list[Rows]:
    """Encodes a batch the usual way: zeros to the longest, with or without the attention mask."""
    longest = max(len(wave) for wave in waves)
    values = np.stack([np.pad(encoder.prepare(wave), (0, longest - len(wave))) for wave in waves])
    mask = torch.arange(longest) < torch.tensor([len(wave) for wave in waves])[:, None]
    model: Any = encoder.base
    with torch.inference_mode():
        batch = model(torch.from_numpy(values), attention_mask=mask.long() if masked else None).last_hidden_state
    return [rows[: (len(wave) - 400) // 320 + 1].numpy() for rows, wave in zip(batch, waves, strict=True)]


@pytest.mark.parametrize("variant", [one for one in VARIANTS if not one.stable], ids=str)
def test_a_batch_padded_the_usual_way_does_not(variant: Variant) -> None:
    model, waves = model_of(*variant[:3]), speech(HARD_MIX)
    encoder = encoder_of(model, normalize=variant.normalize)
    expected = [last_of(alone(model, wave, normalize=variant.normalize)) for wave in waves]
    assert worst(padded_batch(encoder, waves, masked=False), expected) > 0.01
    if variant.norm == "group" and variant.family != "wavlm":  # torch warns of WavLM's mask
        assert worst(padded_batch(encoder, waves, masked=True), expected) > 0.01


def test_the_batch_norm_of_a_positional_convolution_does_not_let_padding_in() -> None:
    model = built(HubertModel, HubertConfig(**SMALL, conv_pos_batch_norm=True))  # as in utter-project/mHuBERT-147
    model.encoder.pos_conv_embed.batch_norm.running_mean.normal_()
    waves = speech(HARD_MIX)
    found = [rows[0] for rows in encoder_of(model).encode(waves)]
    assert worst(found, [last_of(alone(model, wave, normalize=True)) for wave in waves]) <= TOLERANCE


def test_features_without_a_norm_before_their_projection_are_exact_too() -> None:
    model = built(HubertModel, HubertConfig(**SMALL, feat_proj_layer_norm=False))
    waves = speech(HARD_MIX)
    found = [rows[0] for rows in encoder_of(model).encode(waves)]
    assert worst(found, [last_of(alone(model, wave, normalize=True)) for wave in waves]) <= TOLERANCE


@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_layers_are_those_of_hugging_face(family: str, stable: bool) -> None:
    model, waves = model_of(family, "group", stable), speech(HARD_MIX)
    found = encoder_of(model, "1", "0,2", "all", "mean1-2", "0", str(LAYERS), "last").encode(waves)
    for rows, wave in zip(found, waves, strict=True):
        output = alone(model, wave, normalize=True)
        hidden = [state[0].numpy() for state in output.hidden_states]
        expected = [
            hidden[1],
            np.stack([hidden[0], hidden[2]], axis=1),
            np.stack(hidden, axis=1),
            (hidden[1] + hidden[2]) / 2,
            hidden[0],
            hidden[LAYERS],
            last_of(output),
        ]
        assert worst(rows, expected) <= TOLERANCE


def test_one_pass_leaves_no_hook_behind() -> None:
    model = built(Wav2Vec2Model, Wav2Vec2Config(**SMALL))
    encoder_of(model, "all").encode(speech([500, 900]))
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.encoder.layers)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("samples", [1, 80, 399])
def test_less_than_400_samples_are_normalized_and_then_padded(family: str, samples: int) -> None:
    model = model_of(family, "group", False)
    waves = speech([samples, 3000, 400])
    found = encoder_of(model).encode(waves)[0][0]
    normed = (waves[0] - waves[0].mean()) / np.sqrt(waves[0].var() + 1e-7)
    expected = last_of(alone(model, np.pad(normed, (0, 400 - samples)), normalize=False))
    assert worst([found], [expected]) <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_silence_in_a_batch_gives_finite_rows_and_those_of_silence_alone(family: str) -> None:
    encoder = encoder_of(model_of(family, "group", False))
    waves = [np.zeros(8000, np.float32), *speech([12_000])]
    found = encoder.encode(waves)[0][0]
    assert np.isfinite(found).all()
    assert worst([found], [encoder.encode(waves[:1])[0][0]]) <= TOLERANCE


@cache
def pretraining(norm: str) -> Any:
    config = Wav2Vec2Config(**SMALL, feat_extract_norm=norm, codevector_dim=16, num_codevectors_per_group=50)
    return built(Wav2Vec2ForPreTraining, config)


def codes_by_hugging_face(model: Any, waveform: Waveform) -> Rows:
    """Finds the codes in the vectors that the quantizer itself gives in eval mode."""
    quantizer = model.quantizer
    with torch.inference_mode():
        features = alone(model.wav2vec2, waveform, normalize=True).extract_features
        vectors = quantizer(features)[0][0].unflatten(-1, (quantizer.num_groups, -1))  # (frames, groups, dim)
    tables = quantizer.codevectors[0].unflatten(0, (quantizer.num_groups, quantizer.num_vars))
    same = (vectors[:, :, None] == tables[None]).all(dim=-1)  # (frames, groups, vars)
    assert (same.sum(dim=-1) == 1).all()
    codes: Rows = same.int().argmax(dim=-1).numpy()
    return codes


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_codes_are_the_choice_of_the_quantizer_itself_alone_and_in_a_batch(norm: str) -> None:
    model, waves = pretraining(norm), speech(HARD_MIX)
    encoder = encoder_of(model.wav2vec2, quantizer=model.quantizer)
    assert [spec.name for spec in encoder.specs] == ["a", "a.codes"]
    for wave, batched in zip(waves, encoder.encode(waves), strict=True):
        expected = codes_by_hugging_face(model, wave)
        np.testing.assert_array_equal(encoder.encode([wave])[0][1], expected)
        np.testing.assert_array_equal(batched[1], expected)
    assert len(np.unique(encoder.encode(waves)[-1][1])) > 10


def test_codes_of_random_scores_give_the_vectors_of_the_quantizer() -> None:
    quantizer = pretraining("group").quantizer
    normed = torch.randn(3, 40, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        vectors = quantizer(normed)[0]
        codes = quantizer_codes(quantizer, normed)
    offsets = torch.arange(quantizer.num_groups) * quantizer.num_vars
    assert torch.equal(quantizer.codevectors[0][codes + offsets].flatten(start_dim=2), vectors)


def test_codes_do_not_depend_on_the_training_mode_that_the_model_came_in() -> None:
    model, waves = pretraining("group"), speech([8000])
    expected = encoder_of(model.wav2vec2, quantizer=model.quantizer).encode(waves)[0]
    model.train()
    found = encoder_of(model.wav2vec2, quantizer=model.quantizer).encode(waves)[0]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_keeps_the_codes_and_float32_on_demand(precision: torch.dtype) -> None:
    model, waves = pretraining("group"), speech(HARD_MIX)
    full = encoder_of(model.wav2vec2, "last", "1", quantizer=model.quantizer).encode(waves)
    half = encoder_of(model.wav2vec2, "last", "1", quantizer=model.quantizer, precision=precision)
    for rows, exact, precise in zip(half.encode(waves), full, half.encode(waves, precise=True), strict=True):
        np.testing.assert_array_equal(rows[2], exact[2])
        assert 1e-5 < deviation(rows[0], exact[0])[0] < 0.05
        assert rows[0].dtype == rows[1].dtype == np.float32
        for one, other in zip(precise, exact, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_runs_in_bfloat16(family: str) -> None:
    model, waves = model_of(family, "layer", True), speech([400, 5000, 9000])
    half = encoder_of(model, precision=torch.bfloat16).encode(waves)
    full = encoder_of(model).encode(waves)
    assert worst([rows[0] for rows in half], [rows[0] for rows in full]) < 0.05


def ready_for(folder: Path, lengths: Sequence[int], *, max_seconds: float = 60.0) -> Ready:
    """Plans wav2vec2-tiny over recordings of the given lengths."""
    for index, wave in enumerate(speech(lengths)):
        soundfile.write(folder / f"{index}.wav", wave, 16_000, subtype="FLOAT")
    utterances = [Utterance(id=str(index), audio=f"{index}.wav") for index in range(len(lengths))]
    inputs = read_inputs(Reading(root=folder, utterances=utterances))
    encoder = encoder_of(build_wav2vec2_tiny().wav2vec2)
    job = Job(corpus="manifest", root=folder, cache=folder / "a.h5", options=EncodingOptions(device=CPU))
    return Ready(job=job, inputs=inputs, plans=[plan_encoder(encoder, inputs, max_seconds=max_seconds, chunk=False)])


def test_the_parity_check_gives_the_figure_of_the_worst_utterance(tmp_path: Path) -> None:
    (found,) = check_parity(ready_for(tmp_path, [16_000, 900, 5000, 30_000, 100]), 3)
    assert (found.encoder, found.precision, found.utterances) == ("a", "float32", 3)
    assert 0 < found.relative <= TOLERANCE
    assert 0 < found.absolute < 1e-4
    assert found.exact


def test_the_parity_check_notices_an_encoder_that_is_not_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = ready_for(tmp_path, [16_000, 900, 5000])
    monkeypatch.setattr("featurize.encoders.speech.valid_mask", lambda *_: None)
    (found,) = check_parity(ready, 3)
    assert found.relative > 0.001
    assert not found.exact


def test_the_parity_check_of_nothing_that_can_be_encoded_tried_no_utterance(tmp_path: Path) -> None:
    (found,) = check_parity(ready_for(tmp_path, [16_000, 9000], max_seconds=0.1), 3)
    assert found.utterances == 0
