from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from cache.errors import MmerError
from cache.joined import open_cache
from cache.layout import StreamPlan, read_layout
from cache.rows import to_stored
from cache.stream import StreamSpec
from cache.utterance import Utterance
from cache.writer import CacheWriter, Row, writing_lock
from fusion.data.features import CachedFeatures, TrainingSubset
from fusion.head_config import HeadInputs
from fusion.heads.build import count_parameters
from fusion.heads.configs.label_guided import LabelGuidedConfig
from fusion.heads.label_guided.head import LabelGuided
from fusion.training.steps import total_loss
from tests.support.heads import (
    CLASSES,
    COMMON,
    WORDS,
    Sample,
    ToyRows,
    batch_of,
    collate,
    head_inputs,
    quantizer_weights,
    samples,
)
from tests.support.toys import create

LABEL_LOSSES = {"l_g_text": 0.2, "l_g_speech": 0.2}
DTYPES = {"audio": "float32", "text": "float32", "tokens": "int32", "codes": "uint16"}


def made(inputs: HeadInputs | None = None, **values: Any) -> LabelGuided:
    torch.manual_seed(0)
    inputs = inputs or head_inputs()
    head = LabelGuided(LabelGuidedConfig(dropout=0.0, **values), inputs)
    head.prepare(ToyRows(samples(24, inputs, seed=9)))
    return head


def rows_of(head: LabelGuided, modality: str) -> torch.Tensor:
    rows = head.labels[modality].rows
    assert isinstance(rows, torch.Tensor)
    return rows.detach()


def cached(path: Path, chosen: Sequence[Sample]) -> CachedFeatures:
    """Writes samples to a cache and opens it for the head."""
    specs = {
        role: StreamSpec(
            name=role, role=role, source="a/b", weights="w", shape=tuple(chosen[0].rows[role].shape[1:]), dtype=dtype
        )
        for role, dtype in DTYPES.items()
    }
    plans = [
        StreamPlan(spec=spec, lengths=np.array([len(sample.rows[role]) for sample in chosen]), failures={})
        for role, spec in specs.items()
    ]
    utterances = [
        Utterance(id=f"u{index}", audio="a.wav", text=sample.text, label=CLASSES[sample.label], speaker="s")
        for index, sample in enumerate(chosen)
    ]
    create(path, utterances, plans, audio=quantizer_weights(24))
    rows = [
        Row(stream=role, index=index, stored=to_stored(sample.rows[role].numpy(), dtype), digest=bytes(16))
        for index, sample in enumerate(chosen)
        for role, dtype in DTYPES.items()
    ]
    with writing_lock(path), CacheWriter(read_layout(path)) as writer:
        writer.commit(rows)
    labels = np.array([sample.label for sample in chosen])
    return CachedFeatures(open_cache(path), dict(zip(DTYPES, DTYPES, strict=True)), labels)


def test_t004_1_nothing_of_dev_and_test_reaches_the_labels(tmp_path: Path) -> None:
    train, other = samples(24), samples(24, seed=5)
    held_out = [replace(sample, label=(sample.label + 1) % 4, text=f"unheard {' '.join(WORDS)}") for sample in other]
    prepared = []
    for name, rest in (("a.h5", other), ("b.h5", held_out[::-1])):
        source = cached(tmp_path / name, [*train, *rest])
        torch.manual_seed(0)
        head = LabelGuided(LabelGuidedConfig(), head_inputs())
        notes = head.prepare(TrainingSubset(source, np.arange(24)))
        prepared.append((notes, rows_of(head, "text"), rows_of(head, "audio")))
    assert prepared[0][0] == prepared[1][0]
    assert all(torch.equal(rows, same) for rows, same in zip(prepared[0][1:], prepared[1][1:], strict=True))
    assert not torch.equal(rows_of(made(), "text"), prepared[0][1])  # other training rows do


def test_labels_start_from_the_training_rows_and_what_describes_them_is_told() -> None:
    head = LabelGuided(LabelGuidedConfig(), head_inputs())
    notes = head.prepare(ToyRows(samples(24)))
    assert notes[0].startswith("angry is described by the words ")
    described = set(notes[0].removeprefix("angry is described by the words ").split(", "))
    assert {"rage", "storm"} <= described <= {CLASSES[0], *WORDS[0].split(), *COMMON.split()}
    assert any(note.startswith("words of angry: ") and "of 9" in note for note in notes)
    assert any(note.startswith("labels of audio: ") for note in notes)


