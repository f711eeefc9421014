"""The families of Hugging Face models that encoders are made of, and what is particular about each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import (
    BertModel,
    Data2VecAudioModel,
    DebertaV2Model,
    DistilBertModel,
    HubertModel,
    RobertaModel,
    ViTModel,
    Wav2Vec2ConformerForPreTraining,
    Wav2Vec2ForPreTraining,
    WavLMModel,
)

UNUSED = "masked_spec_embed"  # SpecAugment's, never read in eval mode; random where a checkpoint lacks it


@dataclass(frozen=True, kw_only=True)
class Family:
    """How the models of one ``model_type`` are loaded.

    Attributes:
        model: class to load.
        arguments: of its ``from_pretrained``, to leave out what no stream reads.
        unread: a part of its base model that no forward pass reads, empty where there is none.
    """

    model: Any
    arguments: Mapping[str, Any] = field(default_factory=dict)
    unread: str = ""


_SDPA: Mapping[str, Any] = {"attn_implementation": "sdpa"}
_NO_POOLER: Mapping[str, Any] = {"add_pooling_layer": False}

SPEECH_FAMILIES: Mapping[str, Family] = {
    "wav2vec2": Family(model=Wav2Vec2ForPreTraining, arguments=_SDPA),
    "hubert": Family(model=HubertModel, arguments=_SDPA),
    "wavlm": Family(model=WavLMModel, arguments={"attn_implementation": "eager"}),  # it has no SDPA
    # It has a convolution for positions, too, but takes them from its own embedding.
    "wav2vec2-conformer": Family(
        model=Wav2Vec2ConformerForPreTraining, arguments=_SDPA, unread="encoder.pos_conv_embed"
    ),
    "data2vec-audio": Family(model=Data2VecAudioModel, arguments=_SDPA),
}
TEXT_FAMILIES: Mapping[str, Family] = {
    "roberta": Family(model=RobertaModel, arguments=_NO_POOLER),
    "bert": Family(model=BertModel, arguments=_NO_POOLER),
    "distilbert": Family(model=DistilBertModel),
    "deberta-v2": Family(model=DebertaV2Model),
}
MEL_FAMILIES: Mapping[str, Family] = {
    "vit": Family(model=ViTModel, arguments={**_NO_POOLER, **_SDPA}),
}
FAMILIES: Mapping[str, Family] = {**SPEECH_FAMILIES, **MEL_FAMILIES, **TEXT_FAMILIES}
