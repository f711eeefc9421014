"""Adam and AdamW by torch's functional form, with the values of ``torch.optim.Adam`` and ``AdamW``.

The classes of torch import its compiler (``torch._dynamo``) when they are built and at every step, which takes longer
than the rest of a small training. The functional form, which these classes call as well, does not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

from fusion.training.config import OPTIMIZERS

BETAS = (0.9, 0.999)  # decay rates of both moments: the defaults of the paper (arXiv:1412.6980) and of torch
EPSILON = 1e-8
STEP = "step"
MOMENTS = (STEP, "exp_avg", "exp_avg_sq")  # the state of a parameter, under the names of torch


class Adam:
    """Adam over groups of parameters (Kingma and Ba, 2015, arXiv:1412.6980; AdamW: arXiv:1711.05101).

    It has those parts of the interface of ``torch.optim.Optimizer`` that a training and ``torch.amp.GradScaler`` use.

    Args:
        groups: groups of parameters under ``params``, each with its own ``lr`` and ``weight_decay`` if it has them, and
            any further entries.
        name: ``adamw`` decays weights separately from the gradient, ``adam`` adds L2 to the gradient.
        lr: learning rate of groups without one.
        weight_decay: weight decay of groups without one.
        fused: use the fused kernel of a CPU or a CUDA GPU.

    Attributes:
        param_groups: the groups; their learning rates may be changed between steps.
        state: step and moments of each parameter that had a gradient.

    Raises:
        ValueError: if the name is unknown.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = Adam([{"params": [weight]}], name="adam", lr=0.1, fused=True)
        >>> weight.grad = torch.ones(1)
        >>> optimizer.step()
        >>> weight.data
        tensor([0.9000])
    """

    def __init__(
        self, groups: Sequence[Mapping[str, Any]], *, name: str, lr: float, weight_decay: float = 0.0, fused: bool
    ) -> None:
        if name not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {name!r}")
        self.name, self.fused = name, fused
        self.param_groups: list[dict[str, Any]] = [
            {"lr": lr, "weight_decay": weight_decay, **group} for group in groups
        ]
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    def zero_grad(self) -> None:
        """Removes the gradients of all parameters."""
        for parameter in self._parameters():
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Updates every parameter that has a gradient."""
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            states = [self._state_of(parameter) for parameter in trained]
            if not trained:
                continue
            adam(
                trained,
                [parameter.grad for parameter in trained],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state[STEP] for state in states],
                fused=self.fused,
                decoupled_weight_decay=self.name == "adamw",
                amsgrad=False,
                beta1=BETAS[0],
                beta2=BETAS[1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=EPSILON,
                maximize=False,
            )

    def tensors(self) -> dict[int, dict[str, Tensor]]:
        """Returns step and moments of each parameter that had a gradient, by its number over all groups."""
        numbered = enumerate(self._parameters())
        return {number: self.state[parameter] for number, parameter in numbered if parameter in self.state}

    def load(self, tensors: Mapping[int, Mapping[str, Tensor]]) -> None:
        """Continues with step and moments as `tensors` returns them; moments get the type of their parameter.

        Raises:
            ValueError: if a tensor does not belong to a parameter, or a parameter lacks one.
        """
        parameters = self._parameters()
        for number, state in tensors.items():
            fits = 0 <= number < len(parameters)
            for name, tensor in state.items():
                if not fits or name not in MOMENTS or tensor.shape != self._shape(parameters[number], name):
                    raise ValueError(f"{name} of parameter {number} does not fit the optimizer")
            if len(state) < len(MOMENTS):
                raise ValueError(f"parameter {number} lacks a part of its state")
        self.state = {
            parameters[number]: {name: self._own(tensor, parameters[number], name) for name, tensor in state.items()}
            for number, state in tensors.items()
        }

    def _shape(self, parameter: Tensor, name: str) -> torch.Size:
        return torch.Size() if name == STEP else parameter.shape

    def _own(self, tensor: Tensor, parameter: Tensor, name: str) -> Tensor:
        if name == STEP:
            return tensor.to(self._step_device(parameter), torch.float32)
        return tensor.to(parameter.device, parameter.dtype)

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        if parameter not in self.state:
            self.state[parameter] = {
                STEP: torch.zeros((), dtype=torch.float32, device=self._step_device(parameter)),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
        return self.state[parameter]

    def _step_device(self, parameter: Tensor) -> torch.device:
        """Returns the device of the number of steps: without the fused kernel, a CPU counts them."""
        return parameter.device if self.fused else torch.device("cpu")
