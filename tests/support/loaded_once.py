"""Built-in encoders, which are built once for equal requests: nothing changes them while they encode."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from featurize.encoders.catalog import ENCODERS, EncoderRequest
from featurize.encoders.load import Encoders, load_encoders
from featurize.encoders.options import EncodingOptions
from featurize.extraction import job
from fusion.end_to_end.prediction import encoders

BUILT_IN = {name for name in ENCODERS if name.endswith("-tiny")}


@contextmanager
def encoders_loaded_once() -> Iterator[None]:
    """Gives all that encodes in this process the same built-in encoders; checkpoints are loaded each time."""
    held = dict[tuple[tuple[EncoderRequest, ...], EncodingOptions], Encoders]()

    def load_once(requests: Sequence[EncoderRequest], options: EncodingOptions) -> Encoders:
        if not {request.source for request in requests} <= BUILT_IN:
            return load_encoders(requests, options)
        key = (tuple(requests), options)
        if key not in held:
            held[key] = load_encoders(requests, options)
        found = held[key]
        return replace(found, speech=[*found.speech], text=[*found.text], notes=[*found.notes])

    with pytest.MonkeyPatch.context() as patch:
        for module in (job, encoders):
            patch.setattr(module, "load_encoders", load_once)
        yield
