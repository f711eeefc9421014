from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from transformers import PreTrainedTokenizerFast, RobertaModel, Wav2Vec2ForPreTraining

from featurize.corpora.demo.script import script_words
from featurize.encoders.tiny import (
    COMMON_WORDS,
    build_roberta_tiny,
    build_roberta_tiny_tokenizer,
    build_vit_mel_tiny,
    build_wav2vec2_tiny,
)

TOKENIZER = build_roberta_tiny_tokenizer()
# A transcript with "<s>" in it means the special token, as it does for every RoBERTa.
TEXTS = st.text(max_size=60).filter(lambda text: not any(token in text for token in TOKENIZER.all_special_tokens))
LIVELY_TEXTS = TEXTS | st.sampled_from(
    [
        "I'm SO happy 😀👩‍👩‍👧!",
        "İstanbul, ŒUVRE",
        "  two  spaces ",
        "tab\tand\nline",
        "中文 العربية",
        "e\u0301\ufe0f",
        "\x00",
    ]
)


@pytest.fixture(scope="module")
def speech() -> Wav2Vec2ForPreTraining:
    return build_wav2vec2_tiny()


@pytest.fixture(scope="module")
def text() -> RobertaModel:
    return build_roberta_tiny()


def lowered(given: str) -> str:
    normalizer = TOKENIZER.backend_tokenizer.normalizer
    assert normalizer is not None
    return str(normalizer.normalize_str(given))


@pytest.mark.parametrize("build", [build_wav2vec2_tiny, build_vit_mel_tiny, build_roberta_tiny])
def test_two_builds_are_bit_equal_float32_and_in_eval_mode(build: type[torch.nn.Module]) -> None:
    first, second = build(), build()
    assert first.state_dict().keys() == second.state_dict().keys()
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
        assert value.dtype in {torch.float32, torch.int64}, name
    assert not any(module.training for module in first.modules())


@pytest.mark.parametrize("build", [build_wav2vec2_tiny, build_vit_mel_tiny, build_roberta_tiny])
def test_weights_neither_depend_on_the_random_state_of_the_caller_nor_change_it(build: type[torch.nn.Module]) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = build()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    second = build()
    assert all(torch.equal(left, right) for left, right in zip(first.parameters(), second.parameters(), strict=True))


def test_a_device_chosen_by_the_caller_does_not_reach_the_weights() -> None:
    with torch.device("meta"):
        model = build_roberta_tiny()
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


