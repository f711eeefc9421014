"""Transcriber: an ASR model of Hugging Face that gives recordings without a text their transcripts."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from transformers import pipeline
from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES

from cache.errors import MmerError
from featurize.encoders.base import Waveform
from featurize.inputs.audio import MIN_SAMPLES, RATE_HZ

LONGEST_S = 30.0  # what Whisper reads at once; longer recordings are read in overlapping pieces


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
        kind = self._recognizer.model.config.model_type
        self._by_frames = kind in MODEL_FOR_CTC_MAPPING_NAMES  # CTC models write capitals without punctuation

    def __call__(self, waveforms: Sequence[Waveform]) -> list[str]:
        """Returns the transcript of each 16 kHz waveform ``(samples,)``; empty for silence."""
        return [self._transcribe(waveform) for waveform in waveforms]

    def _transcribe(self, waveform: Waveform) -> str:
        if len(waveform) < MIN_SAMPLES or not waveform.any():
            return ""
        chunks = {"chunk_length_s": LONGEST_S} if len(waveform) > LONGEST_S * RATE_HZ else {}
        text = str(self._recognizer({"raw": waveform, "sampling_rate": RATE_HZ}, **chunks)["text"]).strip()
        return text.lower() if self._by_frames and text.isupper() else text
