import pytest
import torch
from torch import nn

from fusion.head_config import HeadInputs
from fusion.heads.baselines import Concat, CrossAttention, Score, Unimodal
from fusion.heads.build import build_head, count_parameters
from fusion.heads.configs.baselines import ConcatConfig, CrossAttentionConfig, ScoreConfig, UnimodalConfig
from tests.support.heads import batch_of, collate, head_inputs, samples

BASE = HeadInputs(classes=("ang", "hap", "neu", "sad"), shapes={"audio": (768,), "text": (1024,)})


def test_parameters_are_as_many_as_the_closed_forms_say() -> None:
    with torch.device("meta"):
        assert count_parameters(Unimodal(UnimodalConfig(), BASE)) == 768 * 4 + 4
        assert count_parameters(Unimodal(UnimodalConfig(modalities="text"), BASE)) == 1024 * 4 + 4
        assert count_parameters(Unimodal(UnimodalConfig(dim=256), BASE)) == 768 * 256 + 256 + 256 * 4 + 4
        probe = Unimodal(UnimodalConfig(hidden=128, normalize=True), BASE)
        assert count_parameters(probe) == 768 * 128 + 128 + 128 * 4 + 4
        assert count_parameters(Score(ScoreConfig(), BASE)) == 768 * 4 + 4 + 1024 * 4 + 4
        concat = Concat(ConcatConfig(adapter=False), BASE)
        projection = 1024 * 768 + 768
        assert count_parameters(concat) == projection + 1536 * 4 + 4
        crossed = CrossAttention(CrossAttentionConfig(adapter=False), BASE)
        assert count_parameters(crossed) == projection + 2 * (4 * 768 * 768 + 4 * 768 + 2 * 768) + 1536 * 4 + 4


def test_one_modality_is_the_mean_of_its_rows_and_a_linear_layer() -> None:
    head, batch = build_head("text", UnimodalConfig(modalities="text"), head_inputs(), seed=0), batch_of(3)
    linear = [module for module in head.modules() if isinstance(module, nn.Linear)]
    assert len(linear) == 1
    for index, logits in enumerate(head.eval()(batch).logits):
        rows = batch.features["text"][index, batch.masks["text"][index]]
        torch.testing.assert_close(logits, linear[0](rows.mean(dim=0)))


@pytest.mark.parametrize(
    ("pooling", "stacked"), [("mean", False), ("max", False), ("mean", True)], ids=["mean", "max", "stacked"]
)
def test_normalized_and_hidden_it_is_the_probe_of_emobox(pooling: str, stacked: bool) -> None:
    inputs = head_inputs(audio=(3, 24) if stacked else (24,))
    config = UnimodalConfig(normalize=True, hidden=7, pooling=pooling)
    head, chosen = build_head("audio", config, inputs, seed=0), samples(3, inputs)
    assert isinstance(head, Unimodal)
    mix: nn.Module | None = head.front.get_submodule("mix") if stacked else None
    hidden, classifier = (module for module in head.modules() if isinstance(module, nn.Linear))
    logits = head.eval()(collate(chosen, extra=9, noise=1e3)).logits
    for utterance, found in zip(chosen, logits, strict=True):
        rows = utterance.rows["audio"] * 5 + 2  # norms away
        layers = [nn.functional.layer_norm(layer, layer.shape) for layer in (rows.unbind(dim=1) if stacked else [rows])]
        kept = mix(torch.stack(layers, dim=1)[None])[0] if mix else layers[0]
        inner = hidden(kept).relu()
        pooled = inner.mean(dim=0) if pooling == "mean" else inner.amax(dim=0)
        torch.testing.assert_close(found, classifier(pooled), atol=1e-4, rtol=1e-4)


def test_without_hidden_layer_and_norm_all_is_as_it_was() -> None:
    head = build_head("audio", UnimodalConfig(), head_inputs(), seed=0)
    assert [name for name, _ in head.named_parameters()] == ["classifier.1.weight", "classifier.1.bias"]


@pytest.mark.parametrize("absent", [[1], [0, 1, 2, 3]])
def test_an_absent_modality_is_finite_through_the_probe_of_emobox(absent: list[int]) -> None:
    config = UnimodalConfig(normalize=True, hidden=5)
    head, batch = build_head("audio", config, head_inputs(), seed=0), batch_of(4)
    gone = torch.zeros(4, dtype=torch.bool)
    gone[absent] = True
    logits = head.train()(batch.without("audio", gone)).logits
    logits.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.isfinite().all()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in head.parameters())


def test_scores_are_the_sum_of_two_models() -> None:
    head, batch = build_head("score", ScoreConfig(), head_inputs(), seed=0), batch_of(3)
    assert isinstance(head, Score)
    models = [model.eval()(batch).logits for model in head.models.values()]
    torch.testing.assert_close(head.eval()(batch).logits, models[0] + models[1])


def test_each_model_of_a_score_learns_as_it_does_alone() -> None:
    batch, inputs = batch_of(8), head_inputs()
    head = build_head("score", ScoreConfig(dropout=0.0), inputs, seed=0)
    assert isinstance(head, Score)
    output = head.train()(batch)
    assert not output.logits.requires_grad
    assert head.config.loss_weights == {"audio": 1.0, "text": 1.0}
    torch.stack(list(output.losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    for role, model in head.models.items():
        alone = build_head(role, UnimodalConfig(dropout=0.0, modalities=role), inputs, seed=1)
        alone.load_state_dict(model.state_dict())
        nn.functional.cross_entropy(alone.train()(batch).logits, batch.labels).backward()  # type: ignore[no-untyped-call]
        for actual, expected in zip(model.parameters(), alone.parameters(), strict=True):
            assert actual.grad is not None
            assert expected.grad is not None
            torch.testing.assert_close(actual.grad, expected.grad)


def test_a_score_without_one_modality_is_that_of_the_other() -> None:
    head, batch = build_head("score", ScoreConfig(), head_inputs(), seed=0), batch_of(3)
    assert isinstance(head, Score)
    lacking = batch.without("text", torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(head.eval()(lacking).logits, head.models["audio"](batch).logits)
    assert head.train()(lacking).losses["text"] == 0


def test_cross_attention_reads_the_other_modality_for_each_row() -> None:
    head, batch = build_head("cross-attention", CrossAttentionConfig(), head_inputs(), seed=0), batch_of(2)
    assert isinstance(head, CrossAttention)
    shapes: dict[str, tuple[int, int]] = {}
    for role, crossing in head.crossings.items():
        crossing.register_forward_hook(
            lambda _, given, __, role=role: shapes.update({role: (given[0].shape[1], given[1].shape[1])})
        )
    head.eval()(batch)
    frames, tokens = batch.features["audio"].shape[1], batch.features["text"].shape[1]
    assert shapes == {"audio": (frames, tokens), "text": (tokens, frames)}


def test_what_is_not_allowed_is_said() -> None:
    with pytest.raises(ValueError, match="modalities must be audio or text for a unimodal model, got 'both'"):
        UnimodalConfig(modalities="both")
    with pytest.raises(ValueError, match="pooling must be one of mean, max, meanstd, attention, got 'sum'"):
        ConcatConfig(pooling="sum")
    with pytest.raises(ValueError, match="heads must not be negative, got -1"):
        CrossAttentionConfig(heads=-1)
    with pytest.raises(ValueError, match="hidden must be a width, or 0 for no hidden layer, got -1"):
        UnimodalConfig(hidden=-1)
    with pytest.raises(ValueError, match="normalize uses the utterance, standardize the training subset; set only"):
        UnimodalConfig(normalize=True, standardize=True)
