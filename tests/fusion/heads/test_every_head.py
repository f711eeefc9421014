"""What every head of the catalog must do, X-1 to X-7 of systems.md 1.7."""

from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fusion.head import HeadConfig
from fusion.heads.catalog import HEADS, AnyHead, build_head, config_for
from fusion.inputs import Batch, HeadInputs
from fusion.layers import Adapter
from tests.heads import ToyRows, batch_of, collate, head_inputs, replaced, samples

SMALL = {"rescmfa": {"text_slots": 40, "audio_slots": 60}}  # else its gate has 2.6 million weights
MODALITIES = {"audio": ("audio", "mel", "patches", "codes", "audio.view"), "text": ("text", "text.view", "tokens")}
SINGLE = {"audio": "audio", "text": "text"}  # heads of one modality
CASES = [
    pytest.param(name, modalities, id=f"{name}-{modalities}")
    for name in HEADS
    for modalities in (["both", "audio", "text"] if name not in SINGLE else [SINGLE[name]])
]
DEFAULTS = [pytest.param(name, SINGLE.get(name, "both"), id=name) for name in HEADS]
FUSING = [name for name in HEADS if name not in SINGLE]


def made(
    name: str, modalities: str = "both", *, seed: int = 3, inputs: HeadInputs | None = None, **values: object
) -> AnyHead:
    """Builds a head that has learned what `prepare` may, with its adapters awake."""
    inputs = inputs or head_inputs()
    config = config_for(name, {**SMALL.get(name, {}), "modalities": modalities, **values})
    head = build_head(name, config, inputs, seed=seed)
    head.prepare(ToyRows(samples(48, inputs, seed=9)))
    generator = torch.Generator().manual_seed(seed)
    for adapter in adapters(head):
        nn.init.normal_(adapter.outer.weight, std=0.1, generator=generator)
    return head


def adapters(head: nn.Module) -> list[Adapter]:
    return [module for module in head.modules() if isinstance(module, Adapter)]


def read_by(config: HeadConfig, batch: Batch, *, training: bool) -> Batch:
    """Leaves nothing but the roles that a head says it reads."""
    roles = {*config.roles, *((*config.training_roles, *config.optional_roles) if training else ())}
    return replace(
        batch,
        features={role: rows for role, rows in batch.features.items() if role in roles},
        masks={role: mask for role, mask in batch.masks.items() if role in roles},
    )


def predicted(head: AnyHead, batch: Batch) -> Tensor:
    head.eval()
    with torch.no_grad():
        logits: Tensor = head(read_by(head.config, batch, training=False)).logits
    return logits


def losses(head: AnyHead, batch: Batch) -> dict[str, Tensor]:
    """Gives each loss of training, weighted."""
    output = head.train()(read_by(head.config, batch, training=True))
    weights = head.config.loss_weights
    auxiliary = {name: weights[name] * loss for name, loss in output.losses.items()}
    return {"": functional.cross_entropy(output.logits, batch.labels), **auxiliary}


def backward(head: AnyHead, loss: Tensor) -> set[str]:
    """Gives the parameters that a loss has a gradient for."""
    head.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    reached = {name for name, part in head.named_parameters() if part.grad is not None and bool(part.grad.any())}
    grads = [part.grad for part in head.parameters() if part.grad is not None]
    assert all(bool(grad.isfinite().all()) for grad in grads)
    return reached


def trainable(head: nn.Module) -> set[str]:
    return {name for name, part in head.named_parameters() if part.requires_grad}


def total(head: AnyHead, batch: Batch) -> Tensor:
    return torch.stack(list(losses(head, batch).values())).sum()


def without(batch: Batch, modality: str, absent: list[int]) -> Batch:
    """Takes a modality away from some utterances."""
    chosen = torch.zeros(len(batch), dtype=torch.bool)
    chosen[absent] = True
    for role in MODALITIES[modality]:
        batch = batch.without(role, chosen)
    return batch


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize(("name", "modalities"), CASES)
def test_x1_padding_of_any_kind_changes_no_logit(
    name: str, modalities: str, dtype: torch.dtype, tolerance: float
) -> None:
    head = made(name, modalities)
    total(head, batch_of(8))  # batch norms have seen something
    head.to(dtype)
    chosen = samples(5)
    alone = torch.cat([predicted(head, collate([one], dtype=dtype)) for one in chosen])
    extra = dict.fromkeys([*MODALITIES["audio"]], 50) | dict.fromkeys([*MODALITIES["text"], "chars"], 20)
    padded = predicted(head, collate(chosen, extra=extra | {"mel": 100}, noise=1e3, dtype=dtype))
    assert (padded - alone).abs().max() <= tolerance


