"""Where encoders run, and how much speech one batch may hold there."""

from collections.abc import Mapping

import torch

from cache.errors import MmerError

# On a CPU one utterance at a time is near the matmul floor and padding only costs; a GPU starves on small batches.
BATCH_SECONDS: Mapping[str, float] = {"cpu": 0.0, "cuda": 200.0, "mps": 60.0}


def choose_device(name: str) -> torch.device:
    """Gives the device of that name; ``auto`` takes a GPU where there is one.

    Raises:
        MmerError: if there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in BATCH_SECONDS:
            raise NotImplementedError(device.type)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise MmerError(f"device {name!r} is not to be had here; take auto, cpu, cuda, cuda:N or mps") from error
    return device


def default_batch_seconds(device: torch.device) -> float:
    """Gives the audio seconds of one batch that suit a device, padding included."""
    return BATCH_SECONDS.get(device.type, 0.0)