def test_t004_5_streams_of_different_widths_are_not_projected() -> None:
    inputs = head_inputs(audio=(48,), text=(32,))
    head = made(inputs)
    assert head.attention.bilinear.shape == (48, 32)
    assert head.classifier.in_features == 80
    assert head(batch_of(3, inputs)).logits.shape == (3, 4)


def test_a_width_that_is_asked_for_is_that_of_the_alignment_alone() -> None:
    head = made(dim=10)
    assert head.attention.bilinear.shape == (10, 10)
    assert rows_of(head, "text").shape == (4, 24)
    assert rows_of(head, "audio").shape == (4, 12)
    assert head(batch_of(3)).logits.shape == (3, 4)


def test_t004_8_the_losses_are_weighted_as_printed() -> None:
    head, batch = made(), batch_of(8)
    output = head.train()(batch)
    assert head.config.loss_weights == {"l_c": 0.5, **LABEL_LOSSES}
    assert set(output.losses) == set(head.config.loss_weights)
    main = functional.cross_entropy(output.logits, batch.labels)
    expected = main + sum(weight * output.losses[name] for name, weight in {"l_c": 0.5, **LABEL_LOSSES}.items())
    total = total_loss(output, batch.labels, head.config.loss_weights)["total"]
    torch.testing.assert_close(total, expected, atol=1e-6, rtol=0)
    output.losses["l_g_text"].backward()  # type: ignore[no-untyped-call]
    reached = {name for name, part in head.named_parameters() if part.grad is not None and part.grad.any()}
    assert {name.split(".adapter")[0] for name in reached} == {"fronts.text", "labels.text.rows"}
    assert not head.eval()(batch).losses


def test_weights_count_against_that_of_the_cross_entropy() -> None:
    config = LabelGuidedConfig(mu_m=2.0, mu_c=0.0)
    assert config.loss_weights == {"l_c": 0.0, "l_g_text": 0.1, "l_g_speech": 0.1}
    head = LabelGuided(config, head_inputs())
    assert set(head.train()(batch_of(4)).losses) == {"l_g_text", "l_g_speech"}


def test_label_losses_are_those_of_the_mean_cosine_without_special_tokens() -> None:
    head, sample = made(adapter=False), samples(1)[0]
    losses = head.train()(collate([sample], extra=3, noise=1e3)).losses
    cosines = functional.cosine_similarity(sample.rows["text"][1:-1, None], rows_of(head, "text"), dim=-1)
    expected = functional.cross_entropy(cosines.mean(dim=0), torch.tensor(sample.label))
    torch.testing.assert_close(losses["l_g_text"], expected)
    speech = torch.from_numpy(head_inputs().weights["audio"]["project_hid.weight"])
    frames = sample.rows["audio"] @ speech.T + torch.from_numpy(head_inputs().weights["audio"]["project_hid.bias"])
    cosines = functional.cosine_similarity(frames[:, None], rows_of(head, "audio"), dim=-1)
    expected = functional.cross_entropy(cosines.mean(dim=0), torch.tensor(sample.label))
    torch.testing.assert_close(losses["l_g_speech"], expected)


def test_x6_the_head_has_as_many_parameters_as_printed() -> None:
    shapes = {"audio": (768,), "text": (768,)}
    sizes = {"codevectors": (640, 128), "project_q.weight": (256, 256), "project_q.bias": (256,)}
    sizes |= {"project_hid.weight": (256, 768), "project_hid.bias": (256,)}
    weights = {name: np.zeros(size, dtype=np.float32) for name, size in sizes.items()}
    inputs = HeadInputs(classes=CLASSES, shapes=shapes, weights={"audio": weights})
    with torch.device("meta"):
        plain = LabelGuided(LabelGuidedConfig(adapter=False), inputs)
        whole = LabelGuided(LabelGuidedConfig(train_projection=True), inputs)
    assert count_parameters(plain) == 589_824 + 6_148 + 3_072 + 1_024
    assert count_parameters(whole) == count_parameters(plain) + 196_864 + 2_365_440


@pytest.mark.parametrize("constraint", ["C1", "C2", "C3", "C4"])
@pytest.mark.parametrize("values", [{}, {"al_norm": "softmax"}, {"tonal_labels": "text"}, {"tonal_space": "lift"}])
def test_every_variant_trains_all_its_parameters(constraint: str, values: dict[str, Any]) -> None:
    head, batch = made(constraint=constraint, adapter=False, **values), batch_of(8)
    output = head.train()(batch)
    assert ("l_c" in output.losses) == (constraint == "C1")
    auxiliary = [head.config.loss_weights[name] * loss for name, loss in output.losses.items()]
    torch.stack([functional.cross_entropy(output.logits, batch.labels), *auxiliary]).sum().backward()  # type: ignore[no-untyped-call]
    idle = [name for name, part in head.named_parameters() if part.requires_grad and part.grad is None]
    assert not idle


