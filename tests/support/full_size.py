"""What heads are built from at full size: base and large encoders whose weights are zeros that take no memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusion.head_config import HeadInputs

SPEECH, LARGE = 768, 1024  # widths of wav2vec2-base and ViT-base, of roberta-large


def full_size_inputs(*, text: int = SPEECH, classes: Sequence[str] = ("ang", "hap", "neu", "sad")) -> HeadInputs:
    """Tells of wav2vec2-base, ViT-base over log-mel and a language model of some width after its layer 12.

    Args:
        text: width of the language model.
        classes: names of the classes.
    """
    sizes = {"codevectors": (640, 128), "project_q.weight": (256, 256), "project_q.bias": (256,)}
    sizes |= {"project_hid.weight": (256, SPEECH), "project_hid.bias": (256,)}
    quantizer = {name: np.zeros(size, dtype=np.float32) for name, size in sizes.items()}
    vit = {"cls": zeros(SPEECH), "patch.weight": zeros(SPEECH, 16, 16), "patch.bias": zeros(SPEECH)}
    vit |= {"positions": zeros(471, SPEECH), "position_grid": zeros(14, 14, SPEECH)}
    vit |= {"norm.weight": zeros(SPEECH), "norm.bias": zeros(SPEECH)}
    return HeadInputs(
        classes=tuple(classes),
        shapes={"audio": (SPEECH,), "text": (text,), "mel": (80,), "patches": (SPEECH,), "audio.view": (SPEECH,)},
        weights={
            "audio": quantizer,
            "patches": vit | _layers(SPEECH, range(5), heads=12, norm_first=True),
            "text": _layers(text, range(12, 17), heads=text // 64, norm_first=False),
        },
        layers={"text": "12"},
    )


def zeros(*shape: int) -> Any:
    """Gives zeros of any shape in the memory of one."""
    return np.broadcast_to(np.float32(0), shape)


def _layers(dim: int, indices: range, *, heads: int, norm_first: bool) -> dict[str, Any]:
    sizes: dict[str, tuple[int, ...]] = {"self_attn.in_proj_weight": (3 * dim, dim)}
    parts = {"self_attn.out_proj": (dim, dim), "linear1": (4 * dim, dim), "linear2": (dim, 4 * dim)}
    sizes |= {f"{part}.weight": size for part, size in parts.items()}
    sizes |= {f"{part}.bias": size[:1] for part, size in parts.items()} | {"self_attn.in_proj_bias": (3 * dim,)}
    sizes |= {f"norm{place}.{name}": (dim,) for place in (1, 2) for name in ("weight", "bias")}
    known = {"heads": np.array(heads), "norm_eps": np.array(1e-5), "norm_first": np.array(int(norm_first))}
    return known | {f"layers.{index}.{name}": zeros(*size) for index in indices for name, size in sizes.items()}
