"""What of a model decides its features, as digests: its weights and its configuration."""

import json
from hashlib import blake2b

import torch
from torch import nn
from transformers import PretrainedConfig

from featurize.encoders.families import UNUSED

NOT_DECIDING = frozenset({"architectures", "transformers_version", "dtype", "torch_dtype"})


def weights_digest(*modules: nn.Module) -> str:
    """Digests names, types, shapes and values of weights, whatever file they came from."""
    digest = blake2b(digest_size=16)
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            if name.endswith(UNUSED):
                continue
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def config_digest(config: PretrainedConfig) -> str:
    """Digests what a configuration says that decides a feature: the shape of the model, not who made it.

    Only what differs from the defaults of its family counts: a default added by a later library changes nothing.
    """
    told = config.to_diff_dict()
    decides = {name: value for name, value in told.items() if name not in NOT_DECIDING and not name.startswith("_")}
    return blake2b(json.dumps(decides, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()
