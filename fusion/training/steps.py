"""One training step: modality dropout, total loss, optimizer, learning rate and gradient clipping."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cache.stream import ROLES, SPEECH
from fusion.evaluation.classes import CLASSIFICATION
from fusion.evaluation.task import Task
from fusion.head import Batch, Head, HeadOutput
from fusion.head_config import AUDIO, TEXT
from fusion.training.optimizer import Adam

PRECISIONS: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
TOTAL = "total"
SHARE = "share"  # key of a group of parameters: its learning rate, as a share of that of the head
TARGETS = frozenset({"chars"})  # roles that are targets of a loss; modality dropout keeps them
MODALITY_DROPOUT = 0xD20  # part of the random seed: separates these draws from those of batches


def build_optimizer(head: nn.Module, *, name: str, lr: float, weight_decay: float) -> Adam:
    """Builds the optimizer of the trainable parameters.

    ``adamw`` decays weights separately from the gradient, ``adam`` adds L2 to the gradient. Norms, biases and other
    vectors do not decay. The optimizer is fused: on a CPU this is 5 times as fast as the default for 40 matrices of
    width 768, and 20 times for width 64.

    Args:
        head: head to train; a `Head` tells the learning rates of its parts.
        name: ``adamw`` or ``adam``.
        lr: learning rate.
        weight_decay: weight decay of matrices.
    """
    whole = [(lr, [parameter for parameter in head.parameters() if parameter.requires_grad])]
    parts = head.learning_rates(lr) if isinstance(head, Head) else whole
    groups = [
        {"params": chosen, "weight_decay": weight_decay if matrices else 0.0, SHARE: rate / lr}
        for rate, trained in parts
        for matrices in (True, False)
        if (chosen := [parameter for parameter in trained if (parameter.ndim > 1) == matrices])
    ]
    fused = all(parameter.device.type in {"cpu", "cuda"} for _, trained in parts for parameter in trained)
    return Adam(groups, name=name, lr=lr, fused=fused)


def set_learning_rate(optimizer: Adam, rate: float) -> None:
    """Sets the learning rate of the next step; each part of a head has its share of it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group[SHARE]


def total_loss(
    output: HeadOutput,
    labels: Tensor,
    weights: Mapping[str, float | Tensor],
    *,
    by_class: Tensor | None = None,
    smoothing: float = 0.0,
    task: Task = CLASSIFICATION,
) -> dict[str, Tensor]:
    """Computes the loss to minimize and its terms.

    Args:
        output: output of a head.
        labels: class of each utterance, int64 ``(batch,)``.
        weights: weights of the auxiliary losses by name; the main loss has weight 1.
        by_class: weight of each class in the main loss, ``(classes,)``.
        smoothing: label smoothing in [0, 1).
        task: task that defines the main loss.

    Returns:
        Scalars by name: the main loss such as ``cross_entropy``, the unweighted auxiliary losses, and last ``total``,
        the loss to minimize.
    """
    main = task.loss(output.logits, labels, weights=by_class, smoothing=smoothing)
    total = main
    for name, loss in output.losses.items():
        total = total + weights[name] * loss
    return {task.loss_name: main, **output.losses, TOTAL: total}


def optimizer_step(
    loss: Tensor, head: nn.Module, optimizer: Adam, scaler: torch.amp.GradScaler, *, clip: float
) -> None:
    """Updates the parameters by one step on a loss.

    Args:
        loss: scalar to minimize.
        head: head to train.
        optimizer: optimizer of its parameters.
        scaler: gradient scaler of float16.
        clip: maximum norm of the gradient; 0 for no clipping.
    """
    optimizer.zero_grad()
    torch.autograd.backward(scaler.scale(loss))
    scaled: Any = optimizer  # a scaler reads its groups and calls its step
    if clip:
        scaler.unscale_(scaled)
        nn.utils.clip_grad_norm_(head.parameters(), clip)
    scaler.step(scaled)
    scaler.update()


def modality_dropout(batch: Batch, rate: float, *, seed: int, step: int) -> Batch:
    """Removes one of two modalities from random utterances of a batch (docs/decisions.md#c-3).

    The draws depend on (seed, step) only. An utterance with a single modality keeps it. Targets of losses, such as
    characters, stay.

    Args:
        batch: training batch.
        rate: probability that an utterance loses a modality, in [0, 1).
        seed: random seed of the model.
        step: number of the training step.
    """
    if not rate:
        return batch
    roles = {modality: [role for role in batch.masks if _modality(role) == modality] for modality in (AUDIO, TEXT)}
    if not all(roles.values()):
        return batch
    both = _present(batch, roles[AUDIO]) & _present(batch, roles[TEXT])
    draws = np.random.default_rng([seed, step, MODALITY_DROPOUT]).random((2, len(batch)))
    dropped, drops_audio = torch.from_numpy(np.stack([draws[0] < rate, draws[1] < 0.5])).to(both.device)
    for modality, absent in ((AUDIO, both & dropped & drops_audio), (TEXT, both & dropped & ~drops_audio)):
        for role in roles[modality]:
            batch = batch.without(role, absent)
    return batch


def _modality(role: str) -> str:
    """Returns the modality of a role or of its augmented view; empty for a target."""
    kind = role.partition(".")[0]
    if kind in TARGETS:
        return ""
    return AUDIO if ROLES[kind] == SPEECH else TEXT


def _present(batch: Batch, roles: list[str]) -> Tensor:
    return torch.stack([batch.masks[role].any(dim=1) for role in roles]).any(dim=0)
