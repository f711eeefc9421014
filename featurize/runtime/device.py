"""Devices that encoders run on, and the seconds of audio that one batch holds on each."""

from collections.abc import Mapping

import torch

from featurize.runtime.device_name import AUTO, check_device_name, unavailable

# On a CPU, single utterances run near the speed of the matrix products alone, and padding only adds work. A GPU is
# poorly used by small batches.
BATCH_SECONDS: Mapping[str, float] = {"cpu": 0.0, "cuda": 200.0, "mps": 60.0}


def choose_device(name: str) -> torch.device:
    """Returns the device of that name; ``auto`` selects a CUDA GPU if there is one, else the CPU.

    Raises:
        MmerError: if the name is invalid or this machine has no such device.
    """
    check_device_name(name)
    if name == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in BATCH_SECONDS:
            raise NotImplementedError(device.type)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise unavailable(name) from error
    return device


def default_batch_seconds(device: torch.device) -> float:
    """Returns the default seconds of audio per batch, padding included; 0 is one utterance."""
    return BATCH_SECONDS.get(device.type, 0.0)