@pytest.mark.parametrize(("name", "modalities"), CASES)
def test_x1_padding_changes_no_loss_of_training(name: str, modalities: str) -> None:
    chosen = samples(8)
    told = [losses(made(name, modalities, dropout=0.0), collate(chosen, extra=50, noise=noise)) for noise in (0, 1e3)]
    tight = losses(made(name, modalities, dropout=0.0), collate(chosen))
    for loss in set(tight) - {"cpc"}:  # its negatives are drawn by place in the padded batch
        torch.testing.assert_close(told[1][loss], tight[loss], atol=1e-5, rtol=1e-5)
    assert told[0].keys() == told[1].keys() == tight.keys()
    torch.testing.assert_close(told[1], told[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "modalities"), CASES)
def test_x2_the_order_of_a_batch_is_that_of_its_logits(name: str, modalities: str) -> None:
    head, chosen = made(name, modalities), samples(5)
    order = [3, 0, 4, 1, 2]
    shuffled = predicted(head, collate([chosen[place] for place in order]))
    torch.testing.assert_close(shuffled, predicted(head, collate(chosen))[order], atol=1e-5, rtol=0)


@pytest.mark.parametrize("modality", ["audio", "text"])
@pytest.mark.parametrize(("name", "modalities"), CASES)
def test_x3_a_modality_matters_exactly_where_it_is_read(name: str, modalities: str, modality: str) -> None:
    head, batch, other = made(name, modalities), batch_of(4), batch_of(4)
    for role in MODALITIES[modality]:
        rows = other.features[role]
        other = replaced(other, role, rows + 1 if role != "tokens" else rows.flip(1))
    other = replaced(other, modality, other.features[modality] * 2)
    changed = (predicted(head, batch) != predicted(head, other)).any(dim=1)
    assert changed.tolist() == [modalities in {"both", modality}] * 4


@pytest.mark.parametrize(("name", "modalities"), CASES)
def test_x4_every_parameter_gets_a_gradient(name: str, modalities: str) -> None:
    head = made(name, modalities)
    assert backward(head, total(head, batch_of(12))) == trainable(head)


@pytest.mark.parametrize(("name", "modalities"), CASES)
def test_x4_each_auxiliary_loss_alone_reaches_what_the_logits_come_from(name: str, modalities: str) -> None:
    head, batch = made(name, modalities, adapter=name != "jfm"), batch_of(12)
    assert set(losses(head, batch)) - {""} == {one for one, weight in head.config.loss_weights.items() if weight}
    logits = head.eval()(read_by(head.config, batch, training=False)).logits
    behind = backward(head, functional.cross_entropy(logits, batch.labels))
    shared = {one for one in behind if ".adapter." in one} if adapters(head) else behind
    for auxiliary in set(losses(head, batch)) - {""}:
        assert backward(head, losses(head, batch)[auxiliary]) & shared, auxiliary


@pytest.mark.parametrize(("name", "modalities"), DEFAULTS)
def test_x5_sixteen_utterances_are_learned_by_heart(name: str, modalities: str) -> None:
    head, batch = made(name, modalities), batch_of(16)
    optimizer = torch.optim.AdamW(head.parameters(), lr=5e-3)
    for step in range(300):
        optimizer.zero_grad()
        total(head, batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 10 == 9 and bool((predicted(head, batch).argmax(dim=1) == batch.labels).all()):
            return
    pytest.fail(f"{name} does not learn 16 utterances in 300 steps")


@pytest.mark.parametrize(("name", "modalities"), CASES)
def test_x7_a_seed_decides_every_bit(name: str, modalities: str) -> None:
    weights = []
    for elsewhere in (1, 2):
        torch.manual_seed(elsewhere)  # whatever else has been drawn
        before = torch.random.get_rng_state()
        head = made(name, modalities, dropout=0.3)
        optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)
        for seed in range(2):
            optimizer.zero_grad()
            total(head, batch_of(8, seed=seed)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        assert torch.equal(torch.random.get_rng_state(), before)
        weights.append(head.state_dict())
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(one, weights[1][key]) for key, one in weights[0].items())


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


@pytest.mark.parametrize("modality", ["audio", "text"])
@pytest.mark.parametrize("name", FUSING)
def test_a_batch_may_lack_a_modality_altogether(name: str, modality: str) -> None:
    head = made(name)
    batch = without(batch_of(6), modality, list(range(6)))
    assert backward(head, total(head, batch))
    assert predicted(head, batch).isfinite().all()


@pytest.mark.parametrize(("name", "modalities"), DEFAULTS)
def test_streams_may_be_stacked_and_of_different_widths(name: str, modalities: str) -> None:
    text = (48,) if name == "jfm" else (3, 48)  # the layers of jfm go on from one hidden state
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
