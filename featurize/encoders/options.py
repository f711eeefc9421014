"""How encoders run, what they accept, and which library versions did it."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

from cache.stream import Scalar
from cache.version import DISTRIBUTION

PRECISIONS: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
RECORDED: Mapping[str, str] = {  # name in a stream's spec -> distribution
    "mmer": DISTRIBUTION,
    **{name: name for name in ("torch", "transformers", "numpy", "soxr", "soundfile", "librosa", "av")},
}


@dataclass(frozen=True, kw_only=True)
class EncodingOptions:
    """How encoders run and what they accept.

    Attributes:
        device: where they run.
        dtype: how features are stored.
        precision: type Transformers compute in.
        codes: quantizer codes: True wanted, False not wanted, None where the checkpoint has them.
        event_tags: ``strip`` or ``keep``.
        truncate: cut transcripts that are too long instead of failing.
        history: how many turns of the dialogue before an utterance its text encoder reads too.
        max_tokens: longest text, special tokens included; None for what the encoder takes.
        max_seconds: longest utterance.
        chunk: encode longer ones in pieces instead of failing.
        start_layers: how many pre-trained layers are kept for JFM to start from.
    """

    device: torch.device
    dtype: str = "float16"
    precision: str = "float32"
    codes: bool | None = None
    event_tags: str = "strip"
    truncate: bool = False
    history: int = 0
    max_tokens: int | None = None
    max_seconds: float = 60.0
    chunk: bool = False
    start_layers: int = 2


def recorded_limits(options: EncodingOptions, *, chunk: bool) -> dict[str, Scalar]:
    """Gives what a stream's spec records of the inputs accepted."""
    return {"max_seconds": options.max_seconds, "chunk": chunk}


def library_versions() -> dict[str, str]:
    """Returns the versions of the packages that influence a feature, as far as they are installed."""
    found = {}
    for name, distribution in RECORDED.items():
        try:
            found[name] = version(distribution)
        except PackageNotFoundError:  # a bare clone, or a machine without librosa
            continue
    return found
