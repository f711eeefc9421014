"""Loading of views: the encoders of the requested views, built from the encoders of a run."""

from collections.abc import Sequence
from typing import Any

from cache.stream import TRANSCRIPT
from featurize.encoders.base import Encoder
from featurize.encoders.catalog import EncoderRequest
from featurize.encoders.huggingface import config_digest, load_masked_lm, open_checkpoint, weights_digest
from featurize.encoders.load import Encoders, consumes
from featurize.encoders.text import TextEncoder
from featurize.encoders.tiny import build_roberta_tiny_lm
from featurize.views.catalog import LSA, ViewRequest, missing_encoder
from featurize.views.cbca import CbcaView, WordFiller
from featurize.views.lsa import LsaView


def load_views(
    views: Sequence[ViewRequest], loaded: Encoders, requests: Sequence[EncoderRequest]
) -> list[Encoder[Any, Any]]:
    """Loads the encoders of views for every encoder of the run that computes vectors of their input.

    Args:
        views: requested views.
        loaded: encoders of the run.
        requests: requests for these encoders, in the same order.

    Raises:
        MmerError: if a view has no encoder, or a checkpoint has no language model.
    """
    found: list[Encoder[Any, Any]] = []
    for view in views:
        added = _lsa_views(loaded) if view.kind == LSA else _cbca_views(view, loaded, requests)
        if not added:
            raise missing_encoder(view)
        found += added
    return found


def _lsa_views(loaded: Encoders) -> list[Encoder[Any, Any]]:
    """Builds the view of each encoder of frames; head bimodal reads neither log-mel nor its patches."""
    return [LsaView(encoder) for encoder in loaded.speech if any(spec.role == "audio" for spec in encoder.specs)]


def _cbca_views(view: ViewRequest, loaded: Encoders, requests: Sequence[EncoderRequest]) -> list[Encoder[Any, Any]]:
    of_text = [request for request in requests if consumes(request.source) == TRANSCRIPT]
    found: list[Encoder[Any, Any]] = []
    for request, encoder in zip(of_text, loaded.text, strict=True):
        assert isinstance(encoder, TextEncoder)
        model: Any = _load_language_model(request)
        filler = WordFiller(model, encoder.tokenizer, max_tokens=encoder.max_tokens, device=encoder.device)
        weights = f"{weights_digest(model)} {config_digest(model.config)}"
        found.append(CbcaView(encoder, filler, weights=weights, count=view.count))
    return found


def _load_language_model(request: EncoderRequest) -> Any:
    """Loads the masked language model that an encoder was pre-trained as.

    Raises:
        MmerError: if the checkpoint has no language-model head.
    """
    if request.source == "roberta-tiny":
        return build_roberta_tiny_lm()
    return load_masked_lm(open_checkpoint(request.location))
