"""What exactly was computed for one stream of a cache, and the key that names it."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from hashlib import blake2b

import numpy as np

Scalar = str | int | float | bool | None

SPEECH, TRANSCRIPT = "speech", "transcript"

# Role of a stream -> what its encoder consumed. Heads ask for streams by role.
ROLES: Mapping[str, str] = {
    "audio": SPEECH,
    "mel": SPEECH,
    "codes": SPEECH,
    "patches": SPEECH,
    "text": TRANSCRIPT,
    "tokens": TRANSCRIPT,
    "chars": TRANSCRIPT,
}


@dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """Everything that decides the values of a stream, and what is recorded beside it.

    Attributes:
        name: name of the stream in the file, such as ``wav2vec2-base.codes``.
        role: what the rows are: audio, mel, codes, patches, text, tokens or chars.
        source: catalog source, hub id or folder name of the encoder.
        revision: commit of the hub repository, empty for folders and built-in encoders.
        weights: digest of the encoder's weights, empty where it has none.
        layers: which hidden states, as asked for after ``@``.
        shape: shape of one row, ``(dim,)`` or ``(layers, dim)``.
        dtype: how values are stored.
        precision: how they were computed.
        rate_hz: rows per second of speech, 0 for text.
        preprocessing: what happens to the input before the encoder.
        versions: library versions; recorded, not in the key.
        limits: which inputs the run accepted; recorded, not in the key.
        trained_on: what a fine-tuned encoder has seen; recorded, not in the key.

    Example:
        >>> spec = StreamSpec(name="a", role="audio", source="hub/a", shape=(768,), dtype="float16")
        >>> spec.key == StreamSpec.from_json(spec.to_json()).key
        True
    """

    name: str
    role: str
    source: str
    revision: str = ""
    weights: str = ""
    layers: str = "last"
    shape: tuple[int, ...]
    dtype: str
    precision: str = "float32"
    rate_hz: float = 0.0
    preprocessing: Mapping[str, Scalar] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, Scalar] = field(default_factory=dict)
    trained_on: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(f"the name of a stream must be non-empty and hold no slash, got {self.name!r}")
        if self.role not in ROLES:
            raise ValueError(f"role of {self.name} must be one of {', '.join(ROLES)}, got {self.role!r}")
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"shape of {self.name} must hold positive sizes, got {self.shape}")
        np.dtype(self.dtype)  # TypeError for a name numpy does not know

    @property
    def consumes(self) -> str:
        """What its encoder reads: ``speech`` or ``transcript``."""
        return ROLES[self.role]

    @property
    def imported(self) -> bool:
        """Whether it comes from another toolkit, so that its input digests are of the rows, not of a recording."""
        return "imported" in self.preprocessing

    @property
    def encoder(self) -> str:
        """Name of the encoder that gave it, under which weights are kept: the stream's without layers and kind."""
        return re.sub(r"@[\w,-]+", "", self.name.removesuffix(".codes").removesuffix(".tokens"))

    @property
    def row_bytes(self) -> int:
        """Bytes of one stored row, its scale included."""
        scale_bytes = 2 if self.dtype == "int8" else 0
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize + scale_bytes

    @property
    def identity(self) -> dict[str, object]:
        """The fields that decide the values."""
        recorded = {"name", "versions", "limits", "trained_on"}
        return {name: value for name, value in self._plain().items() if name not in recorded}

    @property
    def key(self) -> str:
        """Digest of the identity, 32 hexadecimal digits."""
        return blake2b(json.dumps(self.identity, sort_keys=True).encode(), digest_size=16).hexdigest()

    def differences(self, other: "StreamSpec") -> list[str]:
        """Names each field of the identity that differs, with the value here and the value there."""
        mine, theirs = _flat(self.identity), _flat(other.identity)
        names = sorted(mine.keys() | theirs.keys())
        return [
            f"{name} {mine.get(name)} -> {theirs.get(name)}" for name in names if mine.get(name) != theirs.get(name)
        ]

    def to_json(self) -> str:
        """Writes all fields as one JSON object."""
        return json.dumps(self._plain(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "StreamSpec":
        """Reads what `to_json` wrote; fields of later minor versions are left out."""
        known = {item.name for item in fields(cls)}
        values = {name: value for name, value in json.loads(text).items() if name in known}
        return cls(**{**values, "shape": tuple(values["shape"])})

    def _plain(self) -> dict[str, object]:
        return {**asdict(self), "shape": list(self.shape)}


def _flat(identity: Mapping[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in identity.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}.{inner}": item for inner, item in value.items()})
        else:
            flat[name] = value
    return flat
