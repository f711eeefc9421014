"""Stream specification: a complete description of the rows of one stream, and the key derived from it."""

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from hashlib import blake2b

import numpy as np

from cache.json_text import parse_json

Scalar = str | int | float | bool | None

SPEECH, TRANSCRIPT = "speech", "transcript"
VIEW = "~"  # in the name of a stream of augmented views, before the name of the view
NO_VIEW = "no view: "  # starts the reason of an utterance that a stream of views leaves out on purpose

# Types of stored values: plain numbers of numpy, in the byte order of the machine.
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = ("float16", "float32", "float64", *_INTEGERS)

# Role of a stream -> what its encoder consumes. Heads request streams by role.
INTEGER_ROLES = frozenset({"codes", "tokens", "chars"})  # roles of ids, which cannot be read as features
ROLES: Mapping[str, str] = {
    "audio": SPEECH,
    "mel": SPEECH,
    "codes": SPEECH,
    "patches": SPEECH,
    "text": TRANSCRIPT,
    "tokens": TRANSCRIPT,
    "chars": TRANSCRIPT,
}


def is_member_name(name: str) -> bool:
    """Returns True if a group of a cache file can hold a stream or an array of this name.

    Example:
        >>> [is_member_name(name) for name in ("hubert@6", "", "a/b", ".")]
        [True, False, False, False]
    """
    storable = not any(sign in "/\0" or "\ud800" <= sign <= "\udfff" for sign in name)
    return storable and name not in {"", "."}  # HDF5 reads "." as the group itself


@dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """Everything that determines the values of a stream, and further records that do not.

    Attributes:
        name: name of the stream in the file, such as ``wav2vec2-base.codes``.
        role: kind of the rows: audio, mel, codes, patches, text, tokens or chars.
        source: catalog source, hub id or folder name of the encoder.
        revision: commit of the hub repository, empty for folders and built-in encoders.
        weights: digest of the encoder's weights, empty where it has none.
        layers: hidden states of the encoder, as requested after ``@``.
        shape: shape of one row, ``(dim,)`` or ``(layers, dim)``.
        dtype: type of the stored values.
        precision: type of the computation.
        rate_hz: rows per second of speech, 0 for text.
        preprocessing: steps applied to the input before the encoder.
        versions: library versions; recorded, not in the key.
        limits: limits on the inputs that the run accepted; recorded, not in the key.
        trained_on: data that a fine-tuned encoder was trained on; recorded, not in the key.

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
        if not is_member_name(self.name):
            raise ValueError(f"the name of a stream must be non-empty and hold no slash and no NUL, got {self.name!r}")
        if self.role not in ROLES:
            raise ValueError(f"role of {self.name} must be one of {', '.join(ROLES)}, got {self.role!r}")
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"shape of {self.name} must hold positive sizes, got {self.shape}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype of {self.name} must be one of {', '.join(DTYPES)}, got {self.dtype!r}")

    @property
    def consumes(self) -> str:
        """Input of the encoder: ``speech`` or ``transcript``."""
        return ROLES[self.role]

    @property
    def imported(self) -> bool:
        """True for a stream of another toolkit: its input digests are of the rows, not of a recording."""
        return "imported" in self.preprocessing

    @property
    def view(self) -> str:
        """Name of the augmentation of a stream of views, such as ``lsa``; empty for originals."""
        return str(self.preprocessing.get("view") or "")

    @property
    def encoder(self) -> str:
        """Name of the encoder, under which its weights are stored: the stream's name without layers, kind and view."""
        name = self.name.rpartition(VIEW)[0] if self.view else self.name
        return re.sub(r"@[\w,-]+", "", name.removesuffix(".codes").removesuffix(".tokens"))

    @property
    def row_bytes(self) -> int:
        """Bytes of one stored row, its scale included."""
        scale_bytes = 2 if self.dtype == "int8" else 0
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize + scale_bytes

    @property
    def identity(self) -> dict[str, object]:
        """The fields that determine the values."""
        recorded = {"name", "versions", "limits", "trained_on"}
        return {name: value for name, value in self._plain().items() if name not in recorded}

    @property
    def key(self) -> str:
        """Digest of the identity, 32 hexadecimal digits."""
        return blake2b(json.dumps(self.identity, sort_keys=True).encode(), digest_size=16).hexdigest()

    def differences(self, other: "StreamSpec") -> list[str]:
        """Lists the fields of the identity that differ, as ``name value -> other value``."""
        first, second = _flat(self.identity), _flat(other.identity)
        names = sorted(first.keys() | second.keys())
        return [
            f"{name} {first.get(name)} -> {second.get(name)}" for name in names if first.get(name) != second.get(name)
        ]

    def to_json(self) -> str:
        """Writes all fields as one JSON object."""
        return json.dumps(self._plain(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "StreamSpec":
        """Reads the text of `to_json`; fields of later minor versions are ignored.

        Raises:
            ValueError: if it is not JSON, or a field is missing, of another type or invalid.
        """
        described = parse_json(text)
        if not isinstance(described, dict):
            raise ValueError(f"the description of a stream must be an object, got {type(described).__name__}")
        values = {item.name: described[item.name] for item in fields(cls) if item.name in described}
        missing = [item.name for item in fields(cls) if item.default is MISSING and item.default_factory is MISSING]
        for name in missing:
            if name not in values:
                raise ValueError(f"the description of a stream has no {name}")
        for name, value in values.items():
            _check_field(name, value)
        return cls(**{**values, "shape": tuple(values["shape"])})

    def _plain(self) -> dict[str, object]:
        return {**asdict(self), "shape": list(self.shape)}


def _check_field(name: str, value: object) -> None:
    """Checks a field of a description from outside."""
    plain = str | int | float | bool | None
    if name == "shape":
        fits = isinstance(value, list) and all(type(size) is int for size in value)
    elif name == "rate_hz":
        fits = type(value) in {int, float} and 0 <= value < float("inf")  # type: ignore[operator]
    elif name == "trained_on":
        fits = isinstance(value, dict)
    elif name in {"preprocessing", "versions", "limits"}:
        fits = isinstance(value, dict) and all(isinstance(item, plain) for item in value.values())
    else:
        fits = isinstance(value, str)
    if not fits:
        raise ValueError(f"{name} of a stream is invalid, got {value!r:.100}")


def _flat(identity: Mapping[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in identity.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}.{inner}": item for inner, item in value.items()})
        else:
            flat[name] = value
    return flat
