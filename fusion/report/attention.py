"""Attention of LE-MER by class, the words of each class, and the sound of its key frames.

Source: LE-MER (Wang et al., 2023, arXiv:2309.02106), Fig. 1 and 4. Attention is averaged over the test utterances of a
class in bins of relative position, since utterances differ in length.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fusion.data.batches import scoring_batches
from fusion.head_config import AUDIO, TEXT
from fusion.heads.label_guided.attention import Alignment, without_ends
from fusion.heads.label_guided.head import LabelGuided
from fusion.pictures.attention import draw_attention
from fusion.report.finished import FinishedRun
from fusion.report.page import Block, Facts, Heard, Pen, Pictures, Section, Utterances
from fusion.report.sounds import Sounds
from fusion.report.vectors import LoadedModel

TOKEN_BINS, TIME_BINS = 8, 24
KEY_S = 0.8  # duration of the sound of key frames, in seconds
BATCH = 16  # utterances
WORDS = re.compile(r"(?P<name>.+) is described by the words (?P<words>.+)")


@dataclass(kw_only=True)
class ClassAttention:
    """Attention over the test utterances of one class.

    Attributes:
        sums: sum of the binned attention, ``(token bins, time bins)``; 1 is uniform.
        count: number of utterances.
        best: id of the utterance with the greatest probability of the class, its key time in seconds, the probability.
    """

    sums: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((TOKEN_BINS, TIME_BINS)))
    count: int = 0
    best: tuple[str, float, float] = ("", 0.0, -1.0)


def attention_section(run: FinishedRun, model: LoadedModel, pen: Pen, sounds: Sounds) -> Section | None:
    """Returns attention, words and key frames of each class; None for other heads and for a single modality."""
    head = model.head
    if not isinstance(head, LabelGuided) or not hasattr(head, "attention"):
        return None
    by_class = attention_by_class(run, model)
    panels = {run.labels[index]: found.sums / found.count for index, found in sorted(by_class.items()) if found.count}
    caption = "Attention of tokens to the recording, averaged over the test utterances of each class"
    blocks: list[Block] = [Pictures(items=[pen.picture(draw_attention(panels), caption)])]
    if words := class_words(run):
        blocks.append(Facts(rows=[(name, text, False) for name, text in words.items()], caption="Words of each class"))
    items = [_heard(run, run.labels[index], found, sounds) for index, found in sorted(by_class.items())]
    blocks.append(
        Utterances(items=[item for item in items if item], caption="Key frames: where the surest utterance is attended")
    )
    lead = "Where each class is attended to: tokens from first to last, the recording from start to end."
    return Section(name="attention", heading="Label attention", lead=lead, blocks=blocks)


def attention_by_class(run: FinishedRun, model: LoadedModel) -> Mapping[int, ClassAttention]:
    """Computes the attention of each class over the test utterances of a model.

    Args:
        run: run of the model.
        model: label-guided head of both modalities with its test subset.
    """
    found: dict[int, ClassAttention] = defaultdict(ClassAttention)
    kept: list[Alignment] = []
    attention = model.head.attention
    assert isinstance(attention, nn.Module)
    rate_hz = model.source.streams[AUDIO].spec.rate_hz or 50.0
    hook = attention.register_forward_hook(lambda module, given, alignment: kept.append(alignment))
    try:
        lengths = model.source.lengths(model.indices, model.head.config.roles)
        groups = [model.indices[group] for group in scoring_batches(lengths, batch_size=BATCH)]
        with torch.no_grad():
            for batch in model.source.batches(groups, model.head.config.roles):
                probabilities = model.head(batch).logits.softmax(dim=-1).numpy()
                weights = kept.pop().weights.numpy()
                spoken, heard = without_ends(batch.masks[TEXT]).numpy(), batch.masks[AUDIO].numpy()
                for position, index in enumerate(batch.indices.tolist()):
                    matrix = weights[position][spoken[position]][:, heard[position]]
                    of_class = found[int(batch.labels[position])]
                    sure = float(probabilities[position, int(batch.labels[position])])
                    _add(of_class, matrix, model.source.ids[index], sure, rate_hz)
    finally:
        hook.remove()
    return found


def class_words(run: FinishedRun) -> dict[str, str]:
    """Returns the words that describe each class in the first model, from its notes."""
    notes: Sequence[str] = run.results["folds"][0].get("notes", ())
    matches = [match for note in notes if (match := WORDS.fullmatch(str(note)))]
    return {match["name"]: match["words"] for match in matches if match["name"] in run.labels}


def binned(matrix: npt.NDArray[Any], rows: int, columns: int) -> npt.NDArray[np.float64]:
    """Averages a matrix over bins of equal width, ``(rows, columns)``.

    Example:
        >>> binned(np.array([[1.0, 3.0, 5.0, 7.0]]), 1, 2).tolist()
        [[2.0, 6.0]]
    """
    return _shares(rows, matrix.shape[0]) @ np.asarray(matrix, dtype=np.float64) @ _shares(columns, matrix.shape[1]).T


def _shares(bins: int, count: int) -> npt.NDArray[np.float64]:
    """Returns the share of each item in each bin, ``(bins, count)``; rows sum to 1."""
    low, high = np.arange(bins)[:, None] / bins, np.arange(1, bins + 1)[:, None] / bins
    starts, ends = np.arange(count) / count, np.arange(1, count + 1) / count
    shared = np.clip(np.minimum(high, ends) - np.maximum(low, starts), 0, None)
    weights: npt.NDArray[np.float64] = shared / shared.sum(axis=1, keepdims=True)
    return weights


def _add(of_class: ClassAttention, matrix: npt.NDArray[Any], name: str, sure: float, rate_hz: float) -> None:
    if not matrix.size:
        return
    frames = matrix.shape[1]
    of_class.sums += binned(matrix * frames, TOKEN_BINS, TIME_BINS)
    of_class.count += 1
    if sure > of_class.best[2]:
        width = min(frames, max(1, round(KEY_S * rate_hz)))
        smooth = np.convolve(matrix.mean(axis=0), np.ones(width) / width, mode="same")
        of_class.best = (name, float(smooth.argmax() / rate_hz), sure)


def _heard(run: FinishedRun, label: str, found: ClassAttention, sounds: Sounds) -> Heard | None:
    name, middle_s, sure = found.best
    if not name:
        return None
    utterance = run.utterances.get(name)
    start, end = max(0.0, middle_s - KEY_S / 2), middle_s + KEY_S / 2
    return Heard(
        id=name,
        text=utterance.text if utterance else "",
        truth=label,
        guess="",
        share=f"{100 * sure:.0f}%",
        speaker=f"{start:.1f} to {end:.1f} s",
        sound=sounds.of(run, name, middle_s=middle_s, width_s=KEY_S),
    )
