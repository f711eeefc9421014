"""A stack: several heads of equal structure that compute as one model.

All trained parameters are in one matrix with a row per model, so that clipping, the optimizer and copying are single
operations; each parameter is a view of it, ``(models, ...)``. The batch is read once. Only the forward pass is inside
`vmap` (torch.func): ordinary autograd over the stacked operations computes all gradients.

`StackRules` replaces operations that `vmap` has no rule for, or a slow one: it folds all models into the batch. Folding
is exact, since the result of these operations for an utterance does not depend on the other utterances of the batch.
Rules for layers and their norms were tried and did not save time.
"""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fusion.head import Batch, Head, HeadOutput
from fusion.nn.dropout import Dropout
from fusion.nn.layers import MaskedBatchNorm
from fusion.training.config import TrainConfig

# Fields of the training that all models of a stack share; each model has its own values of the others.
COMMON = (
    "batch_size",
    "data_seed",
    "optimizer",
    "precision",
    "class_weights",
    "label_smoothing",
    "loss",
    "focal_gamma",
    "balanced_batches",
)
ALIGNED = 16  # float32 numbers, 64 bytes: a matrix that begins elsewhere is slow to multiply
Tensors = Mapping[str, Tensor]


def stack_key(head: Head, training: TrainConfig) -> Hashable:
    """Returns the key of the models of one fold and the same streams that may share a stack.

    Models of a stack may differ in learning rate, weight decay, warm-up, epochs, patience, monitor, clipping, seed,
    dropout rate and the `per_model` fields of the head. They agree in the presence of dropout and of each loss.

    Args:
        head: built head of the model.
        training: training configuration of the model.
    """
    config = head.config
    fields = [(name, value) for name, value in asdict(config).items() if name not in config.per_model]
    losses = [name for name, weight in config.loss_weights.items() if weight]
    dropouts = [module.active for module in head.modules() if isinstance(module, Dropout)]
    parameters = [(name, tuple(tensor.shape), tensor.requires_grad) for name, tensor in head.named_parameters()]
    buffers = [(name, tuple(tensor.shape)) for name, tensor in head.named_buffers()]
    common = [getattr(training, name) for name in COMMON]
    parts: list[list[Any]] = [fields, losses, dropouts, parameters, buffers, common]
    return type(head), *map(tuple, parts)


def unstackable_reason(head: Head, training: TrainConfig) -> str:
    """Returns why a model cannot be in a stack, empty if it can."""
    if training.precision == "float16":
        return "float16 scales the loss of each model separately"
    if head.config.modality_dropout:
        return "modality dropout removes different modalities from each model"
    if not head.stackable:
        return f"{type(head).__name__} does not set stackable"
    recurrent = next((type(module).__name__ for module in head.modules() if isinstance(module, nn.RNNBase)), "")
    return f"{recurrent} has no batching rule" if recurrent else ""


