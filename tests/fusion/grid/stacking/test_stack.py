from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fusion.data.features import CachedFeatures
from fusion.grid.stacking.stack import ALIGNED, HeadStack
from fusion.head import Batch, Head
from fusion.nn.dropout import seed_dropout, set_step
from fusion.training.steps import TOTAL, total_loss
from tests.support.stacks import CONFIG, SMALL, STACKED, TRAIN, Made, models, source_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> CachedFeatures:
    return source_of(tmp_path_factory.mktemp("cache") / "a.h5")


def made(name: str, source: CachedFeatures, *, seeds: bool = True) -> list[Head]:
    heads = [one.head(source) for one in models(name)]
    for place, head in enumerate(heads):
        seed_dropout(head, place if seeds else 7)
        head.train()
        for parameter in head.parameters():  # adapters awake, norms no identity
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(place))
    return heads


def batch_of(head: Head, source: CachedFeatures, count: int = 6) -> Batch:
    return next(source.batches([TRAIN[:count]], head.training_reads))


def weighed(head: Head, batch: Batch) -> Tensor:
    return total_loss(head(batch), batch.labels, head.config.loss_weights)[TOTAL]


@pytest.mark.parametrize("seeds", [True, False])  # equal seeds share their masks
@pytest.mark.parametrize("name", STACKED)
def test_a_stack_gives_what_each_head_gives_alone(name: str, seeds: bool, source: CachedFeatures) -> None:
    alone, heads = made(name, source, seeds=seeds), made(name, source, seeds=seeds)
    stack, batch = HeadStack(heads, CPU), batch_of(alone[0], source)
    for step in (0, 5):
        stack.set_step(step)
        output = stack(batch)
        for place, head in enumerate(alone):
            set_step(head, step)
            expected = head(batch)
            torch.testing.assert_close(output.logits[place], expected.logits, atol=1e-5, rtol=1e-5)
            assert list(output.losses) == list(expected.losses)
            for loss, value in expected.losses.items():
                torch.testing.assert_close(output.losses[loss][place], value, atol=1e-5, rtol=1e-5)
    evaluated = stack.logits(batch)
    for place, head in enumerate(alone):
        torch.testing.assert_close(evaluated[place], head.eval()(batch).logits, atol=1e-5, rtol=1e-5)
        state, found = head.state_dict(), stack.state_dict(place)
        assert list(found) == list(state)
        for part, tensor in state.items():  # running statistics too
            torch.testing.assert_close(found[part], tensor)


