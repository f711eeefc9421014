"""Any text encoder of Hugging Face with a fast tokenizer: admitted to batches by a comparison, else run one by one.

What a model does with padding is not known beforehand. A few transcripts of the corpus are encoded in one batch and
each alone; only where both agree are batches used.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cache.errors import MmerError
from cache.rows import Rows
from featurize.encoders.text import TextEncoder
from featurize.inputs.transcript import Turn

TOLERANCE = 1e-5  # of the relative L2 between a text in a batch and alone, in float32
COMPARED = 4  # texts of a comparison


class AnyTextEncoder(TextEncoder):
    """A text encoder that transformers can build, of a family without an entry in the table of families.

    It takes the arguments of `TextEncoder`. Until `admit` or the first batch of several lengths has compared a batch
    with single texts, nothing is known, and `one_by_one` is None.
    """

    one_by_one: bool | None = None

    def admit(self, turns: Sequence[Turn]) -> str:
        """Compares a batch of these transcripts with each alone, and takes texts one by one if they differ.

        Returns:
            A note on what was found, empty if no two texts differ in length.
        """
        sample = _spread(turns)
        if len(sample) < 2:
            return ""
        together = self._encode(sample, precise=True)
        alone = [self._encode([turn], precise=True)[0] for turn in sample]
        pairs = [pair for rows in zip(together, alone, strict=True) for pair in zip(*rows, strict=True)]
        worst = float(np.max([_deviation(found, expected) for found, expected in pairs]))
        self.one_by_one = not worst <= TOLERANCE  # a NaN is not an agreement
        way = "texts are encoded one by one" if self.one_by_one else "texts are encoded in batches"
        return f"{self.specs[0].name} in a batch and alone differ by {worst:.0e} ({len(sample)} texts): {way}"

    def encode(self, inputs: Sequence[Turn], *, precise: bool = False) -> list[tuple[Rows, ...]]:
        """Encodes transcripts as `TextEncoder` does, in a batch only if that changes nothing."""
        if self.one_by_one is None:
            self.admit(inputs)
        if self.one_by_one:
            return [self._encode([turn], precise=precise)[0] for turn in inputs]
        return self._encode(inputs, precise=precise)

    def _encode(self, inputs: Sequence[Turn], *, precise: bool) -> list[tuple[Rows, ...]]:
        return super().encode(inputs, precise=precise)

    def _vectors(self, ids: Tensor, mask: Tensor, precision: torch.dtype) -> list[Rows]:
        model = self._models[precision]
        with torch.inference_mode():
            states = text_states(model, ids.to(self.device), mask.to(self.device))
            hidden = dict(enumerate(states[:-1]))
            return [choice.select(hidden, states[-1]).float().cpu().numpy() for choice in self.choices]


def text_states(model: nn.Module, ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    """Runs a text model; returns its hidden states and its output last, each ``(batch, tokens, dim)``.

    Raises:
        MmerError: if it returns no hidden states for its tokens.
    """
    masked = "attention_mask" in inspect.signature(model.forward).parameters  # FNet has none: its texts are mixed whole
    masks = {"attention_mask": mask.long()} if masked else {}
    output: Any = model(input_ids=ids, **masks, output_hidden_states=True)
    last, hidden = getattr(output, "last_hidden_state", None), getattr(output, "hidden_states", None)
    if last is None or hidden is None or any(state.shape[:2] != ids.shape for state in (*hidden, last)):
        raise MmerError(f"{type(model).__name__} returns no hidden state for each token; use another encoder")
    return (*hidden, last)


def count_layers(model: nn.Module) -> int:
    """Returns the number of layers of a text model: hidden states count from 0 to this number."""
    ids = torch.zeros(1, 2, dtype=torch.long, device=next(model.parameters()).device)
    with torch.inference_mode():
        return len(text_states(model, ids, torch.ones_like(ids))) - 2


def _spread(turns: Sequence[Turn]) -> list[Turn]:
    """Chooses a few transcripts of different lengths, from the shortest to the longest."""
    by_length = {len(turn.text): turn for turn in turns if turn.text.strip()}
    ordered = [by_length[length] for length in sorted(by_length)]
    ranks = np.linspace(0, len(ordered) - 1, min(COMPARED, len(ordered))).round().astype(int)
    return [ordered[rank] for rank in ranks]


def _deviation(found: Rows, expected: Rows) -> float:
    exact = expected.astype(np.float64)
    return float(np.linalg.norm(found - exact) / (np.linalg.norm(exact) or 1.0))
