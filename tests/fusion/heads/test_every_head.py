"""Properties of every head, X-1 to X-7 (docs/decisions.md#properties-of-every-head); X-8 is in `tests/fusion/run`."""

from dataclasses import asdict

import pytest
import torch
from torch.nn import functional

from fusion.heads.build import build_head, count_parameters
from fusion.heads.catalog import HEADS, config_for
from tests.support.every_head import (
    CASES,
    DEFAULTS,
    FUSING,
    MODALITIES,
    adapters,
    backward,
    losses,
    made,
    predicted,
    read_by,
    total,
    trainable,
    without,
)
from tests.support.full_size import LARGE, SPEECH, full_size_inputs
from tests.support.heads import batch_of, collate, head_inputs, replaced, samples

# Parameters at full size with all defaults and four classes (docs/decisions.md#parameter-counts).
SIZES = {
    "rescmfa": 32_230_032,
    "bimodal": 18_611_716 + 196_864 + 1_182_720 + 2_365_440,  # CPC and adapters are added
    "tab": 39_581_956 + 2_365_440,  # adapters are added
    "jfm": 68_462_862 - 3 * (1_024 + 768 + 2),  # the first number is for seven classes
    "label-guided": 589_824 + 6_148 + 3_072 + 1_024 + 2_365_440,  # the projection of frames is frozen
    "concat": 1_536 * 4 + 4 + 2_365_440,
    "cross-attention": 2 * (4 * 768 * 768 + 4 * 768 + 2 * 768) + 1_536 * 4 + 4 + 2_365_440,
    "audio": 768 * 4 + 4,
    "text": 768 * 4 + 4,
    "probe": 4 * 768 * 4 + 4,
    "score": 2 * (768 * 4 + 4),
}


@pytest.mark.parametrize(("name", "modalities"), CASES)
def test_x1_padding_of_any_kind_changes_no_logit(name: str, modalities: str) -> None:
    head = made(name, modalities)
    total(head, batch_of(8))  # batch norms have seen something
    chosen = samples(5)
    extra = dict.fromkeys([*MODALITIES["audio"]], 50) | dict.fromkeys([*MODALITIES["text"], "chars"], 20)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        head.to(dtype)
        alone = torch.cat([predicted(head, collate([utterance], dtype=dtype)) for utterance in chosen])
        padded = predicted(head, collate(chosen, extra=extra | {"mel": 100}, noise=1e3, dtype=dtype))
        assert (padded - alone).abs().max() <= tolerance, dtype


@pytest.mark.parametrize(("name", "modalities"), CASES)
def test_x1_padding_changes_no_loss_of_training(name: str, modalities: str) -> None:
    chosen = samples(8)
    head = made(name, modalities, dropout=0.0)
    padded = [losses(head, collate(chosen, extra=50, noise=noise)) for noise in (0, 1e3)]
    tight = losses(head, collate(chosen))
    for loss in set(tight) - {"cpc"}:  # its negatives are drawn by place in the padded batch
        torch.testing.assert_close(padded[1][loss], tight[loss], atol=1e-5, rtol=1e-5)
    assert padded[0].keys() == padded[1].keys() == tight.keys()
    torch.testing.assert_close(padded[1], padded[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "modalities"), CASES)
def test_x2_the_order_of_a_batch_is_that_of_its_logits(name: str, modalities: str) -> None:
    head, chosen = made(name, modalities), samples(5)
    order = [3, 0, 4, 1, 2]
    shuffled = predicted(head, collate([chosen[index] for index in order]))
    torch.testing.assert_close(shuffled, predicted(head, collate(chosen))[order], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "modalities"), CASES)
def test_x3_a_modality_matters_exactly_where_it_is_read(name: str, modalities: str) -> None:
    head, batch = made(name, modalities), batch_of(4)
    logits = predicted(head, batch)
    for modality in MODALITIES:
        other = batch
        for role in MODALITIES[modality]:
            rows = other.features[role]
            other = replaced(other, role, rows + 1 if role != "tokens" else rows.flip(1))
        other = replaced(other, modality, other.features[modality] * 2)
        changed = (logits != predicted(head, other)).any(dim=1)
        assert changed.tolist() == [modalities in {"both", modality}] * 4, modality


@pytest.mark.parametrize(("name", "modalities"), CASES)
def test_x4_every_parameter_gets_a_gradient(name: str, modalities: str) -> None:
    head = made(name, modalities)
    assert backward(head, total(head, batch_of(12))) == trainable(head)