def test_the_labels_may_be_left_alone_by_the_constraint() -> None:
    reached = []
    for detach in (False, True):
        head = made(detach_al=detach)
        head.train()(batch_of(4)).losses["l_c"].backward()  # type: ignore[no-untyped-call]
        reached.append({name for name, part in head.named_parameters() if part.grad is not None and part.grad.any()})
    assert {"labels.text.rows", "labels.audio.rows", "attention.bilinear"} <= reached[0]
    assert not {"labels.text.rows", "labels.audio.rows"} & reached[1]


@pytest.mark.parametrize(
    ("values", "losses", "roles"),
    [
        ({"text_labels": "off"}, {"l_g_speech"}, ("codes",)),
        ({"tonal_labels": "off"}, {"l_g_text"}, ("tokens",)),
        ({"text_labels": "random", "tonal_labels": "random"}, {"l_g_text", "l_g_speech", "l_c"}, ()),
        ({"text_labels": "label-word"}, {"l_g_text", "l_g_speech", "l_c"}, ("tokens", "codes")),
        ({"modalities": "text"}, {"l_g_text"}, ("tokens",)),
        ({"modalities": "audio"}, {"l_g_speech"}, ("codes",)),
        ({"modalities": "audio", "tonal_labels": "text"}, {"l_g_speech"}, ("text", "tokens")),
    ],
)
def test_an_ablation_is_one_field(values: dict[str, Any], losses: set[str], roles: tuple[str, ...]) -> None:
    head = made(**values)
    assert set(head.train()(batch_of(4)).losses) == set(head.config.loss_weights) == losses
    assert head.config.prepare_roles == roles


def test_tokens_and_the_speech_aligned_to_them_are_pooled_by_their_greatest() -> None:  # eq. 7, 8 and 11
    head, sample = made(adapter=False).eval(), samples(1)[0]
    frames, tokens = sample.rows["audio"], sample.rows["text"]
    weights = (tokens @ head.attention.bilinear.T @ frames.T).softmax(dim=1)  # (tokens, frames)
    joined = torch.cat([tokens, weights @ frames], dim=1)
    expected = head.classifier(joined.amax(dim=0))
    torch.testing.assert_close(head(collate([sample], extra=4, noise=1e3)).logits[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("modality", ["text", "audio"])
def test_one_modality_alone_is_pooled_by_the_mean_of_its_valid_rows(modality: str) -> None:  # L-11
    head, sample = made(adapter=False, modalities=modality).eval(), samples(1)[0]
    expected = head.classifier(sample.rows[modality].mean(dim=0))
    torch.testing.assert_close(head(collate([sample], extra=4, noise=1e3)).logits[0], expected, atol=1e-5, rtol=1e-5)


def test_spans_of_speech_are_hidden_in_training_alone() -> None:
    plain, masked, batch = made(), made(span_mask=0.5), batch_of(8)
    masked.load_state_dict(plain.state_dict())
    assert torch.equal(masked.eval()(batch).logits, plain.eval()(batch).logits)
    losses = [head.train()(batch).losses for head in (plain, masked)]
    assert torch.equal(losses[0]["l_g_text"], losses[1]["l_g_text"])
    assert losses[0]["l_g_speech"] != losses[1]["l_g_speech"]
    assert isinstance(plain.spans, torch.nn.Identity)  # numbers no dropout site


def test_speech_without_text_is_heard_as_the_mean_of_its_frames() -> None:
    head, batch = made(adapter=False).eval(), batch_of(2)
    deaf = batch.without("text", torch.tensor([True, False]))
    mean = batch.features["audio"][0][batch.masks["audio"][0]].mean(dim=0)
    expected = head.classifier(torch.cat([torch.zeros(24), mean]))
    torch.testing.assert_close(head(deaf).logits[0], expected)
    torch.testing.assert_close(head(deaf).logits[1], head(batch).logits[1])


def test_a_class_that_nothing_describes_is_an_error() -> None:
    silent = [replace(sample, text="the and then" if sample.label == 2 else sample.text) for sample in samples(12)]
    with pytest.raises(MmerError, match="no word of the training utterances can describe the class sad"):
        LabelGuided(LabelGuidedConfig(), head_inputs()).prepare(ToyRows(silent))
