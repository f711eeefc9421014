"""Transcriber: an ASR model of Hugging Face, for a cache (``mmer-featurize --asr``) and for new recordings alike."""

import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import pipeline
from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES

from cache.errors import MmerError
from cache.stream import Scalar
from cache.transcripts import cut_text, longest_bytes
from featurize.encoders.base import Waveform
from featurize.encoders.huggingface import cached_revision, config_digest, weights_digest
from featurize.encoders.text import tokenizer_digest
from featurize.inputs.audio import MIN_SAMPLES, RATE_HZ
from featurize.inputs.transcript import clean_text

LONGEST_S = 30.0  # what Whisper reads at once; longer recordings are read in overlapping pieces
BEAMS = 1  # greedy, as the model's own generation: the pipeline's five beams take three times as long
# Fields of a generation config that change no token.
RECORDED_ONLY = frozenset({"transformers_version", "_from_model_config"})


class Transcribe(Protocol):
    """Transcribes recordings."""

    def __call__(self, waveforms: Sequence[Waveform]) -> list[str]:
        """Returns the transcript of each 16 kHz waveform ``(samples,)``; empty for silence."""
        ...


class Transcriber:
    """An ASR model; a recording is transcribed as it is alone, so that padding changes no word.

    Args:
        model: hub id, or folder with a checkpoint.
        device: device of the model.

    Attributes:
        source: hub id, or the name of the folder.
        revision: commit of the hub repository, empty for a folder.

    Raises:
        MmerError: if the checkpoint is not available, or is not an ASR model.
    """

    def __init__(self, model: str, device: torch.device) -> None:
        self.model = model
        try:
            self._recognizer: Any = pipeline(
                "automatic-speech-recognition", model=model, device=device, trust_remote_code=False
            )
        except Exception as error:  # the tokenizers library raises bare exceptions
            reason = " ".join(str(error).split())[:200]
            raise MmerError(
                f"--asr {model}: not available as an ASR model ({reason}); name a hub id or a folder"
            ) from error
        folder = Path(model)
        self.source = folder.resolve().name if folder.is_dir() else model
        self.revision = "" if folder.is_dir() else cached_revision(model)
        kind = self._recognizer.model.config.model_type
        self._by_frames = kind in MODEL_FOR_CTC_MAPPING_NAMES  # CTC models write capitals without punctuation

    @property
    def weights(self) -> str:
        """Digest of the weights."""
        return weights_digest(self._recognizer.model)

    @property
    def settings(self) -> dict[str, Scalar]:
        """Everything but the weights that determines a transcript, as digests."""
        recognizer = self._recognizer
        generation = getattr(recognizer, "generation_config", None)
        return {
            "config": config_digest(recognizer.model.config),
            "tokenizer": tokenizer_digest(recognizer.tokenizer) if recognizer.tokenizer.is_fast else _vocabulary(self),
            "features": _digest(recognizer.feature_extractor.to_dict()),
            "generation": _digest(generation.to_diff_dict()) if generation is not None else "",
            "beams": BEAMS,
            "piece_s": LONGEST_S,
        }

    def __call__(self, waveforms: Sequence[Waveform]) -> list[str]:
        """Returns the transcript of each 16 kHz waveform ``(samples,)``; empty for silence."""
        return [self._transcribe(waveform) for waveform in waveforms]

    def _transcribe(self, waveform: Waveform) -> str:
        if len(waveform) < MIN_SAMPLES or not waveform.any():
            return ""
        options: dict[str, Any] = {"chunk_length_s": LONGEST_S} if len(waveform) > LONGEST_S * RATE_HZ else {}
        if not self._by_frames:
            options["generate_kwargs"] = {"num_beams": BEAMS}
        text = str(self._recognizer({"raw": waveform, "sampling_rate": RATE_HZ}, **options)["text"])
        text = clean_text(text).text.strip()
        text = text.lower() if self._by_frames and text.isupper() else text
        return cut_text(text, longest_bytes(len(waveform) / RATE_HZ))


def _vocabulary(transcriber: Transcriber) -> str:
    return _digest(transcriber._recognizer.tokenizer.get_vocab())


def _digest(values: Any) -> str:
    """Computes a digest of plain values, without the versions that a file records."""
    kept = {name: value for name, value in values.items() if name not in RECORDED_ONLY}
    return blake2b(json.dumps(kept, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()
