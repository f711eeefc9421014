"""Several heads of equal structure as one model stack.

All trained parameters lie in one matrix with a row per model, so that clipping, the optimizer and copying are single
operations; each parameter is a view of it, ``(models, ...)``. The batch is read once. `vmap` (torch.func) is around
the forward pass alone: ordinary autograd over the stacked operations gives all gradients.

Which models may be trained as one stack.

How stacked models compute what `vmap` has no rule for, or a slow one: all models folded into the batch.

What an operation gives for an utterance depends on no other utterance of the batch, so that folding is exact. Layers
and their norms were tried as rules of their own and gained nothing.
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

# Fields of the training that all models of a stack share; the others are of each model.
COMMON = ("batch_size", "data_seed", "optimizer", "precision", "class_weights", "label_smoothing")
ALIGNED = 16  # float32 numbers, 64 bytes: a matrix that begins elsewhere is slow to multiply
Tensors = Mapping[str, Tensor]


def stack_key(head: Head, training: TrainConfig) -> Hashable:
    """Gives what two models of one fold, read from the same streams, must agree in to share a stack.

    Learning rate, weight decay, warm-up, epochs, patience, monitor, clipping and seed are of each model, and so are
    the rate of dropout and the `per_model` fields of the head; but whether there is dropout and which losses there are
    is not.

    Args:
        head: built, of the model.
        training: how it is trained.
    """
    config = head.config
    fields = [(name, value) for name, value in asdict(config).items() if name not in config.per_model]
    losses = [name for name, weight in config.loss_weights.items() if weight]
    dropouts = [module.active for module in head.modules() if isinstance(module, Dropout)]
    parameters = [(name, tuple(one.shape), one.requires_grad) for name, one in head.named_parameters()]
    buffers = [(name, tuple(one.shape)) for name, one in head.named_buffers()]
    common = [getattr(training, name) for name in COMMON]
    parts: list[list[Any]] = [fields, losses, dropouts, parameters, buffers, common]
    return type(head), *map(tuple, parts)


def unstackable(head: Head, training: TrainConfig) -> str:
    """Says why a model can share no stack at all, empty if it can."""
    if training.precision == "float16":
        return "float16 scales the loss of each model by itself"
    if head.config.modality_dropout:
        return "modality dropout takes other modalities from each model"
    if not head.stackable:
        return f"{type(head).__name__} does not set stackable"
    recurrent = next((type(module).__name__ for module in head.modules() if isinstance(module, nn.RNNBase)), "")
    return f"{recurrent} has no batching rule" if recurrent else ""


class StackRules(TorchFunctionMode):
    """Where it is active, operations of `RULES` follow the rules."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        rule: Callable[..., Any] = RULES.get(func, func)
        return rule(*args, **(kwargs or {}))


def _attend(query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor) -> Tensor:
    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    return _folded(attend, query, key, value, attn_mask)


def _ctc(log_probabilities: Tensor, targets: Tensor, frames: Tensor, characters: Tensor, **how: Any) -> Tensor:
    def losses(log_probabilities: Tensor, targets: Tensor, frames: Tensor, characters: Tensor) -> Tensor:
        return functional.ctc_loss(log_probabilities.transpose(0, 1), targets, frames, characters, **how)

    return _folded(losses, log_probabilities.transpose(0, 1), targets, frames, characters)


