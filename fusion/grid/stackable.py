"""Which models may be trained as one stack."""

from collections.abc import Hashable
from dataclasses import asdict
from typing import Any

from torch import nn

from fusion.dropout import Dropout
from fusion.steps import config_of
from fusion.train_config import TrainConfig

# Fields of the training that all models of a stack share; the others are of each model.
COMMON = ("batch_size", "data_seed", "optimizer", "precision", "class_weights", "label_smoothing")


def stack_key(head: nn.Module, training: TrainConfig) -> Hashable:
    """Gives what two models of one fold, read from the same streams, must agree in to share a stack.

    Learning rate, weight decay, warm-up, epochs, patience, monitor, clipping and seed are of each model, and so are
    the rate of dropout and the `per_model` fields of the head; but whether there is dropout and which losses there are
    is not.

    Args:
        head: built, of the model.
        training: how it is trained.
    """
    config = config_of(head)
    fields = [(name, value) for name, value in asdict(config).items() if name not in config.per_model]
    losses = [name for name, weight in config.loss_weights.items() if weight]
    dropouts = [module.active for module in head.modules() if isinstance(module, Dropout)]
    parameters = [(name, tuple(one.shape), one.requires_grad) for name, one in head.named_parameters()]
    buffers = [(name, tuple(one.shape)) for name, one in head.named_buffers()]
    common = [getattr(training, name) for name in COMMON]
    parts: list[list[Any]] = [fields, losses, dropouts, parameters, buffers, common]
    return type(head), *map(tuple, parts)


def unstackable(head: nn.Module, training: TrainConfig) -> str:
    """Says why a model can share no stack at all, empty if it can."""
    if training.precision == "float16":
        return "float16 scales the loss of each model by itself"
    if config_of(head).modality_dropout:
        return "modality dropout takes other modalities from each model"
    recurrent = next((type(module).__name__ for module in head.modules() if isinstance(module, nn.RNNBase)), "")
    return f"{recurrent} has no batching rule" if recurrent else ""
