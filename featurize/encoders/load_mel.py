"""Log-mel, MFCC and ViT over log-mel: from a request to an encoder ready to run."""

from typing import Any

from cache.errors import MmerError
from featurize.encoders.base import SpeechInput
from featurize.encoders.catalog import EncoderRequest
from featurize.encoders.checkpoint import Checkpoint, load_vit, open_checkpoint
from featurize.encoders.digests import config_digest, weights_digest
from featurize.encoders.layers import parse_choices
from featurize.encoders.mel import PREPROCESSING, MelEncoder
from featurize.encoders.options import PRECISIONS, EncodingOptions, library_versions, recorded_limits
from featurize.encoders.specs import spec_of
from featurize.encoders.start import vit_start_weights
from featurize.encoders.tiny import build_vit_mel_tiny

LOGMEL = "logmel80"


def load_acoustic_encoder(request: EncoderRequest, options: EncodingOptions) -> SpeechInput:
    """Makes an encoder of hand-made features.

    Raises:
        MmerError: if librosa cannot be imported, or layers are asked for.
    """
    try:
        from featurize.encoders.acoustic import AcousticEncoder
    except ImportError as error:
        raise MmerError(
            f"{request.source} needs librosa ({error}); install it or leave {request.source} out"
        ) from error
    if request.layers != ("last",):
        raise MmerError(f"{request.source} has no layers; got @{request.layers[-1]}")
    limits = recorded_limits(options, chunk=False)
    return AcousticEncoder(
        name=request.name, source=request.source, dtype=options.dtype, versions=library_versions(), limits=limits
    )


def load_mel_encoder(request: EncoderRequest, options: EncodingOptions) -> tuple[SpeechInput, str]:
    """Loads a ViT over log-mel, and says what was noticed about it.

    Raises:
        MmerError: if its checkpoint is not at hand or cannot give what is asked of it.
    """
    mel = load_acoustic_encoder(EncoderRequest(name=LOGMEL, source=LOGMEL, layers=("last",)), options)
    checkpoint, model = _vit(request)
    start_weights, note = vit_start_weights(model, options.start_layers)
    spec = spec_of(
        request,
        checkpoint,
        options,
        role="patches",
        weights=weights_digest(model),
        rate_hz=31.25,  # five patches every 16 frames of 10 ms
        preprocessing={**mel.specs[0].preprocessing, **PREPROCESSING, "config": config_digest(model.config)},
        limits={**recorded_limits(options, chunk=False), "start_layers": options.start_layers},
    )
    encoder = MelEncoder(
        model=model,
        mel=mel,
        start_weights=start_weights,
        spec=spec,
        choices=parse_choices(request.layers, layers=int(model.config.num_hidden_layers), encoder=request.name),
        device=options.device,
        precision=PRECISIONS[options.precision],
    )
    return encoder, note


def _vit(request: EncoderRequest) -> tuple[Checkpoint | None, Any]:
    if request.source == "vit-mel-tiny":
        return None, build_vit_mel_tiny()
    checkpoint = open_checkpoint(request.location)
    return checkpoint, load_vit(checkpoint)
