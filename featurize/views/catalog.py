"""Catalog of views: the syntax ``lsa`` and ``cbca[:K]`` of the command line, and the utterances that get views.

An augmented view is the same utterance changed a little. Head `bimodal` contrasts views with originals. Views are for
training only, so utterances of a published development or test subset get none.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from cache.errors import MmerError
from cache.stream import NO_VIEW, SPEECH, TRANSCRIPT
from cache.utterance import SUBSET_NAMES, Utterance

LSA, CBCA = "lsa", "cbca"
MOST_TEXTS = 20  # the twentieth best word of a language model rarely fits its sentence


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """One row of the catalog.

    Attributes:
        consumes: input that it changes, ``speech`` or ``transcript``.
        input_text: the same for messages.
        encoder: example of an encoder of that input.
        count: number of views of an utterance without a number in the request.
        most: greatest number of views of an utterance.
    """

    consumes: str
    input_text: str
    encoder: str
    count: int = 1
    most: int = 1


VIEWS: Mapping[str, ViewSpec] = {
    LSA: ViewSpec(consumes=SPEECH, input_text="frames of speech", encoder="wav2vec2-base"),
    CBCA: ViewSpec(
        consumes=TRANSCRIPT,
        input_text="transcripts",
        encoder="distilbert-base",
        count=5,  # docs/decisions.md#b-6
        most=MOST_TEXTS,
    ),
}
ALLOWED = f"lsa, or cbca:K for K texts, 1 to {MOST_TEXTS}"


@dataclass(frozen=True, kw_only=True)
class ViewRequest:
    """A requested view: its name in the catalog, and the number of views of an utterance."""

    kind: str
    count: int

    @property
    def consumes(self) -> str:
        """Input that it changes, ``speech`` or ``transcript``."""
        return VIEWS[self.kind].consumes


def parse_views(texts: Sequence[str]) -> list[ViewRequest]:
    """Reads view requests.

    Raises:
        MmerError: if a view is unknown or requested twice, or its number is not allowed.

    Example:
        >>> parse_views(["lsa", "cbca:3"])
        [ViewRequest(kind='lsa', count=1), ViewRequest(kind='cbca', count=3)]
    """
    requests: dict[str, ViewRequest] = {}
    for text in texts:
        kind, sign, number = text.partition(":")
        spec = VIEWS.get(kind)
        if spec is None:
            raise MmerError(f"unknown view {text!r}; allowed: {ALLOWED}")
        if kind in requests:
            raise MmerError(f"view {kind} is requested twice; give it once")
        count = spec.count
        if sign:
            count = int(number) if re.fullmatch(r"\d{1,4}", number, re.ASCII) and spec.most > 1 else 0
        if not 1 <= count <= spec.most:
            raise MmerError(f"invalid view {text!r}; allowed: {ALLOWED}")
        requests[kind] = ViewRequest(kind=kind, count=count)
    return list(requests.values())


def check_views(views: Sequence[ViewRequest], inputs: Collection[str]) -> None:
    """Checks that a run has an encoder for each view.

    Args:
        views: requested views.
        inputs: inputs that the encoders of the run consume.

    Raises:
        MmerError: if a view has no encoder.
    """
    for view in views:
        if view.consumes not in inputs:
            raise missing_encoder(view)


def missing_encoder(view: ViewRequest) -> MmerError:
    """Returns the error of a view that no encoder of a run can compute."""
    spec = VIEWS[view.kind]
    return MmerError(
        f"--view {view.kind} needs an encoder of {spec.input_text}, and this run has none; add one, as in "
        f"--encoder {spec.encoder}"
    )


def missing_view_reason(utterance: Utterance) -> str:
    """Returns the reason why an utterance gets no views; empty if it may take part in training.

    Cross-validation trains on every utterance in some fold. Of a corpus with published subsets, only the training
    subset is ever trained on (docs/decisions.md#t001-7).
    """
    subset = SUBSET_NAMES.get(utterance.split.lower(), "train")
    return "" if subset == "train" else f"{NO_VIEW}views are for training, the utterance is in {subset}"