@pytest.mark.parametrize("pooling", ["max", "meanstd", "attention"])
@pytest.mark.parametrize("name", ["audio", "cross-attention"])
def test_every_pooling_stacks(name: str, pooling: str, source: CachedFeatures) -> None:
    fields = {"dropout": 0.0, "pooling": pooling}
    models = [Made(name=name, fields=fields, config=replace(CONFIG, seed=seed)) for seed in (0, 1)]
    alone = [model.head(source) for model in models]
    stack, batch = HeadStack([model.head(source) for model in models], CPU), batch_of(alone[0], source)
    output = stack(batch)
    for place, head in enumerate(alone):
        torch.testing.assert_close(output.logits[place], head(batch).logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fusion", ["late", "cfa", "concat"])
def test_every_fusion_of_jfm_stacks(fusion: str, source: CachedFeatures) -> None:
    form = {**SMALL["jfm"], "fusion": fusion}
    models = [Made(name="jfm", fields=form, config=replace(CONFIG, seed=seed)) for seed in (0, 1)]
    alone = [model.head(source) for model in models]
    stack, batch = HeadStack([model.head(source) for model in models], CPU), batch_of(alone[0], source)
    output = stack(batch)
    for place, head in enumerate(alone):
        expected = head(batch)
        torch.testing.assert_close(output.logits[place], expected.logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(output.losses["icl"][place], expected.losses["icl"], atol=1e-5, rtol=1e-5)


def in_double(batch: Batch) -> Batch:
    features = {role: rows.double() if rows.is_floating_point() else rows for role, rows in batch.features.items()}
    return Batch(features=features, masks=batch.masks, labels=batch.labels, indices=batch.indices)


@pytest.mark.parametrize("name", STACKED)
def test_gradients_of_a_stack_are_exact(name: str, source: CachedFeatures) -> None:
    alone = [head.double() for head in made(name, source)]
    stack = HeadStack([head.double() for head in made(name, source)], CPU)
    batch = in_double(batch_of(alone[0], source))
    output = stack(batch)
    losses = [{loss: value[place] for loss, value in output.losses.items()} for place in range(len(alone))]
    totals = [
        total_loss(type(output)(output.logits[place], losses[place]), batch.labels, head.config.loss_weights)[TOTAL]
        for place, head in enumerate(alone)
    ]
    rows, reached = stack.gradient(torch.stack(totals))
    for place, head in enumerate(alone):
        torch.autograd.backward(weighed(head, batch))
        trained = {one: part for one, part in head.named_parameters() if part.requires_grad}
        assert reached == {one for one, part in trained.items() if part.grad is not None}
        for one, columns in stack.columns.items():
            expected = trained[one].grad
            assert expected is not None
            scale = max(1e-3, float(expected.abs().max()))
            # cross entropy is taken in float32
            torch.testing.assert_close(columns.of(rows)[place], expected, atol=1e-6 * scale, rtol=0)


def test_what_no_loss_reaches_neither_moves_nor_decays(source: CachedFeatures) -> None:
    one = Made(name="rescmfa", fields={"alpha": 0.0}, config=models("rescmfa")[0].config)
    heads = [one.head(source), one.head(source)]
    stack = HeadStack(heads, CPU)
    batch = batch_of(heads[0], source)
    rows, reached = stack.gradient(stack(batch).logits.square().sum(dim=(1, 2)))
    assert set(stack.columns) - reached == {"ctc.weight", "ctc.bias"}
    assert not stack.columns["ctc.weight"].of(rows).any()
    matrices = {column for span in stack.decayed(reached) for column in range(stack.rows.shape[1])[span]}
    for name, columns in stack.columns.items():
        decays = len(columns.shape) > 1 and name in reached
        assert ({*range(columns.first, columns.end)} <= matrices) == decays, name
    assert len(stack.decayed(set(stack.columns))) == 1  # all matrices lie together


def test_parameters_are_aligned_views_of_one_matrix(source: CachedFeatures) -> None:
    heads = made("concat", source)
    stack = HeadStack(heads, CPU)
    ends = 0
    for columns in stack.columns.values():
        assert columns.first % ALIGNED == 0
        assert columns.first >= ends
        ends = columns.first + columns.size
    weight = stack.columns["classifier.1.weight"].of(stack.rows)
    assert torch.equal(weight[2], dict(heads[2].named_parameters())["classifier.1.weight"])
    before = stack.logits(batch_of(heads[0], source))
    with torch.no_grad():
        weight[1] += 1
    changed = (stack.logits(batch_of(heads[0], source)) != before).flatten(1).any(dim=1)
    assert changed.tolist() == [False, True, False]


@pytest.mark.parametrize("name", ["tab", "jfm"])  # running statistics; state that is shared
def test_models_that_stay_are_those_that_were_there(name: str, source: CachedFeatures) -> None:
    heads = made(name, source)
    stack, batch = HeadStack(heads, CPU), batch_of(heads[0], source)
    stack(batch)
    before, states = stack.logits(batch), [stack.state_dict(place) for place in range(3)]
    stack.keep([2, 0])
    assert len(stack) == 2
    torch.testing.assert_close(stack.logits(batch), before[[2, 0]])
    for place, was in enumerate([2, 0]):
        assert all(torch.equal(one, states[was][key]) for key, one in stack.state_dict(place).items())
    kept = stack.state_dict(1)
    stack.rows.zero_()
    assert any(one.any() for one in kept.values())  # copies
