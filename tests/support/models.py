"""Tiny models and tokenizers with random weights, encoders around them, and what Hugging Face gives without mmer.

Every speech model makes a frame of 32 values every 320 samples, the first of 400; every text model a vector of 32
values per token.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import hypothesis.strategies as st
import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    Data2VecAudioConfig,
    Data2VecAudioModel,
    DebertaV2Config,
    DebertaV2Model,
    DistilBertConfig,
    DistilBertModel,
    HubertConfig,
    HubertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    UniSpeechSatConfig,
    UniSpeechSatModel,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerModel,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

from cache.rows import Rows
from cache.stream import StreamSpec
from featurize.encoders.base import Waveform
from featurize.encoders.layers import parse_layers
from featurize.encoders.speech import SpeechEncoder
from featurize.encoders.text import TextEncoder
from featurize.encoders.tiny import build_roberta_tiny_tokenizer
from featurize.extraction.parity import deviation
from featurize.inputs.transcript import STRIP, Turn

CPU = torch.device("cpu")

SPEECH_LAYERS, TEXT_LAYERS, TEXT_POSITIONS = 3, 2, 24
LAYER_SIZE: Mapping[str, Any] = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
SPEECH_SIZE: Mapping[str, Any] = {
    **LAYER_SIZE,
    "num_hidden_layers": SPEECH_LAYERS,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
TEXT_SIZE: Mapping[str, Any] = {
    **LAYER_SIZE,
    "num_hidden_layers": TEXT_LAYERS,
    "max_position_embeddings": TEXT_POSITIONS,
}
DISTILBERT_SIZE: Mapping[str, Any] = {  # the same in other words
    "dim": 32,
    "n_layers": TEXT_LAYERS,
    "n_heads": 2,
    "hidden_dim": 64,
    "max_position_embeddings": TEXT_POSITIONS,
}

DEBERTA_SIZE: Mapping[str, Any] = {  # as deberta-v3-base: no positions but relative ones, in 2 x 4 buckets
    **TEXT_SIZE,
    "relative_attention": True,
    "position_buckets": 4,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
}

SPEECH_FAMILIES: Mapping[str, tuple[Any, Any, Mapping[str, Any]]] = {
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model, {}),
    "hubert": (HubertConfig, HubertModel, {}),
    "wavlm": (WavLMConfig, WavLMModel, {}),
    "data2vec": (Data2VecAudioConfig, Data2VecAudioModel, {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 7}),
    "conformer": (
        Wav2Vec2ConformerConfig,
        Wav2Vec2ConformerModel,
        {"position_embeddings_type": "relative", "conv_depthwise_kernel_size": 7},
    ),
    "conformer-rope": (
        Wav2Vec2ConformerConfig,
        Wav2Vec2ConformerModel,
        {"position_embeddings_type": "rotary", "conv_depthwise_kernel_size": 7},
    ),
    "unispeech-sat": (UniSpeechSatConfig, UniSpeechSatModel, {}),
}
ALIKE = ("unispeech-sat",)  # built of the same parts as another family
CONVOLVING = ("data2vec", "conformer", "conformer-rope")  # in more than one place after the feature encoder
TEXT_FAMILIES = ("bert", "roberta", "distilbert", "deberta-v2")

HARD_MIX = (400, 401, 719, 720, 16_000, 5000, 48_000)  # samples: one frame, nearly two, two, and far more
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "i", "know", "the", "garden", "##s", ".", "so", "don", "'", "t"]
CHOICES = ("1", "0,2", "all", "mean1-2", "last")
TEXTS = st.lists(st.sampled_from(["I", "know", "the", "Gardens", "[LAUGHTER]", "zebra", "don't", "so.", " "])).map(
    " ".join
)


def lively(model: Any, config: Any, **options: Any) -> Any:
    """Builds a model whose biases and norms are random too: those of a fresh model would hide much."""
    torch.manual_seed(1)
    made = model(config, **options).eval()
    for parameter in made.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn_like(parameter)
    for name, values in made.named_buffers():
        if name.endswith("running_mean"):
            values.normal_()
    return made


@cache
def speech_model(family: str, norm: str = "group", stable: bool = False) -> Any:
    """Builds a base model; ``norm`` is that of its convolutions, ``stable`` puts layer norms first."""
    configuration, model, particular = SPEECH_FAMILIES[family]
    norms = {"feat_extract_norm": norm, "conv_bias": norm == "layer", "do_stable_layer_norm": stable}
    return lively(model, configuration(**{**SPEECH_SIZE, **norms, **particular}))


def speech_encoder(
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
        choices=[parse_layers(text, layers=SPEECH_LAYERS, encoder="a", conv=True) for text in layers or ("last",)],
        normalize=normalize,
        device=CPU,
        precision=precision,
    )


def waveforms(lengths: Sequence[int], seed: int = 3) -> list[Waveform]:
    """Noise of different loudness, each of the given number of samples."""
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
    """Takes the last frames of a batch of one, ``(frames, dim)``."""
    rows: Rows = output.last_hidden_state[0].numpy()
    return rows


def chosen_of(output: Any) -> list[Rows]:
    """Takes of a batch of one, by hand, what the choices of layers in ``CHOICES`` stand for."""
    hidden = [state[0].numpy() for state in output.hidden_states]
    return [
        hidden[1],
        np.stack([hidden[0], hidden[2]], axis=1),
        np.stack(hidden, axis=1),
        (hidden[1] + hidden[2]) / 2,
        last_of(output),
    ]


def worst(found: Sequence[Rows], expected: Sequence[Rows]) -> float:
    """Gives the largest relative deviation of equally many arrays of equal shapes."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
    # unlike max, np.max lets no NaN pass for a small number
    return float(np.max([deviation(one, other)[0] for one, other in zip(found, expected, strict=True)]))


