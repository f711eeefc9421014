"""The layers of an encoder that learn: values of ``--tune ROLE[=all|N|wave|lora:R]``."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from cache.errors import MmerError
from fusion.head_config import AUDIO, TEXT

PATCHES = "patches"
TUNABLE = (AUDIO, TEXT, PATCHES)  # roles whose encoders can learn
NONE, ALL, WAVE, LORA = "none", "all", "wave", "lora"
ALLOWED = "all, a number of top layers such as 3, wave (speech only), or lora:RANK such as lora:8"
DEPTH = re.compile(rf"{ALL}|{WAVE}|{LORA}:[1-9]\d*|[1-9]\d*")


@dataclass(frozen=True, kw_only=True)
class Tune:
    """Choice of the layers that learn in the encoder of one role.

    Attributes:
        role: role whose encoder learns: ``audio``, ``text`` or ``patches``.
        layers: number of top layers that learn; 0 for all.
        wave: whether the convolutions of a speech encoder learn too.
        rank: rank of the LoRA adapters that learn instead of the layers; 0 for none.
    """

    role: str
    layers: int = 0
    wave: bool = False
    rank: int = 0

    @property
    def text(self) -> str:
        """The value after ``ROLE=``."""
        return f"{LORA}:{self.rank}" if self.rank else WAVE if self.wave else str(self.layers or ALL)

    @property
    def words(self) -> str:
        """Text for users: the layers that learn."""
        if self.rank:
            return f"LoRA of rank {self.rank} in all layers"
        if self.wave:
            return "convolutions and all layers"
        return f"top {self.layers} layers" if self.layers > 1 else "top layer" if self.layers else "all layers"


def parse_tunes(texts: Iterable[str]) -> dict[str, Tune]:
    """Reads the values of ``--tune``, by role.

    Args:
        texts: ``ROLE`` or ``ROLE=DEPTH``; a single ``none`` means that no encoder learns.

    Raises:
        MmerError: if a role cannot be tuned or is given twice, or a depth is not allowed.

    Example:
        >>> {role: tune.words for role, tune in parse_tunes(["audio", "text=3"]).items()}
        {'audio': 'all layers', 'text': 'top 3 layers'}
    """
    given = [text.strip() for text in texts]
    if given == [NONE]:
        return {}
    tunes: dict[str, Tune] = {}
    for text in given:
        role, separator, depth = text.partition("=")
        if role not in TUNABLE:
            raise MmerError(f"--tune {text}: the role must be one of {', '.join(TUNABLE)}, got {role!r}")
        if role in tunes:
            raise MmerError(f"--tune {role} is given twice; give it once")
        tunes[role] = _tune(role, depth if separator else ALL)
    return tunes


def _tune(role: str, depth: str) -> Tune:
    if not DEPTH.fullmatch(depth):
        raise MmerError(f"--tune {role} must be {ALLOWED}; got {depth!r}")
    if depth == WAVE:
        if role != AUDIO:
            raise MmerError(f"--tune {role}={WAVE}: only the encoder of {AUDIO} has convolutions; got {role}")
        return Tune(role=role, wave=True)
    if depth.startswith(LORA):
        return Tune(role=role, rank=int(depth.partition(":")[2]))
    return Tune(role=role, layers=0 if depth == ALL else int(depth))
