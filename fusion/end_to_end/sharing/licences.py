"""Licences and languages of known encoders and corpora, as their owners state them; anything else is not known.

Encoders: model cards on the hub. WavLM: its card refers to the licence of github.com/microsoft/UniSpeech. Corpora:
their release pages.
"""

from collections.abc import Mapping

from featurize.encoders.catalog import BUILT_IN, ENCODERS

APACHE, MIT, WAVLM, NON_COMMERCIAL = "Apache 2.0", "MIT", "CC BY-SA 3.0", "CC BY-NC 4.0"
UNKNOWN = "not known"

# Hub id -> licence.
ENCODER_LICENCES: Mapping[str, str] = {
    "facebook/wav2vec2-base": APACHE,
    "facebook/wav2vec2-base-960h": APACHE,
    "facebook/wav2vec2-large": APACHE,
    "facebook/hubert-base-ls960": APACHE,
    "facebook/hubert-large-ll60k": APACHE,
    "facebook/wav2vec2-conformer-rel-pos-large": APACHE,
    "facebook/wav2vec2-conformer-rope-large": APACHE,
    "facebook/data2vec-audio-base": APACHE,
    "facebook/wav2vec2-xls-r-300m": APACHE,
    "microsoft/wavlm-base": WAVLM,
    "microsoft/wavlm-base-plus": WAVLM,
    "microsoft/wavlm-large": WAVLM,
    "facebook/mms-300m": NON_COMMERCIAL,
    "facebook/mms-1b": NON_COMMERCIAL,
    "facebook/w2v-bert-2.0": MIT,
    "microsoft/unispeech-sat-base-plus": WAVLM,
    "microsoft/unispeech-sat-large": WAVLM,
    "openai/whisper-tiny": APACHE,
    "openai/whisper-tiny.en": APACHE,
    "openai/whisper-base": APACHE,
    "openai/whisper-small": APACHE,
    "openai/whisper-medium": APACHE,
    "openai/whisper-large-v2": APACHE,
    "openai/whisper-large-v3": APACHE,
    "openai/whisper-large-v3-turbo": MIT,
    "google/vit-base-patch16-224-in21k": APACHE,
    "FacebookAI/roberta-base": MIT,
    "FacebookAI/roberta-large": MIT,
    "FacebookAI/xlm-roberta-base": MIT,
    "intfloat/multilingual-e5-base": MIT,
    "answerdotai/ModernBERT-base": APACHE,
    "google-bert/bert-base-uncased": APACHE,
    "distilbert/distilbert-base-uncased": APACHE,
    "microsoft/deberta-v3-base": MIT,
}
# Corpus -> licence, and the language of its speech.
CORPUS_LICENCES: Mapping[str, str] = {
    "iemocap": "by a form of its owner; research only",
    "ravdess": "CC BY-NC-SA 4.0",
    "demo": "synthesized by mmer, MIT",
}
CORPUS_LANGUAGES: Mapping[str, str] = {"iemocap": "en", "meld": "en", "ravdess": "en", "demo": "en"}


def encoder_licence(source: str) -> str:
    """Returns the licence of an encoder.

    Args:
        source: catalog name or hub id.

    Example:
        >>> encoder_licence("roberta-base"), encoder_licence("wav2vec2-tiny"), encoder_licence("somebody/encoder")
        ('MIT', 'MIT', 'not known')
    """
    spec = ENCODERS.get(source)
    if spec is not None and spec.source == BUILT_IN:
        return MIT
    return ENCODER_LICENCES.get(source if spec is None else spec.source, UNKNOWN)
