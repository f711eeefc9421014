"""What every encoder of a checkpoint says of its streams alike."""

from typing import Any

from cache.stream import StreamSpec
from featurize.encoders.catalog import EncoderRequest
from featurize.encoders.checkpoint import Checkpoint
from featurize.encoders.options import EncodingOptions, library_versions


def spec_of(
    request: EncoderRequest, checkpoint: Checkpoint | None, options: EncodingOptions, **fields: Any
) -> StreamSpec:
    """Describes the streams of an encoder; its layers and shapes are set per stream.

    Args:
        request: as asked for.
        checkpoint: where its weights are from; None for a built-in encoder.
        options: how it runs.
        fields: of the spec, those that are its own.
    """
    return StreamSpec(
        name=request.name,
        source=request.source if checkpoint is None else checkpoint.source,
        revision="" if checkpoint is None else checkpoint.revision,
        trained_on={} if checkpoint is None else checkpoint.trained_on,
        shape=(1,),
        dtype=options.dtype,
        precision=options.precision,
        versions=library_versions(),
        **fields,
    )
