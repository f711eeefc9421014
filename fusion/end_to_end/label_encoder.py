"""Label encoder: the text encoder that reads the words of a class, from which label embeddings of LE-MER start (L-4).

The encoder of the text stream is found on this machine by the stream's record of it, without a download. The user may
name an encoder instead, which may then be downloaded as by ``mmer-featurize``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.stream import TRANSCRIPT, StreamSpec

if TYPE_CHECKING:
    from featurize.encoders.text import TextEncoder

OFF = "off"  # value of --label-encoder that keeps the vectors in the cache
LOADED = 2  # encoders in memory: a grid may have several text streams
OTHER_ENCODER = "pass --label-encoder [NAME=]SOURCE, a catalog name, hub id or folder"
CONFIG = "config.json"  # of a checkpoint
# What a folder with a checkpoint of a text encoder must hold, each as one of several patterns.
NEEDED = (("*.safetensors", "*.bin"), ("tokenizer.json", "vocab.txt", "vocab.json", "spm.model"))


@dataclass(frozen=True, kw_only=True)
class LabelEncoder:
    """A text encoder on this machine, loaded when it is first called.

    Attributes:
        name: name of the encoder, for notes.
        source: catalog name, hub id or folder that it is loaded from.
        layers: hidden states that are read, as written after ``@``.
        weights: digest of its weights.
        tokenizer: digest of its tokenizer.
    """

    name: str
    source: str
    layers: str
    weights: str
    tokenizer: str

    @property
    def identity(self) -> dict[str, str]:
        """Plain values that decide the vectors: two encoders with equal identities give equal vectors."""
        return {"weights": self.weights, "tokenizer": self.tokenizer, "layers": self.layers}

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Computes the mean vector of the tokens of each text, special tokens excluded.

        Args:
            texts: texts without history.

        Returns:
            Float64 ``(texts, dim)``; stacked layers are averaged.

        Raises:
            MmerError: if the encoder cannot be loaded, or is no longer the encoder that was found.
        """
        encoder = _load(self.source, self.layers)
        if _digests(encoder) != (self.weights, self.tokenizer):
            raise MmerError(
                f"{self.source} is not the encoder {self.name} that was found before; restore it, "
                f"or pass --label-encoder {OFF}"
            )
        return np.stack([_mean_vector(encoder, text) for text in texts])


@dataclass(frozen=True, kw_only=True)
class LabelEncoders:
    """The choice of the label encoder of a run.

    Attributes:
        requested: value of ``--label-encoder``: ``[NAME=]SOURCE[@LAYERS]``, ``off``, or empty for the encoder of the
            text stream.
    """

    requested: str = ""

    def find(self, spec: StreamSpec) -> tuple[LabelEncoder | None, str]:
        """Finds the label encoder for a text stream.

        Args:
            spec: spec of the text stream.

        Returns:
            The encoder, None if labels start from vectors in the cache; and a note to print.

        Raises:
            MmerError: if the user names an encoder that is not available or does not fit the stream.
        """
        if self.requested == OFF:
            return None, ""
        if self.requested:
            encoder = _requested_encoder(self.requested, spec)
            other = "" if encoder.weights == spec.weights else f", another encoder than that of {spec.name}"
            return encoder, f"{_used_note(encoder)}{other}"
        found = _stream_encoder(spec)
        if isinstance(found, str):
            return None, f"label embeddings start from the cached vectors of their words (L-4): {found}"
        return found, _used_note(found)


def _used_note(encoder: LabelEncoder) -> str:
    return f"label embeddings start from {encoder.name}, which reads the words of each class (L-4)"