def word_pieces() -> Any:
    """Builds a tokenizer of BERT's kind that knows ``WORDS``, lower case."""
    tokenizer = Tokenizer(models.WordPiece(vocab={word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    fast: Any = PreTrainedTokenizerFast  # transformers does not type its constructor
    return fast(tokenizer_object=tokenizer, **{f"{name}_token": token for name, token in special.items()})


@cache
def text_tokenizer(family: str) -> Any:
    """The tokenizer of a family, one for all tests of a run: byte-level for roberta, else ``word_pieces``."""
    return build_roberta_tiny_tokenizer() if family == "roberta" else word_pieces()


@cache
def text_model(family: str) -> Any:
    words = len(text_tokenizer(family))
    if family == "bert":
        return lively(BertModel, BertConfig(**TEXT_SIZE, vocab_size=words), add_pooling_layer=False)
    if family == "roberta":
        config = RobertaConfig(**TEXT_SIZE, vocab_size=words, pad_token_id=1)
        return lively(RobertaModel, config, add_pooling_layer=False)
    if family == "deberta-v2":
        return lively(DebertaV2Model, DebertaV2Config(**DEBERTA_SIZE, vocab_size=words))
    return lively(DistilBertModel, DistilBertConfig(**DISTILBERT_SIZE, vocab_size=words))


def turns(*texts: str) -> list[Turn]:
    """Transcripts without a history, as the pipeline hands them over."""
    return [Turn(text) for text in texts]


def text_encoder(
    family: str,
    *layers: str,
    event_tags: str = STRIP,
    truncate: bool = False,
    history: int = 0,
    max_tokens: int | None = None,
    precision: torch.dtype = torch.float32,
) -> TextEncoder:
    return TextEncoder(
        model=text_model(family),
        tokenizer=text_tokenizer(family),
        spec=StreamSpec(name="a", role="text", source="a", weights="w", shape=(1,), dtype="float32"),
        choices=[parse_layers(text, layers=TEXT_LAYERS, encoder="a") for text in layers or ("last",)],
        start_weights={},
        event_tags=event_tags,
        truncate=truncate,
        history=history,
        max_tokens=max_tokens,
        device=CPU,
        precision=precision,
    )
