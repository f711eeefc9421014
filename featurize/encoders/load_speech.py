"""wav2vec 2.0 and its relatives: from a request to an encoder ready to run."""

from typing import Any

import numpy.typing as npt
import torch

from cache.errors import MmerError
from featurize.audio import MIN_SAMPLES, RATE_HZ
from featurize.encoders.base import SpeechInput
from featurize.encoders.catalog import EncoderRequest
from featurize.encoders.checkpoint import Checkpoint, SpeechCheckpoint, load_speech, open_checkpoint
from featurize.encoders.chunk import ChunkedEncoder
from featurize.encoders.digests import config_digest, weights_digest
from featurize.encoders.layers import parse_choices
from featurize.encoders.options import PRECISIONS, EncodingOptions, recorded_limits
from featurize.encoders.specs import spec_of
from featurize.encoders.speech import PREPROCESSING, SpeechEncoder
from featurize.encoders.tiny import build_wav2vec2_tiny

WITHOUT_NORMED = frozenset({"hubert"})  # models that keep the normed features of their convolutions to themselves


def load_speech_encoder(request: EncoderRequest, options: EncodingOptions) -> tuple[SpeechInput, str]:
    """Loads a speech encoder, in pieces where the options say so, and says what was noticed about it.

    Raises:
        MmerError: if its checkpoint is not at hand or cannot give what is asked of it.
    """
    checkpoint, model = _checkpoint(request)
    quantizer, start_weights, note = _quantizer(request, model, options)
    config: Any = model.base.config
    spec = spec_of(
        request,
        checkpoint,
        options,
        role="audio",
        weights=weights_digest(model.base),
        rate_hz=50.0,
        preprocessing={**PREPROCESSING, "normalize": model.normalize, "config": config_digest(config)},
        limits=recorded_limits(options, chunk=options.chunk),
    )
    encoder = SpeechEncoder(
        base=model.base,
        quantizer=quantizer,
        quantizer_weights="" if quantizer is None else weights_digest(model.pretraining or quantizer),
        start_weights=start_weights,
        spec=spec,
        choices=parse_choices(
            request.layers,
            layers=int(config.num_hidden_layers),
            encoder=request.name,
            conv=config.model_type not in WITHOUT_NORMED,
        ),
        normalize=model.normalize,
        device=options.device,
        precision=PRECISIONS[options.precision],
    )
    notes = "; ".join(one for one in (model.note, note) if one)
    if not options.chunk:
        return encoder, notes
    if options.max_seconds * RATE_HZ < MIN_SAMPLES:
        raise MmerError(f"--chunk needs --max-seconds of at least {MIN_SAMPLES / RATE_HZ}, got {options.max_seconds:g}")
    return ChunkedEncoder(encoder, max_samples=int(options.max_seconds * RATE_HZ)), notes


def _checkpoint(request: EncoderRequest) -> tuple[Checkpoint | None, SpeechCheckpoint]:
    if request.source == "wav2vec2-tiny":
        model = build_wav2vec2_tiny()
        return None, SpeechCheckpoint(base=model.wav2vec2, pretraining=model, normalize=True, note="")
    checkpoint = open_checkpoint(request.location)
    return checkpoint, load_speech(checkpoint)


def _quantizer(
    request: EncoderRequest, model: SpeechCheckpoint, options: EncodingOptions
) -> tuple[torch.nn.Module | None, dict[str, npt.NDArray[Any]], str]:
    """Gives the quantizer where there is one and it is wanted, and the weights that LE-MER starts from."""
    if options.codes is False:
        return None, {}, ""
    if model.pretraining is None:
        if options.codes:
            raise MmerError(
                f"{request.source} has no quantizer, so no codes; take a pre-training checkpoint or --no-codes"
            )
        return None, {}, "has no quantizer: no codes"
    whole: Any = model.pretraining
    parts = {
        "codevectors": whole.quantizer.codevectors[0],
        "project_q.weight": whole.project_q.weight,
        "project_q.bias": whole.project_q.bias,
        "project_hid.weight": whole.project_hid.weight,
        "project_hid.bias": whole.project_hid.bias,
    }
    return whole.quantizer, {name: part.detach().cpu().numpy() for name, part in parts.items()}, ""
