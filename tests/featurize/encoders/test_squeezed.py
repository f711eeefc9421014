"""SEW in batches: the rows of plain Hugging Face, utterance by utterance, at both of its rates."""

import pytest
import torch
from transformers import SEWConfig, SEWModel

from cache.stream import StreamSpec
from featurize.encoders.base import Waveform
from featurize.encoders.layers import parse_layers
from featurize.encoders.squeezed import SqueezedEncoder
from featurize.extraction.parity import TOLERANCE
from tests.support.models import CHOICES, CPU, SPEECH_LAYERS, SPEECH_SIZE, alone, chosen_of, lively, waveforms, worst

PAIRS = (720, 721, 1039, 1040, 1041, 16_000, 16_320, 5000, 48_000)  # samples: even and odd numbers of frames


def encoder_of(*layers: str, width: int = 16) -> SqueezedEncoder:
    sizes = {**SPEECH_SIZE, "conv_dim": (width,) * 13, "squeeze_factor": 2}
    return SqueezedEncoder(
        base=lively(SEWModel, SEWConfig(**sizes)),
        quantizer=None,
        start_weights={},
        spec=StreamSpec(name="a", role="audio", source="a", shape=(1,), dtype="float32", rate_hz=50),
        choices=[parse_layers(text, layers=SPEECH_LAYERS, encoder="a", conv=True) for text in layers or ("last",)],
        normalize=True,
        device=CPU,
        precision=torch.float32,
    )


@pytest.mark.parametrize("width", [16, 32], ids=["projected", "not projected"])
def test_a_mix_of_even_and_odd_lengths_gives_the_rows_of_one_by_one(width: int) -> None:
    encoder, waves = encoder_of(*CHOICES, width=width), waveforms(PAIRS)
    assert [spec.rate_hz for spec in encoder.specs] == [25, 25, 25, 25, 50]
    plans = encoder.plan([len(wave) for wave in waves])
    for rows, wave, plan in zip(encoder.encode(waves), waves, plans, strict=True):
        assert worst(rows, chosen_of(alone(encoder.base, wave, normalize=True))) <= TOLERANCE
        assert plan.rows == tuple(len(one) for one in rows)


def test_the_usual_batch_is_another() -> None:
    encoder, waves = encoder_of(), waveforms(PAIRS)
    longest = max(len(wave) for wave in waves)
    batch = torch.zeros(len(waves), longest)
    mask = torch.zeros(len(waves), longest, dtype=torch.long)
    for index, wave in enumerate(waves):
        batch[index, : len(wave)] = torch.from_numpy(encoder.prepare(wave))
        mask[index, : len(wave)] = 1
    with torch.inference_mode():
        found = encoder.base(batch, attention_mask=mask).last_hidden_state
    odd = 2  # 1039 samples, two frames in a longer batch
    expected = alone(encoder.base, waves[odd], normalize=True).last_hidden_state[0].numpy()
    assert worst([found[odd, : len(expected)].numpy()], [expected]) > 0.01


def test_less_than_one_pair_of_frames_is_a_failure() -> None:
    encoder = encoder_of()
    short: Waveform = waveforms([400])[0]
    assert encoder.plan([len(short)])[0].failure == "too short for one frame of the Transformer (400 samples)"