@pytest.mark.parametrize("samples", [400, 719, 720, 16_000, 72_000])
def test_speech_has_a_frame_every_320_samples(speech: Wav2Vec2ForPreTraining, samples: int) -> None:
    wave = torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        frames = speech.wav2vec2(wave).last_hidden_state
    assert frames.shape == (1, (samples - 400) // 320 + 1, 64)


def test_speech_is_laid_out_as_wav2vec2_base(speech: Wav2Vec2ForPreTraining) -> None:
    assert tuple(speech.config.conv_kernel) == (10, 3, 3, 3, 3, 2, 2)
    assert tuple(speech.config.conv_stride) == (5, 2, 2, 2, 2, 2, 2)
    assert speech.config.feat_extract_norm == "group"
    assert not speech.config.do_stable_layer_norm
    assert speech.config.num_hidden_layers == 4


def test_speech_is_not_masked_at_random(speech: Wav2Vec2ForPreTraining) -> None:
    wave = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        once, again = (speech.wav2vec2(wave).last_hidden_state for _ in range(2))
    assert torch.equal(once, again)
    assert not speech.config.apply_spec_augment


def test_the_image_encoder_is_laid_out_as_vit_base() -> None:
    model = build_vit_mel_tiny()
    assert model.embeddings.position_embeddings.shape == (1, 1 + 14 * 14, 64)
    assert model.embeddings.patch_embeddings.projection.weight.shape == (64, 3, 16, 16)
    assert (len(model.layers), model.config.num_attention_heads, model.config.layer_norm_eps) == (6, 4, 1e-12)
    assert model.pooler is None


def test_the_quantizer_uses_many_codes_of_both_groups(speech: Wav2Vec2ForPreTraining) -> None:
    wave = torch.randn(1, 160_000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = speech.wav2vec2(wave).extract_features
        codes = speech.quantizer.weight_proj(features).view(-1, 2, 320).argmax(dim=-1)
    assert speech.quantizer.codevectors.shape == (1, 2 * 320, 32)
    assert min(len(codes[:, group].unique()) for group in range(2)) > 50


def test_text_has_nine_layers_and_no_pooler(text: RobertaModel) -> None:
    with torch.inference_mode():
        output = text(**TOKENIZER("the garden", return_tensors="pt"), output_hidden_states=True)
    assert len(output.hidden_states) == 1 + 9
    assert output.last_hidden_state.shape == (1, 4, 64)
    assert text.pooler is None
    states = [state[0].numpy() for state in output.hidden_states]
    assert all(np.abs(after - before).max() > 1e-3 for before, after in pairwise(states))


def test_text_takes_as_many_tokens_as_the_tokenizer_lets_through(text: RobertaModel) -> None:
    tokens = TOKENIZER("word " * 600, truncation=True, return_tensors="pt")
    assert tokens["input_ids"].shape == (1, 512)
    with torch.inference_mode():
        assert text(**tokens).last_hidden_state.shape == (1, 512, 64)
    assert text.config.max_position_embeddings == 514


def test_special_tokens_have_the_ids_of_roberta_and_the_model_has_a_row_for_each_token(text: RobertaModel) -> None:
    assert TOKENIZER.convert_tokens_to_ids(["<s>", "<pad>", "</s>", "<unk>"]) == [0, 1, 2, 3]
    assert TOKENIZER.mask_token_id == len(TOKENIZER) - 1
    assert text.embeddings.word_embeddings.num_embeddings == len(TOKENIZER)
    assert text.config.pad_token_id == TOKENIZER.pad_token_id
    assert TOKENIZER("", " ")["input_ids"][:3] == [0, 2, 2]


@pytest.mark.parametrize("words", [script_words(), COMMON_WORDS.split()], ids=["demo", "common"])
def test_a_known_word_is_one_token(words: list[str]) -> None:
    ids = TOKENIZER(" ".join(words), add_special_tokens=False)["input_ids"]
    assert TOKENIZER.convert_ids_to_tokens(ids) == ["Ġ" + word for word in words]


def test_an_unknown_word_is_spelt_in_bytes() -> None:
    assert TOKENIZER.tokenize("the zebra") == ["Ġthe", "Ġ", "z", "e", "b", "r", "a"]


@given(LIVELY_TEXTS)
def test_any_text_survives_the_round_trip_in_lower_case(given: str) -> None:
    ids = TOKENIZER(given)["input_ids"]
    assert TOKENIZER.unk_token_id not in ids
    assert (ids[0], ids[-1]) == (0, 2)
    # The tokenizer puts a space before the first word.
    assert str(TOKENIZER.decode(ids, skip_special_tokens=True)).removeprefix(" ") == lowered(given).removeprefix(" ")


@given(LIVELY_TEXTS)
def test_spans_cover_every_visible_character_in_order(given: str) -> None:
    spans = TOKENIZER(given, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
    assert all(0 <= start <= end <= len(given) for start, end in spans)
    assert all(left[0] <= right[0] for left, right in pairwise(spans))
    covered = {position for start, end in spans for position in range(start, end)}
    assert covered >= {position for position, character in enumerate(given) if not character.isspace()}


@given(st.lists(st.sampled_from(["Garden", "the", "DANGER", "zebra", "😀", "é", "don't"]), min_size=1))
def test_the_span_of_a_whole_word_is_the_word_as_given(words: list[str]) -> None:
    given = " ".join(words)
    encoded = TOKENIZER(given, return_offsets_mapping=True)
    tokens = TOKENIZER.convert_ids_to_tokens(encoded["input_ids"])
    spans = [
        span
        for token, span in zip(tokens, encoded["offset_mapping"], strict=True)
        if len(token) > 2 and token[0] == "Ġ"
    ]
    assert [given[start:end] for start, end in spans] == [word for word in words if word in {"Garden", "the", "DANGER"}]


def test_tokenizers_are_equal_from_build_to_build() -> None:
    first, again = build_roberta_tiny_tokenizer(), build_roberta_tiny_tokenizer()  # use leaves its mark in TOKENIZER
    assert isinstance(again, PreTrainedTokenizerFast)
    assert again.backend_tokenizer.to_str() == first.backend_tokenizer.to_str()