class StackRules(TorchFunctionMode):
    """Context in which the operations of `RULES` follow their rules."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        rule: Callable[..., Any] = RULES.get(func, func)
        return rule(*args, **(kwargs or {}))


def _attend(query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor) -> Tensor:
    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    return _fold(attend, query, key, value, attn_mask)


def _ctc(log_probabilities: Tensor, targets: Tensor, frames: Tensor, characters: Tensor, **options: Any) -> Tensor:
    def losses(log_probabilities: Tensor, targets: Tensor, frames: Tensor, characters: Tensor) -> Tensor:
        return functional.ctc_loss(log_probabilities.transpose(0, 1), targets, frames, characters, **options)

    return _fold(losses, log_probabilities.transpose(0, 1), targets, frames, characters)


RULES: Mapping[Callable[..., Any], Callable[..., Tensor]] = {
    functional.scaled_dot_product_attention: _attend,
    functional.ctc_loss: _ctc,
}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns of a parameter in the matrix of a stack."""

    first: int
    size: int
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        """First column after the parameter and its alignment gap."""
        return self.first + -(-self.size // ALIGNED) * ALIGNED

    def of(self, rows: Tensor) -> Tensor:
        """Returns the parameter of all models, a view ``(models, ...)`` of ``(models, columns)``."""
        return rows[:, self.first : self.first + self.size].view(len(rows), *self.shape)


class HeadStack:
    """Heads with equal stack keys that train together.

    The first head is the template of all: it must not be used otherwise while the stack is in use.

    Attributes:
        template: the first head.
        columns: columns of each trained parameter in `rows`, by name.
        rows: trained parameters, ``(models, columns)``.

    Args:
        heads: built and prepared heads with seeded dropout.
        device: device of the stack.
    """

    def __init__(self, heads: Sequence[Head], device: torch.device) -> None:
        self.template = heads[0]
        trained = {name: tensor for name, tensor in self.template.named_parameters() if tensor.requires_grad}
        self.columns = _arrange(trained)
        width = max((columns.end for columns in self.columns.values()), default=0)
        dtype = next(iter(trained.values())).dtype
        self.rows = torch.zeros(len(heads), width, dtype=dtype, device=device)
        for row, head in enumerate(heads):
            parameters = dict(head.named_parameters())
            for name, columns in self.columns.items():
                columns.of(self.rows[row : row + 1])[0] = parameters[name].detach()
        self._step = torch.tensor(0, device=device)
        self._shared, self._stacked = _untrained_state(heads, trained, self._step)
        self._create_views()

    def __len__(self) -> int:
        return len(self.rows)

    def __call__(self, batch: Batch) -> HeadOutput:
        """Computes logits ``(models, batch, classes)`` and losses ``(models,)`` of all heads in training mode."""
        self.template.train()
        return self._forward(batch)

    def logits(self, batch: Batch) -> Tensor:
        """Computes the logits of every head in eval mode, ``(models, batch, classes)``."""
        self.template.eval()
        return self._forward(batch).logits

    def set_step(self, step: int) -> None:
        """Sets the training step of every dropout."""
        self._step.fill_(step)

    def gradient(self, loss: Tensor) -> tuple[Tensor, frozenset[str]]:
        """Computes the gradient of each model's loss.

        Args:
            loss: loss of each model, ``(models,)``.

        Returns:
            The gradient, ``(models, columns)``, valid until the next call, and the names of the parameters that the
            loss depends on.
        """
        gradients = torch.autograd.grad(loss.sum(), list(self._parameters.values()), allow_unused=True)
        by_name = dict(zip(self.columns, gradients, strict=True))
        pieces: list[Tensor] = []
        for name, columns in self.columns.items():
            gradient, gap = by_name[name], columns.end - columns.first
            if gradient is not None:
                pieces.append(gradient.flatten(1))
                gap -= columns.size
            if gap:
                pieces.append(self._zeros[:, :gap])
        torch.cat(pieces, dim=1, out=self._gradient)
        return self._gradient, frozenset(name for name, gradient in by_name.items() if gradient is not None)

    def decayed(self, reached: Collection[str]) -> list[slice]:
        """Returns the columns of those of the parameters that are matrices: only matrices decay."""
        spans: list[slice] = []
        for name, columns in self.columns.items():
            if name in reached and len(columns.shape) > 1:
                adjacent = bool(spans) and spans[-1].stop == columns.first
                spans.append(slice(spans.pop().start if adjacent else columns.first, columns.end))
        return spans

    def state_dict(self, index: int) -> dict[str, Tensor]:
        """Copies the state of one model, by the names of its head."""
        stacked = {**self._parameters, **self._stacked}
        return {
            name: (stacked[name][index] if name in stacked else self._shared[name]).detach().clone()
            for name in self.template.state_dict()
        }

    def keep(self, indices: Sequence[int]) -> None:
        """Removes all models except those at some indices."""
        kept = torch.tensor(indices, device=self.rows.device)
        self.rows = self.rows[kept]
        self._stacked = {name: tensor[kept] for name, tensor in self._stacked.items()}
        self._create_views()

    def _forward(self, batch: Batch) -> HeadOutput:
        def forward(parameters: Tensors, stacked: Tensors) -> tuple[Tensor, dict[str, Tensor]]:
            output = functional_call(self.template, {**parameters, **stacked, **self._shared}, (batch,))
            return output.logits, dict(output.losses)

        with StackRules():
            return HeadOutput(*vmap(forward)(self._parameters, self._stacked))

    def _create_views(self) -> None:
        """Creates the parameters as views of the rows, and memory for their gradient."""
        self._parameters = {
            name: columns.of(self.rows).detach().requires_grad_() for name, columns in self.columns.items()
        }
        self._gradient = torch.empty_like(self.rows)
        widest = max((columns.end - columns.first for columns in self.columns.values()), default=0)
        self._zeros = self.rows.new_zeros(1, widest).expand(len(self), -1)


class _Folded(torch.autograd.Function):
    """A function of tensors ``(batch, ...)`` that is applied to the tensors of all models at once.

    Autograd records the `vmap` rule as usual, since the rule runs outside the `vmap`; nothing else is differentiated.
    """

    @staticmethod
    def forward(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        return function(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Saves nothing: `forward` is never differentiated."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], function: Callable[..., Tensor], *tensors: Tensor) -> Any:
        models = info.batch_size
        folded = [
            (tensor.expand(models, *tensor.shape) if dim is None else tensor.movedim(dim, 0)).flatten(0, 1)
            for tensor, dim in zip(tensors, in_dims[1:], strict=True)
        ]  # (models * batch, ...)
        result = function(*folded)
        return result.view(models, -1, *result.shape[1:]), 0


def _fold(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    result: Tensor = _Folded.apply(function, *tensors)  # type: ignore[no-untyped-call]
    return result


def _arrange(parameters: Mapping[str, nn.Parameter]) -> dict[str, Columns]:
    """Assigns columns to parameters; matrices come first, since only they decay."""
    arranged: dict[str, Columns] = {}
    first = 0
    for name, parameter in sorted(parameters.items(), key=lambda item: item[1].ndim <= 1):
        arranged[name] = Columns(first=first, size=parameter.numel(), shape=tuple(parameter.shape))
        first = arranged[name].end
    return arranged


def _untrained_state(
    heads: Sequence[Head], trained: Mapping[str, object], step: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Splits the state that is not trained into tensors that all heads share and stacked ones, ``(models, ...)``.

    Equal tensors that are never written are shared, and results that depend only on them are computed once, such as
    dropout masks with equal seeds.
    """
    steps = {f"{name}.step" for name, module in heads[0].named_modules() if isinstance(module, Dropout)}
    norms = tuple(f"{name}." for name, module in heads[0].named_modules() if isinstance(module, MaskedBatchNorm))
    shared: dict[str, Tensor] = dict.fromkeys(steps, step)
    stacked: dict[str, Tensor] = {}
    states = [dict([*head.named_parameters(), *head.named_buffers()]) for head in heads]
    for name in states[0].keys() - trained.keys() - steps:
        first, *others = [state[name].detach().to(step.device) for state in states]
        written = bool(norms) and name.startswith(norms)
        if written or any(not torch.equal(first, tensor) for tensor in others):
            stacked[name] = torch.stack([first, *others])
        else:
            shared[name] = first
    return shared, stacked
