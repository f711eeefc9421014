from functools import cache

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from featurize.encoders.base import Waveform
from featurize.encoders.catalog import parse_requests
from featurize.encoders.load import load_encoders
from featurize.encoders.options import EncodingOptions
from featurize.encoders.speech import ChunkedEncoder, SpeechEncoder

LIMIT = 4000  # samples, 12 frames
FRAMES = 12


@cache
def whole() -> SpeechEncoder:
    options = EncodingOptions(device=torch.device("cpu"))
    (encoder,) = load_encoders(parse_requests(["wav2vec2-tiny", "wav2vec2-tiny@0,2"]), options).speech
    assert isinstance(encoder, SpeechEncoder)
    return encoder


def chunked(max_samples: int = LIMIT) -> ChunkedEncoder:
    return ChunkedEncoder(whole(), max_samples=max_samples)


def speech(samples: int) -> Waveform:
    return np.random.default_rng(samples).standard_normal(samples).astype(np.float32)


@settings(max_examples=30)
@given(samples=st.integers(1, 20_000), max_samples=st.integers(400, 9000))
def test_as_many_rows_as_in_one_piece(samples: int, max_samples: int) -> None:
    encoder = chunked(max_samples)
    (planned,) = encoder.plan([samples])
    (expected,) = whole().plan([samples])
    assert planned.rows == expected.rows
    assert planned.failure == ""
    assert planned.cost <= max(whole().plan([max_samples])[0].cost, 1)
    (rows,) = encoder.encode([speech(samples)])
    assert tuple(len(actual) for actual in rows) == planned.rows


@pytest.mark.parametrize("samples", [1, 400, 3999, LIMIT])
def test_what_fits_the_limit_is_encoded_as_it_is(samples: int) -> None:
    wave = speech(samples)
    for actual, expected_rows in zip(chunked().encode([wave])[0], whole().encode([wave])[0], strict=True):
        np.testing.assert_array_equal(actual, expected_rows)
    assert chunked().plan([samples])[0].note == ""


@pytest.mark.parametrize("samples", [2 * LIMIT, 9999, 3 * FRAMES * 320 + 80, 3 * FRAMES * 320 + 400])
def test_a_long_recording_is_its_pieces_one_after_another(samples: int) -> None:
    wave = speech(samples)
    total = (samples - 400) // 320 + 1
    pieces = [wave[320 * start : 320 * (min(start + FRAMES, total) - 1) + 400] for start in range(0, total, FRAMES)]
    assert max(len(piece) for piece in pieces) <= LIMIT
    encoded = [whole().encode([piece])[0] for piece in pieces]
    expected = [np.concatenate(rows) for rows in zip(*encoded, strict=True)]
    for actual, expected_rows in zip(chunked().encode([wave])[0], expected, strict=True):
        np.testing.assert_array_equal(actual, expected_rows)
    assert chunked().plan([samples])[0].note == f"encoded in {len(pieces)} pieces"


def test_a_recording_of_as_many_frames_as_the_limit_is_not_said_to_be_in_pieces() -> None:
    assert chunked().plan([LIMIT + 1])[0].note == ""


def test_a_long_recording_in_a_batch_gives_what_it_gives_alone() -> None:
    waves = [speech(9000), speech(900), speech(16_000)]
    for wave, rows in zip(waves, chunked().encode(waves), strict=True):
        for actual, expected_rows in zip(rows, chunked().encode([wave])[0], strict=True):
            np.testing.assert_array_equal(actual, expected_rows)


def test_pieces_are_not_the_whole() -> None:
    wave = speech(9000)
    actual, expected_rows = chunked().encode([wave])[0][0], whole().encode([wave])[0][0]
    assert actual.shape == expected_rows.shape
    assert np.abs(actual - expected_rows).max() > 0.01


def test_streams_and_starting_weights_are_those_of_the_encoder() -> None:
    assert chunked().specs == whole().specs
    assert chunked().start_weights is whole().start_weights
    assert chunked().encoder is whole()


@pytest.mark.parametrize("max_samples", [0, 79, 80, 399])
def test_a_limit_below_one_frame_is_refused(max_samples: int) -> None:
    with pytest.raises(ValueError, match="400"):
        chunked(max_samples)


def test_options_put_pieces_around_the_encoder() -> None:
    options = EncodingOptions(device=torch.device("cpu"), chunk=True, max_seconds=0.25)
    (encoder,) = load_encoders(parse_requests(["wav2vec2-tiny"]), options).speech
    assert encoder.plan([8000, 4000])[0].note == "encoded in 2 pieces"
    assert encoder.specs[0].limits == {"max_seconds": 0.25, "chunk": True}
