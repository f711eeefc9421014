"""What one step of training is made of: the loss, the modalities taken away, the optimizer and its rate."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from cache.stream import ROLES, SPEECH
from fusion.evaluation.task import CLASSIFICATION, Task
from fusion.head import AUDIO, TEXT, Batch, HeadOutput

OPTIMIZERS: Mapping[str, type[torch.optim.Adam]] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
TOTAL = "total"
TARGETS = frozenset({"chars"})  # what a loss compares with is no input, and stays when its modality is taken away
MODALITY_DROPOUT = 0xD20  # keeps these draws apart from those of batches


def build_optimizer(head: nn.Module, *, name: str, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Builds ``adamw``, which decays weights apart from their gradient, or ``adam``, which adds L2 to it.

    Norms, biases and other vectors do not decay. Fused: on a CPU 5 times as fast as the default for 40 matrices 768
    wide, 20 times for 64 wide.
    """
    trained = [parameter for parameter in head.parameters() if parameter.requires_grad]
    groups = [
        {"params": [one for one in trained if one.ndim > 1], "weight_decay": weight_decay},
        {"params": [one for one in trained if one.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = all(one.device.type in {"cpu", "cuda"} for one in trained)
    return OPTIMIZERS[name]([group for group in groups if group["params"]], lr=lr, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def total_loss(
    output: HeadOutput,
    labels: Tensor,
    weights: Mapping[str, float | Tensor],
    *,
    by_class: Tensor | None = None,
    smoothing: float = 0.0,
    task: Task = CLASSIFICATION,
) -> dict[str, Tensor]:
    """Gives what the loss is made of, and last the one to minimize.

    Args:
        output: of a head.
        labels: int64 ``(batch,)``.
        weights: of the auxiliary losses; the main loss has weight 1.
        by_class: weight of each class in the main loss, ``(classes,)``.
        smoothing: of the labels.
        task: task that defines the main loss.

    Returns:
        Scalars by name: the main loss, such as ``cross_entropy``, the auxiliary ones, unweighted, and ``total``.
    """
    main = task.loss(output.logits, labels, weights=by_class, smoothing=smoothing)
    total = main
    for name, loss in output.losses.items():
        total = total + weights[name] * loss
    return {task.loss_name: main, **output.losses, TOTAL: total}


def optimizer_step(
    loss: Tensor, head: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, *, clip: float
) -> None:
    """Takes one step down a loss, the norm of its gradient clipped; 0 for no clipping."""
    optimizer.zero_grad()
    torch.autograd.backward(scaler.scale(loss))
    if clip:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(head.parameters(), clip)
    scaler.step(optimizer)
    scaler.update()


def modality_dropout(batch: Batch, rate: float, *, seed: int, step: int) -> Batch:
    """Takes one of two modalities away from some utterances (C-3 of systems.md), drawn from (seed, step) alone.

    An utterance that has only one keeps it. Targets of losses, such as characters, stay.

    Args:
        batch: of training.
        rate: how often.
        seed: of the model.
        step: of training.
    """
    if not rate:
        return batch
    roles = {modality: [role for role in batch.masks if _modality(role) == modality] for modality in (AUDIO, TEXT)}
    if not all(roles.values()):
        return batch
    both = _present(batch, roles[AUDIO]) & _present(batch, roles[TEXT])
    draws = np.random.default_rng([seed, step, MODALITY_DROPOUT]).random((2, len(batch)))
    chosen, audio = torch.from_numpy(np.stack([draws[0] < rate, draws[1] < 0.5])).to(both.device)
    for modality, absent in ((AUDIO, both & chosen & audio), (TEXT, both & chosen & ~audio)):
        for role in roles[modality]:
            batch = batch.without(role, absent)
    return batch


def _modality(role: str) -> str:
    """Tells to which modality a role belongs, views included; targets to none."""
    kind = role.partition(".")[0]
    if kind in TARGETS:
        return ""
    return AUDIO if ROLES[kind] == SPEECH else TEXT


def _present(batch: Batch, roles: list[str]) -> Tensor:
    return torch.stack([batch.masks[role].any(dim=1) for role in roles]).any(dim=0)