def _requested_encoder(requested: str, spec: StreamSpec) -> LabelEncoder:
    """Loads the encoder that the user names; without ``@LAYERS``, the layers are those of the text stream."""
    from featurize.encoders.catalog import parse_requests
    from featurize.encoders.load import consumes

    (request,) = parse_requests([requested])
    if consumes(request.source) != TRANSCRIPT:
        raise MmerError(f"--label-encoder {requested} is an encoder of speech; name an encoder of text, or {OFF}")
    (layers,) = request.layers
    encoder = _load(request.source, layers)
    weights, tokenizer = _digests(encoder)
    if weights == spec.weights and layers == "last":
        layers = spec.layers
    width = encoder.specs[0].shape[-1]
    if width != spec.shape[-1]:
        raise MmerError(
            f"--label-encoder {requested} has vectors of width {width}, text stream {spec.name} of {spec.shape[-1]}; "
            f"name an encoder of that width, or {OFF}"
        )
    return LabelEncoder(name=request.name, source=request.source, layers=layers, weights=weights, tokenizer=tokenizer)


def _stream_encoder(spec: StreamSpec) -> LabelEncoder | str:
    """Finds the encoder of a text stream on this machine; returns the reason and the way out if it is not there."""
    from featurize.encoders.catalog import BUILT_IN, ENCODERS

    if spec.imported or not spec.weights:
        return f"{spec.name} does not record its encoder; {OTHER_ENCODER}"
    tokenizer = str(spec.preprocessing.get("tokenizer", ""))
    fields: dict[str, Any] = {"layers": spec.layers, "weights": spec.weights, "tokenizer": tokenizer}
    if spec.source in ENCODERS and ENCODERS[spec.source].source == BUILT_IN:
        found = LabelEncoder(name=spec.source, source=spec.source, **fields)
        same = _digests(_load(found.source, found.layers)) == (spec.weights, tokenizer)
        return found if same else f"{spec.source} of this version has other weights; {OTHER_ENCODER}"
    if not spec.revision:
        return f"the folder of {spec.source} is not known; pass --label-encoder {spec.source}=FOLDER"
    folder = _cached_snapshot(spec.source, spec.revision)
    if folder is None:
        return f"{spec.source} at revision {spec.revision[:8]} is not in the hub cache; {OTHER_ENCODER}"
    return LabelEncoder(name=spec.source, source=str(folder), **fields)


def _cached_snapshot(source: str, revision: str) -> Path | None:
    """Returns the folder of a complete text checkpoint in the hub cache; None without one."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(source, CONFIG, revision=revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    complete = all(any(path for pattern in patterns for path in folder.glob(pattern)) for patterns in NEEDED)
    return folder if complete else None


@lru_cache(LOADED)
def _load(source: str, layers: str) -> "TextEncoder":
    import torch

    from featurize.encoders.catalog import EncoderRequest
    from featurize.encoders.load import load_text_encoder
    from featurize.encoders.options import EncodingOptions
    from featurize.encoders.text import TextEncoder

    request = EncoderRequest(name=Path(source).name, source=source, layers=(layers,))
    encoder, _ = load_text_encoder(request, EncodingOptions(device=torch.device("cpu")))
    assert isinstance(encoder, TextEncoder)
    return encoder


def _digests(encoder: "TextEncoder") -> tuple[str, str]:
    """Returns the digests of the weights and of the tokenizer of an encoder."""
    spec = encoder.specs[0]
    return spec.weights, str(spec.preprocessing["tokenizer"])


def _mean_vector(encoder: "TextEncoder", text: str) -> npt.NDArray[np.float64]:
    from featurize.inputs.transcript import Turn

    turn = Turn(text)
    rows = np.asarray(encoder.encode([turn])[0][0], dtype=np.float64)  # (tokens, dim) or (tokens, layers, dim)
    tokens = encoder.tokenizer(
        encoder.words(turn), truncation=True, max_length=encoder.max_tokens, return_special_tokens_mask=True
    )
    spoken = rows[np.asarray(tokens["special_tokens_mask"]) == 0]
    mean: npt.NDArray[np.float64] = spoken.reshape(-1, spoken.shape[-1]).mean(axis=0)
    return mean
