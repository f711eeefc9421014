"""Every head of the catalog, small, and what training makes of it."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fusion.head import Batch, Head
from fusion.head_config import HeadConfig, HeadInputs
from fusion.heads.build import build_head
from fusion.heads.catalog import HEADS, config_for
from fusion.nn.layers import Adapter
from tests.support.heads import ToyRows, head_inputs, samples

SMALL = {
    "rescmfa": {"layers": 2, "text_slots": 40, "audio_slots": 60},  # else its gate has 2.6 million weights
    "bimodal": {"feedforward": 24, "cpc_steps": 3, "cpc_dim": 16, "cpc_anchors": 8, "cpc_negatives": 16},
}
MODALITIES = {"audio": ("audio", "mel", "patches", "codes", "audio.view"), "text": ("text", "text.view", "tokens")}
SINGLE = {"audio": "audio", "text": "text"}  # heads of one modality
LEARNING = [name for name in HEADS if name != "probe"]  # by gradients; a probe is fitted
CASES = [
    pytest.param(name, modalities, id=f"{name}-{modalities}")
    for name in LEARNING
    for modalities in (["both", "audio", "text"] if name not in SINGLE else [SINGLE[name]])
]
DEFAULTS = [pytest.param(name, SINGLE.get(name, "both"), id=name) for name in LEARNING]
FUSING = [name for name in LEARNING if name not in SINGLE]


def made(
    name: str, modalities: str = "both", *, seed: int = 3, inputs: HeadInputs | None = None, **values: object
) -> Head:
    """Builds a head that has learned what `prepare` may, with its adapters awake."""
    inputs = inputs or head_inputs()
    config = config_for(name, {**SMALL.get(name, {}), "modalities": modalities, **values})
    head = build_head(name, config, inputs, seed=seed)
    head.prepare(ToyRows(samples(48, inputs, seed=9)))
    generator = torch.Generator().manual_seed(seed)
    for adapter in adapters(head):
        nn.init.normal_(adapter.outer.weight, std=0.1, generator=generator)
    return head


def adapters(head: Head) -> list[Adapter]:
    return [module for module in head.modules() if isinstance(module, Adapter)]


def read_by(config: HeadConfig, batch: Batch, *, training: bool) -> Batch:
    """Leaves nothing but the roles that a head says it reads."""
    roles = {*config.roles, *((*config.training_roles, *config.optional_roles) if training else ())}
    return replace(
        batch,
        features={role: rows for role, rows in batch.features.items() if role in roles},
        masks={role: mask for role, mask in batch.masks.items() if role in roles},
    )


def predicted(head: Head, batch: Batch) -> Tensor:
    head.eval()
    with torch.no_grad():
        logits: Tensor = head(read_by(head.config, batch, training=False)).logits
    return logits


def losses(head: Head, batch: Batch) -> dict[str, Tensor]:
    """Gives each loss of training, weighted."""
    output = head.train()(read_by(head.config, batch, training=True))
    weights = head.config.loss_weights
    auxiliary = {name: weights[name] * loss for name, loss in output.losses.items()}
    return {"": functional.cross_entropy(output.logits, batch.labels), **auxiliary}


def backward(head: Head, loss: Tensor) -> set[str]:
    """Gives the parameters that a loss has a gradient for."""
    head.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    reached = {name for name, part in head.named_parameters() if part.grad is not None and bool(part.grad.any())}
    grads = [part.grad for part in head.parameters() if part.grad is not None]
    assert all(bool(grad.isfinite().all()) for grad in grads)
    return reached


def trainable(head: Head) -> set[str]:
    return {name for name, part in head.named_parameters() if part.requires_grad}


def total(head: Head, batch: Batch) -> Tensor:
    return torch.stack(list(losses(head, batch).values())).sum()


def without(batch: Batch, modality: str, absent: list[int]) -> Batch:
    """Takes a modality away from some utterances."""
    chosen = torch.zeros(len(batch), dtype=torch.bool)
    chosen[absent] = True
    for role in MODALITIES[modality]:
        batch = batch.without(role, chosen)
    return batch
