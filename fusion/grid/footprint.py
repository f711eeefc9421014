"""How much memory the training of one model takes, measured on its longest batch before anything is stacked."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fusion.batches import scoring_batches
from fusion.features import FeatureSource
from fusion.grid.models import Model
from fusion.grid.train import prepared
from fusion.inputs import Batch
from fusion.memory import memory_budget
from fusion.steps import TOTAL, config_of, roles_of, total_loss

COPIES = 7  # of the parameters: themselves, gradients twice, two moments, the best epoch, room for one more
WORKING = 2  # times what the backward pass keeps: gradients of activations, temporaries
SHARE = 0.5  # of the memory that is left beside the features


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What the training of one model takes.

    Attributes:
        parameters: bytes of those that are trained.
        activations: bytes that the longest batch keeps for the backward pass.
    """

    parameters: int
    activations: int

    @property
    def size_bytes(self) -> int:
        """All of it, an estimate from above."""
        return COPIES * self.parameters + WORKING * self.activations


def footprint_of(model: Model, source: FeatureSource) -> Footprint:
    """Measures what the training of a model takes; nothing is trained."""
    head, _ = prepared(model, source)
    head.to(source.device)
    head.train()
    roles = roles_of(head)
    costs = source.costs(model.fold.train, roles)
    longest = scoring_batches(costs, batch_size=model.training.batch_size)[0]
    batch = source.batch(model.fold.train[longest], roles)
    return Footprint(
        parameters=sum(one.nbytes for one in head.parameters() if one.requires_grad),
        activations=_kept_bytes(head, batch),
    )


def room_for(footprint: Footprint, source: FeatureSource) -> int:
    """Tells how many models fit in memory beside the features at a time; at least one is tried."""
    budget = memory_budget(source.device, SHARE)
    if source.device.type != "cuda" and source.resident:
        budget -= int(SHARE * source.size_bytes)  # there all memory counts, free or not
    return max(1, budget // max(1, footprint.size_bytes))


def _kept_bytes(head: nn.Module, batch: Batch) -> int:
    """Counts what a forward pass keeps, parameters and features apart."""
    held = {one.untyped_storage().data_ptr() for one in [*head.state_dict().values(), *batch.features.values()]}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = head(batch)
        losses = total_loss(output, batch.labels, config_of(head).loss_weights)
    total = sum(kept.values())
    del losses[TOTAL]
    return total