@pytest.mark.parametrize(("name", "modalities"), CASES)
def test_x4_each_auxiliary_loss_alone_reaches_what_the_logits_come_from(name: str, modalities: str) -> None:
    head, batch = made(name, modalities, adapter=name != "jfm"), batch_of(12)
    computed = set(losses(head, batch)) - {""}
    assert computed == {name for name, weight in head.config.loss_weights.items() if weight}
    logits = head.eval()(read_by(head.config, batch, training=False)).logits
    behind = backward(head, functional.cross_entropy(logits, batch.labels))
    shared = {name for name in behind if ".adapter." in name} if adapters(head) else behind
    for auxiliary in computed:
        assert backward(head, losses(head, batch)[auxiliary]) & shared, auxiliary


@pytest.mark.parametrize(("name", "modalities"), DEFAULTS)
def test_x5_sixteen_utterances_are_learned_by_heart(name: str, modalities: str) -> None:
    head, batch = made(name, modalities), batch_of(16)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2, fused=True)
    for step in range(300):
        optimizer.zero_grad()
        total(head, batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 5 == 4 and bool((predicted(head, batch).argmax(dim=1) == batch.labels).all()):
            return
    pytest.fail(f"{name} does not learn 16 utterances in 300 steps")


@pytest.mark.parametrize("name", HEADS)
def test_x6_parameters_are_as_many_as_the_closed_form_says(name: str) -> None:
    with torch.device("meta"):
        head = build_head(name, config_for(name, {}), full_size_inputs(text=LARGE if name == "jfm" else SPEECH), seed=0)
    assert count_parameters(head) == SIZES[name]


@pytest.mark.parametrize(("name", "modalities"), CASES)
def test_x7_a_seed_decides_every_bit(name: str, modalities: str) -> None:
    weights = []
    for elsewhere in (1, 2):
        torch.manual_seed(elsewhere)  # whatever else has been drawn
        before = torch.random.get_rng_state()
        head = made(name, modalities, dropout=0.3)
        optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, fused=True)
        for seed in range(2):
            optimizer.zero_grad()
            total(head, batch_of(6, seed=seed)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        assert torch.equal(torch.random.get_rng_state(), before)
        weights.append(head.state_dict())
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(values, weights[1][key]) for key, values in weights[0].items())


@pytest.mark.parametrize("modality_dropout", [0.0, 0.3])
@pytest.mark.parametrize("name", FUSING)
def test_an_absent_modality_is_no_number_and_no_noise(name: str, modality_dropout: float) -> None:
    head = made(name, modality_dropout=modality_dropout)
    batch = without(without(batch_of(12), "audio", [0, 2, 5]), "text", [1, 2, 7])
    reached = backward(head, total(head, batch))
    assert reached == trainable(head)
    logits = predicted(head, batch)
    assert logits.isfinite().all()
    noisy = batch
    for role, rows in batch.features.items():
        if rows.is_floating_point():
            noisy = replaced(noisy, role, torch.where(batch.masks[role][..., None], rows, 1e3))
    torch.testing.assert_close(predicted(head, noisy), logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", FUSING)
def test_a_batch_may_lack_a_modality_altogether(name: str) -> None:
    head = made(name)
    for modality in MODALITIES:
        batch = without(batch_of(6), modality, list(range(6)))
        assert backward(head, total(head, batch)), modality
        assert predicted(head, batch).isfinite().all(), modality


@pytest.mark.parametrize(("name", "modalities"), DEFAULTS)
def test_streams_may_be_stacked_and_of_different_widths(name: str, modalities: str) -> None:
    text = (48,) if name == "jfm" else (3, 48)  # the layers of jfm continue from one hidden state
    inputs = head_inputs(audio=(2, 24), text=text)
    head = made(name, modalities, inputs=inputs)
    assert backward(head, total(head, batch_of(12, inputs))) == trainable(head)
    assert predicted(head, batch_of(3, inputs)).shape == (3, 4)


@pytest.mark.parametrize(("name", "modalities"), CASES)
def test_a_configuration_goes_through_text_and_back(name: str, modalities: str) -> None:
    config = config_for(name, {"modalities": modalities, "dropout": 0.25})
    assert config_for(name, {field: str(value) for field, value in asdict(config).items()}) == config
    assert config_for(name, asdict(config)) == config


@pytest.mark.parametrize(("name", "modalities"), CASES)
def test_weights_load_into_a_head_of_another_seed(name: str, modalities: str) -> None:
    head, other = made(name, modalities), made(name, modalities, seed=4)
    other.load_state_dict(head.state_dict())
    torch.testing.assert_close(predicted(other, batch_of(3)), predicted(head, batch_of(3)), atol=0, rtol=0)
