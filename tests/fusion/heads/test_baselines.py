import pytest
import torch
from torch import nn

from fusion.heads.baselines import (
    Concat,
    ConcatConfig,
    CrossAttention,
    CrossAttentionConfig,
    Score,
    ScoreConfig,
    Unimodal,
    UnimodalConfig,
)
from fusion.heads.catalog import build_head, count_parameters
from fusion.inputs import HeadInputs
from tests.heads import batch_of, head_inputs

BASE = HeadInputs(classes=("ang", "hap", "neu", "sad"), shapes={"audio": (768,), "text": (1024,)})


def test_parameters_are_as_many_as_the_closed_forms_say() -> None:
    with torch.device("meta"):
        assert count_parameters(Unimodal(UnimodalConfig(), BASE)) == 768 * 4 + 4
        assert count_parameters(Unimodal(UnimodalConfig(modalities="text"), BASE)) == 1024 * 4 + 4
        assert count_parameters(Unimodal(UnimodalConfig(dim=256), BASE)) == 768 * 256 + 256 + 256 * 4 + 4
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
    for place, logits in enumerate(head.eval()(batch).logits):
        rows = batch.features["text"][place, batch.masks["text"][place]]
        torch.testing.assert_close(logits, linear[0](rows.mean(dim=0)))


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
        for mine, its in zip(model.parameters(), alone.parameters(), strict=True):
            assert mine.grad is not None
            assert its.grad is not None
            torch.testing.assert_close(mine.grad, its.grad)


def test_a_score_without_one_modality_is_that_of_the_other() -> None:
    head, batch = build_head("score", ScoreConfig(), head_inputs(), seed=0), batch_of(3)
    assert isinstance(head, Score)
    lacking = batch.without("text", torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(head.eval()(lacking).logits, head.models["audio"](batch).logits)
    assert head.train()(lacking).losses["text"] == 0


def test_cross_attention_reads_the_other_modality_for_each_row() -> None:
    head, batch = build_head("cross-attention", CrossAttentionConfig(), head_inputs(), seed=0), batch_of(2)
    assert isinstance(head, CrossAttention)
    asked: dict[str, tuple[int, int]] = {}
    for role, crossing in head.crossings.items():
        crossing.register_forward_hook(
            lambda _, given, __, role=role: asked.update({role: (given[0].shape[1], given[1].shape[1])})
        )
    head.eval()(batch)
    frames, tokens = batch.features["audio"].shape[1], batch.features["text"].shape[1]
    assert asked == {"audio": (frames, tokens), "text": (tokens, frames)}


def test_what_is_not_allowed_is_said() -> None:
    with pytest.raises(ValueError, match="modalities must be audio or text for a model of one, got 'both'"):
        UnimodalConfig(modalities="both")
    with pytest.raises(ValueError, match="pooling must be one of mean, max, got 'sum'"):
        ConcatConfig(pooling="sum")
    with pytest.raises(ValueError, match="heads must not be negative, got -1"):
        CrossAttentionConfig(heads=-1)
