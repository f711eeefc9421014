"""JFM: what its streams exchange, what its classifiers share, and what holds for every head."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fusion.head import Batch
from fusion.heads.configs.jfm import JFMConfig
from fusion.heads.jfm import JFM
from fusion.losses.contrastive import supervised_contrastive_loss
from fusion.nn.dropout import seed_dropout, set_step
from fusion.nn.pretrained import band_statistics
from tests.support.heads import PATCH, TEXT, ToyRows, batch_of, collate, head_inputs, replaced, samples

LATE, CFA, CONCAT = ({"fusion": name} for name in ("late", "cfa", "concat"))
FORMS = [
    {},
    {"joint": False},
    LATE,
    CFA,
    CONCAT,
    {"modalities": "audio"},
    {"modalities": "text"},
    {**CFA, "modalities": "audio"},
    {**CONCAT, "modalities": "text"},
    {"blocks": 1, "layers": "last"},
]


def head_of(**fields: Any) -> JFM:
    torch.manual_seed(0)
    head = JFM(JFMConfig(**{"dropout": 0.0, **fields}), head_inputs())
    seed_dropout(head, 1)
    return head


def scored(head: JFM, batch: Batch) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = head.eval()(batch).logits
    return logits


def loss_of(head: JFM, batch: Batch) -> Tensor:
    output = head.train()(batch)
    loss = nn.functional.cross_entropy(output.logits, batch.labels)
    for name, auxiliary in output.losses.items():
        loss = loss + head.config.loss_weights[name] * auxiliary
    return loss


def noisy(batch: Batch, role: str) -> Batch:
    return replaced(batch, role, batch.features[role] + torch.randn(batch.features[role].shape))


def absent(batch: Batch, role: str, index: int) -> Batch:
    return batch.without(role, torch.arange(len(batch)) == index)


@pytest.mark.parametrize("form", FORMS)
def test_padding_changes_nothing(form: dict[str, Any]) -> None:
    head, utterances = head_of(**form), samples(4)
    head.prepare(ToyRows(utterances))
    extra = {"mel": 60, "text": 20, "patches": 50}
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        head.to(dtype)
        together = scored(head, collate(utterances, extra=extra, noise=1e3, dtype=dtype))
        apart = torch.cat([scored(head, collate([utterance], dtype=dtype)) for utterance in utterances])
        torch.testing.assert_close(together, apart, atol=tolerance, rtol=0)


def test_padding_beyond_the_positions_changes_nothing() -> None:
    head, utterances = head_of(), samples(3)
    long = replace(utterances[1], rows={**utterances[1].rows, "mel": torch.randn(16 * 94 + 1, 80)})
    together = scored(head, collate([utterances[0], long, utterances[2]], extra=90, noise=1e3))
    apart = torch.cat([scored(head, collate([utterance])) for utterance in (utterances[0], long, utterances[2])])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_the_order_of_a_batch_is_that_of_its_logits(form: dict[str, Any]) -> None:
    head, utterances, order = head_of(**form), samples(4), [2, 0, 3, 1]
    permuted = scored(head, collate([utterances[index] for index in order]))
    torch.testing.assert_close(permuted, scored(head, collate(utterances))[order], atol=1e-6, rtol=0)


@pytest.mark.parametrize("form", [{}, {"joint": False}, LATE, CFA, CONCAT])
def test_each_modality_counts_unless_it_is_switched_off(form: dict[str, Any]) -> None:
    batch = batch_of(3)
    for modality, role in zip(("audio", "text"), JFMConfig(**form).roles, strict=True):
        both, other = head_of(**form), head_of(**form, modalities="text" if modality == "audio" else "audio")
        assert (scored(both, batch) - scored(both, noisy(batch, role))).abs().max() > 1e-4
        assert torch.equal(scored(other, batch), scored(other, noisy(batch, role)))


@pytest.mark.parametrize("form", FORMS)
def test_every_parameter_learns(form: dict[str, Any]) -> None:
    head = head_of(**form)
    torch.autograd.backward(loss_of(head, batch_of(6)))
    silent = [name for name, parameter in head.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert silent == []


def test_the_contrastive_loss_alone_reaches_all_before_the_classifiers() -> None:
    head = head_of()
    torch.autograd.backward(head.train()(batch_of(6)).losses["icl"])
    silent = {
        name.split(".")[0]
        for name, parameter in head.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    }
    assert silent == {"classifiers"}


def test_the_contrastive_loss_reads_both_final_rows() -> None:
    head, batch, seen = head_of(tau=0.3).train(), batch_of(6), {}
    for modality, classifier in head.classifiers.items():
        classifier.register_forward_pre_hook(lambda _, given, modality=modality: seen.update({modality: given[0]}))
    output = head(batch)
    both = torch.cat([seen["audio"], seen["text"]], dim=1)
    assert both.shape == (6, PATCH + TEXT)
    torch.testing.assert_close(output.losses["icl"], supervised_contrastive_loss(both, batch.labels, temperature=0.3))


@pytest.mark.parametrize("off", [{"icl": False}, {"icl_weight": 0.0}])
def test_without_weight_there_is_no_contrastive_loss(off: dict[str, Any]) -> None:
    assert not head_of(**off).train()(batch_of(4)).losses
    assert not head_of().eval()(batch_of(4)).losses


def test_logits_are_the_mean_of_two_classifiers() -> None:
    head, batch, seen = head_of().eval(), batch_of(3), []
    for classifier in head.classifiers.values():
        classifier.register_forward_hook(lambda _, __, logits: seen.append(logits))
    logits = head(batch).logits
    first, second = seen
    assert torch.equal(logits, (first + second) / 2)
    assert torch.equal(logits, (second + first) / 2)
    of_probabilities = (first.softmax(dim=1) + second.softmax(dim=1)) / 2
    assert not torch.allclose(logits.softmax(dim=1), of_probabilities, atol=1e-4)


def entered(head: JFM, batch: Batch) -> dict[str, Tensor]:
    """Computes the rows of speech after the ViT and of text after the extractor, each normalized as by its encoder."""
    audio = head.entries["audio"](batch.features["mel"], batch.masks["mel"])
    for block in head.blocks:
        audio = block({"audio": audio})["audio"]
    text = head.entries["text"](batch.features["text"], batch.masks["text"])
    return {"audio": head.norm(audio.rows), "text": text.rows}


def test_concatenation_classifies_the_two_final_rows_together() -> None:  # J-18
    head, batch = head_of(**CONCAT).eval(), batch_of(5)
    rows = entered(head, batch)
    joined = torch.cat([rows["audio"][:, 0], rows["text"][:, 0]], dim=1)
    assert joined.shape == (5, PATCH + TEXT)
    torch.testing.assert_close(head(batch).logits, head.classifiers["concat"](joined))
    loss = supervised_contrastive_loss(joined, batch.labels, temperature=0.07)
    torch.testing.assert_close(head.train()(batch).losses["icl"], loss)


def test_cross_modal_attention_is_that_of_torch_in_both_directions() -> None:  # J-18
    head: Any = head_of(**CFA).eval()
    sample = samples(1)
    batch = collate(sample, extra=9, noise=1e3)
    rows = entered(head, collate(sample))  # without padding, so that torch needs no mask
    logits = []
    for query, other, dim in (("audio", "text", PATCH), ("text", "audio", TEXT)):
        layer = head.crossing.layers[query]
        reference = nn.MultiheadAttention(dim, layer.attention.heads, batch_first=True).eval()
        reference.load_state_dict(layer.attention.state_dict())
        memory = head.crossing.maps[query](rows[other])
        attended, _ = reference(rows[query], memory, memory)
        final = nn.functional.layer_norm(rows[query] + attended, (dim,), layer.norm.weight, layer.norm.bias)
        logits.append(head.classifiers[query](final[:, 0]))
    torch.testing.assert_close(head(batch).logits, (logits[0] + logits[1]) / 2, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", [CFA, CONCAT])
def test_the_baselines_keep_the_vit_of_the_joint_blocks_and_drop_the_language_model(form: dict[str, Any]) -> None:
    joint: Any = head_of()
    baseline: Any = head_of(**form)
    assert [list(block.layers) for block in baseline.blocks] == [["audio"], ["audio"]]
    kept = {name: x for name, x in baseline.state_dict().items() if "crossing" not in name and "classif" not in name}
    assert {name.split(".")[0] for name in kept} == {"entries", "blocks", "norm"}
    whole = joint.state_dict()
    assert all(torch.equal(x, whole[name]) for name, x in kept.items() if not name.startswith("entries.text"))


def test_jfm_is_the_name_of_the_joint_blocks_in_the_tables_of_the_paper() -> None:
    assert JFMConfig(fusion="jfm") == JFMConfig()


def test_streams_keep_their_rows_and_widths() -> None:
    head, batch, after = head_of(), batch_of(3), []
    for block in head.blocks:
        block.register_forward_hook(lambda _, __, streams: after.append(streams))
    scored(head, batch)
    columns = -(-batch.features["mel"].shape[1] // 16)
    for streams in after:
        assert streams["text"].rows.shape == (3, batch.features["text"].shape[1], TEXT)
        assert streams["audio"].rows.shape == (3, 1 + 5 * columns, PATCH)
    assert len(after) == 2


@pytest.mark.parametrize(("role", "other"), [("mel", "text"), ("text", "audio")])
def test_an_absent_modality_leaves_what_the_other_gives_alone(role: str, other: str) -> None:
    head, batch = head_of(), batch_of(3)
    without = scored(head, absent(batch, role, 1))
    alone = head_of(modalities=other).eval()
    alone.load_state_dict({name: values for name, values in head.state_dict().items() if name in alone.state_dict()})
    (silent,) = {"audio", "text"} - {other}
    with torch.inference_mode():
        expected = (alone(batch).logits[1] + head.get_parameter(f"classifiers.{silent}.bias")) / 2
    torch.testing.assert_close(without[1], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(without[[0, 2]], scored(head, batch)[[0, 2]], atol=1e-5, rtol=0)


@pytest.mark.parametrize("role", ["mel", "text"])
def test_a_batch_without_a_single_row_of_a_modality_is_finite(role: str) -> None:
    head: Any = head_of(modality_dropout=0.3)
    utterances = [
        replace(utterance, rows={**utterance.rows, role: utterance.rows[role][:0]}) for utterance in samples(4)
    ]
    loss = loss_of(head, collate(utterances))
    torch.autograd.backward(loss)
    assert torch.isfinite(loss)
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters() if parameter.grad is not None)
    vector = head.pools["audio" if role == "mel" else "text"].absent
    assert vector.grad is not None
    assert vector.grad.any()


def test_preparing_learns_the_bands_of_the_training_fold() -> None:
    head, utterances = head_of(), samples(5)
    assert head.prepare(ToyRows(utterances)) == []
    mean, deviation = band_statistics(utterance.rows["mel"].numpy() for utterance in utterances)
    np.testing.assert_allclose(head.state_dict()["entries.audio.mean"], mean, atol=1e-6)
    np.testing.assert_allclose(head.state_dict()["entries.audio.deviation"], deviation, atol=1e-6)
    assert head_of(**LATE).prepare(ToyRows(utterances)) == []
    assert head_of(modalities="text").prepare(ToyRows(utterances)) == []


def test_what_is_longer_than_the_positions_is_over_limits() -> None:
    lengths = {role: np.array([100, 16 * 94, 16 * 94 + 1]) for role in ("mel", "text", "patches")}
    assert head_of().over_limits(lengths).tolist() == [False, False, True]
    for form in (LATE, {"modalities": "text"}):
        assert not head_of(**form).over_limits(lengths).any()


def test_dropout_follows_from_seed_and_step() -> None:
    head, batch = head_of(dropout=0.4).train(), batch_of(6)
    losses = []
    for step in (1, 1, 2):
        set_step(head, step)
        losses.append(head(batch).losses["icl"].item())
    assert losses[0] == losses[1] != losses[2]