RULES: Mapping[Callable[..., Any], Callable[..., Tensor]] = {
    functional.scaled_dot_product_attention: _attend,
    functional.ctc_loss: _ctc,
}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where a parameter lies in a row."""

    first: int
    size: int
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        """Where the next may begin."""
        return self.first + -(-self.size // ALIGNED) * ALIGNED

    def of(self, rows: Tensor) -> Tensor:
        """Gives the parameter of all models, a view ``(models, ...)`` of ``(models, columns)``."""
        return rows[:, self.first : self.first + self.size].view(len(rows), *self.shape)


class HeadStack:
    """Heads with equal stack keys, trained at once.

    The first lends its structure: while the stack is in use, nothing else may use it.

    Args:
        heads: built, prepared, and told their seeds.
        device: where the stack lies.
    """

    def __init__(self, heads: Sequence[Head], device: torch.device) -> None:
        self.template = heads[0]
        trained = {name: one for name, one in self.template.named_parameters() if one.requires_grad}
        self.columns = _columns(trained)
        width = max((one.end for one in self.columns.values()), default=0)
        dtype = next(iter(trained.values())).dtype
        self.rows = torch.zeros(len(heads), width, dtype=dtype, device=device)
        for place, head in enumerate(heads):
            parameters = dict(head.named_parameters())
            for name, columns in self.columns.items():
                columns.of(self.rows[place : place + 1])[0] = parameters[name].detach()
        self._step = torch.tensor(0, device=device)
        self._shared, self._stacked = _beside(heads, trained, self._step)
        self._look()

    def __len__(self) -> int:
        return len(self.rows)

    def __call__(self, batch: Batch) -> HeadOutput:
        """Gives what each head gives in training: logits ``(models, batch, classes)`` and losses ``(models,)``."""
        self.template.train()
        return self._forward(batch)

    def logits(self, batch: Batch) -> Tensor:
        """Gives the logits of every head in eval mode, ``(models, batch, classes)``."""
        self.template.eval()
        return self._forward(batch).logits

    def set_step(self, step: int) -> None:
        """Tells every dropout which step of training it is."""
        self._step.fill_(step)

    def gradient(self, loss: Tensor) -> tuple[Tensor, frozenset[str]]:
        """Takes the gradient of each model's loss.

        Args:
            loss: of each model, ``(models,)``.

        Returns:
            The gradient by row, ``(models, columns)``, good until the next; and the parameters that have one.
        """
        found = torch.autograd.grad(loss.sum(), list(self._parameters.values()), allow_unused=True)
        named = dict(zip(self.columns, found, strict=True))
        pieces: list[Tensor] = []
        for name, columns in self.columns.items():
            one, gap = named[name], columns.end - columns.first - columns.size
            filled = one is not None
            pieces += [one.flatten(1)] if one is not None else []
            if gap or not filled:
                pieces.append(self._zeros[:, : gap if filled else columns.end - columns.first])
        torch.cat(pieces, dim=1, out=self._gradient)
        return self._gradient, frozenset(name for name, one in named.items() if one is not None)

    def decayed(self, reached: Collection[str]) -> list[slice]:
        """Gives the columns of those of the parameters that are matrices, which alone decay."""
        spans: list[slice] = []
        for name, one in self.columns.items():
            if name in reached and len(one.shape) > 1:
                joins = bool(spans) and spans[-1].stop == one.first
                spans.append(slice(spans.pop().start if joins else one.first, one.end))
        return spans

    def state_dict(self, place: int) -> dict[str, Tensor]:
        """Copies the state of one model, by the names that its head has."""
        every = {**self._parameters, **self._stacked}
        return {
            name: (every[name][place] if name in every else self._shared[name]).detach().clone()
            for name in self.template.state_dict()
        }

    def keep(self, places: Sequence[int]) -> None:
        """Drops all models but some."""
        kept = torch.tensor(places, device=self.rows.device)
        self.rows = self.rows[kept]
        self._stacked = {name: one[kept] for name, one in self._stacked.items()}
        self._look()

    def _forward(self, batch: Batch) -> HeadOutput:
        def one(parameters: Tensors, stacked: Tensors) -> tuple[Tensor, dict[str, Tensor]]:
            output = functional_call(self.template, {**parameters, **stacked, **self._shared}, (batch,))
            return output.logits, dict(output.losses)

        with StackRules():
            return HeadOutput(*vmap(one)(self._parameters, self._stacked))

    def _look(self) -> None:
        """Makes the parameters anew as views of the rows, and room for their gradient."""
        self._parameters = {name: one.of(self.rows).detach().requires_grad_() for name, one in self.columns.items()}
        self._gradient = torch.empty_like(self.rows)
        widest = max((one.end - one.first for one in self.columns.values()), default=0)
        self._zeros = self.rows.new_zeros(1, widest).expand(len(self), -1)


class _Folded(torch.autograd.Function):
    """Applies a function of tensors ``(batch, ...)`` to those of all models at once.

    Nothing but the rule is ever differentiated: it runs outside the `vmap`, where autograd records it as usual.
    """

    @staticmethod
    def forward(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        return function(*tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keeps nothing."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], function: Callable[..., Tensor], *tensors: Tensor) -> Any:
        models = info.batch_size
        folded = [
            (one.expand(models, *one.shape) if dim is None else one.movedim(dim, 0)).flatten(0, 1)
            for one, dim in zip(tensors, in_dims[1:], strict=True)
        ]
        made = function(*folded)
        return made.view(models, -1, *made.shape[1:]), 0


def _folded(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    made: Tensor = _Folded.apply(function, *tensors)  # type: ignore[no-untyped-call]
    return made


def _columns(parameters: Mapping[str, nn.Parameter]) -> dict[str, Columns]:
    """Places matrices first, since they alone decay."""
    placed: dict[str, Columns] = {}
    first = 0
    for name, one in sorted(parameters.items(), key=lambda item: item[1].ndim <= 1):
        placed[name] = Columns(first=first, size=one.numel(), shape=tuple(one.shape))
        first = placed[name].end
    return placed


def _beside(
    heads: Sequence[Head], trained: Mapping[str, object], step: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Gives all state that is not trained: what all heads share, and what is stacked.

    Equal state that nothing writes to is shared, and what is computed of it alone is computed once: masks of dropout
    too, where seeds are equal.
    """
    steps = {f"{name}.step" for name, module in heads[0].named_modules() if isinstance(module, Dropout)}
    norms = tuple(f"{name}." for name, module in heads[0].named_modules() if isinstance(module, MaskedBatchNorm))
    shared: dict[str, Tensor] = dict.fromkeys(steps, step)
    stacked: dict[str, Tensor] = {}
    states = [dict([*head.named_parameters(), *head.named_buffers()]) for head in heads]
    for name in states[0].keys() - trained.keys() - steps:
        every = [state[name].detach().to(step.device) for state in states]
        written = bool(norms) and name.startswith(norms)
        if written or any(not torch.equal(every[0], one) for one in every[1:]):
            stacked[name] = torch.stack(every)
        else:
            shared[name] = every[0]
    return shared, stacked
