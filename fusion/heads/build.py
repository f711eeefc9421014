"""Building a head: the class of the catalog, its weights seeded, on the CPU."""

import torch
from torch import nn

from cache.errors import MmerError
from fusion.data.memory import is_out_of_memory
from fusion.head import Head
from fusion.head_config import HeadConfig, HeadInputs
from fusion.heads.catalog import head_spec
from fusion.nn.dropout import seed_dropout


def build_head(name: str, config: HeadConfig, inputs: HeadInputs, *, seed: int) -> Head:
    """Builds a head on the CPU; equal seeds give equal heads.

    The caller's random generators keep their state.

    Args:
        name: name in the catalog, or an import path.
        config: an instance of the head's `Head.config_class`.
        inputs: description of the data.
        seed: seed of the weights and of all dropout.

    Raises:
        MmerError: if the name is unknown, the configuration does not fit the data, or the head does not fit in memory.
        ValueError: if the configuration belongs to another head.
    """
    spec = head_spec(name)
    if type(config) is not spec.config:
        raise ValueError(f"head {name} is configured by {spec.config.__name__}, got {type(config).__name__}")
    if config.needs_classes and not inputs.has_classes:
        raise MmerError(f"head {name} cannot predict {', '.join(inputs.classes)}: {config.needs_classes}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs too, which are not forked here
        try:
            head = spec.head_class()(config, inputs)
        except ValueError as error:
            raise MmerError(f"head {name}: {error}") from error
        except (RuntimeError, MemoryError, TypeError) as error:
            if not is_out_of_memory(error):
                raise
            raise MmerError(f"head {name} needs more memory than is available; choose a smaller dim") from error
    seed_dropout(head, seed)
    return head


def count_parameters(head: nn.Module) -> int:
    """Counts the trainable parameters."""
    return sum(parameter.numel() for parameter in head.parameters() if parameter.requires_grad)
