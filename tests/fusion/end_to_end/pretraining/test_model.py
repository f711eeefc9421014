"""Parts that learn, parts that are frozen, and random parts of long utterances."""

import torch
from transformers import Wav2Vec2ConformerConfig, Wav2Vec2ConformerForPreTraining

from fusion.end_to_end.learning.encoder import drawn_from
from fusion.end_to_end.pretraining.config import PretrainConfig
from fusion.end_to_end.pretraining.model import PretrainingModel, SpeechBatch
from tests.support.models import CPU
from tests.support.pretraining import small_model

CONFIG = PretrainConfig(negatives=5)


def rows(*frames: int) -> SpeechBatch:
    values = torch.randn(len(frames), max(frames), 16, generator=torch.Generator().manual_seed(0))
    return SpeechBatch(values=values, lengths=frames, frames=frames)


def learning(model: PretrainingModel) -> set[str]:
    with drawn_from(0, device=CPU):
        batch = (
            rows(30, 20) if not model.wave else SpeechBatch(values=torch.randn(1, 9_680), lengths=[9_680], frames=[30])
        )
        model(batch, CONFIG, torch.float32).loss.backward()
    return {name for name, weight in model.model.named_parameters() if weight.grad is not None}


def test_from_convolutional_features_everything_above_the_layer_norm_learns() -> None:
    model = PretrainingModel(small_model(layerdrop=0.0), wave=False).train()
    frozen = {name for name, _ in model.model.named_parameters()} - learning(model)
    base = "wav2vec2"
    assert all(
        name.startswith((f"{base}.feature_extractor.", f"{base}.feature_projection.layer_norm")) for name in frozen
    )
    assert len(frozen) == 7 + 2 + 2  # seven convolutions, their group norm, the layer norm


def test_from_waveforms_everything_learns() -> None:
    model = PretrainingModel(small_model(layerdrop=0.0), wave=True).train()
    assert learning(model) == {name for name, _ in model.model.named_parameters()}


def test_batch_norms_of_conformers_keep_their_statistics() -> None:
    kinds = {"kind": Wav2Vec2ConformerForPreTraining, "config": Wav2Vec2ConformerConfig}
    model = PretrainingModel(small_model(**kinds, conv_depthwise_kernel_size=3), wave=False).train()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm1d)]
    before = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
    learning(model)
    assert norms
    assert model.training
    assert not any(norm.training for norm in norms)
    assert all(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True))  # type: ignore[arg-type]


def test_a_long_utterance_is_cut_to_a_random_part_and_a_short_one_stays() -> None:
    batch = rows(60, 12)
    with drawn_from(4, device=CPU):
        cut = batch.cropped(20)
    with drawn_from(5, device=CPU):
        other = batch.cropped(20)
    assert list(cut.frames) == list(cut.lengths) == [20, 12]
    assert cut.values.shape == (2, 20, 16)
    assert torch.equal(cut.values[1, :12], batch.values[1, :12])
    starts = [
        next(i for i in range(41) if torch.equal(part.values[0], batch.values[0, i : i + 20])) for part in (cut, other)
    ]
    assert starts[0] != starts[1]
    assert batch.cropped(60) is batch


def test_a_part_of_a_waveform_has_the_frames_of_that_part() -> None:
    batch = SpeechBatch(values=torch.randn(1, 16_000), lengths=[16_000], frames=[49])
    with drawn_from(1, device=CPU):
        cut = batch.cropped(11)
    assert cut.values.shape == (1, 10 * 320 + 400)
    assert PretrainingModel(small_model(), wave=True).convolved(cut).shape[1] == cut.frames[0] == 11


def test_bfloat16_changes_the_losses_a_little() -> None:
    model = PretrainingModel(small_model(), wave=False).eval()
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        with torch.inference_mode(), drawn_from(0, device=CPU):
            found.append(float(model(rows(30, 20), CONFIG, dtype).loss))
    assert found[0] != found[1]
    assert abs(found[0] - found[1]) < 0.02 * found[0]
