"""Encoders and a head as one model: it starts as the frozen head, learns as Hugging Face does, resumes bit-equal."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fusion.end_to_end.learning.model import HEAD_PREFIX, TunedModel
from fusion.training.evaluate import predict_logits
from fusion.training.loop import train_fold
from tests.support.tuned import built, planned, request, source_of

TUNES = [
    *((name, ("audio", "text")) for name in ("rescmfa", "bimodal", "tab", "label-guided", "concat", "cross-attention")),
    ("audio", ("audio",)),
    ("text", ("text",)),
    ("audio", ("audio=1",)),
    ("text", ("text=2",)),
    ("rescmfa", ("audio=3", "text=7")),
    ("jfm", ("text",)),
    ("jfm", ("text=2",)),
]


@functools.cache  # several cases compare with the same frozen run
def logits_of(cache: Path, fusion: str, tune: tuple[str, ...], **fields: object) -> Tensor:
    plan = planned(cache, request(fusion, *tune, **fields))
    fold = plan.split.folds[0]
    return predict_logits(built(plan), source_of(plan), fold.test)


@pytest.mark.parametrize(("fusion", "tune"), TUNES, ids=str)
def test_at_step_0_the_logits_are_those_of_the_frozen_run(learning: Path, fusion: str, tune: tuple[str, ...]) -> None:
    bare: dict[str, object] = {} if fusion in {"jfm"} else {"adapter": False}
    bare |= {"pooling": "mean", "standardize": False} if fusion in {"audio", "text"} else {}  # those of a tuned run
    tuned = logits_of(learning, fusion, tune, **bare)
    torch.testing.assert_close(tuned, logits_of(learning, fusion, (), **bare), rtol=1e-4, atol=1e-4)


def test_late_fusion_of_patches_starts_as_the_frozen_run(learning: Path) -> None:
    logits = []
    for tune in ((), ("patches",)):
        wanted = request("jfm", *tune)
        plan = planned(learning, replace(wanted, fields={**wanted.fields, "fusion": "late"}))
        logits.append(predict_logits(built(plan), source_of(plan), plan.split.folds[0].test))
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-4, atol=1e-4)


def test_the_adapter_is_left_out_only_where_features_learn(learning: Path) -> None:
    names = set(dict(built(planned(learning, request("rescmfa", "audio"))).named_modules()))
    assert any("text" in name and name.endswith("adapter.norm") for name in names)
    assert not any("audio" in name and name.endswith("adapter.norm") for name in names)


@pytest.mark.parametrize("fusion", ["rescmfa", "concat"])
def test_encoders_with_rate_0_leave_the_head_as_frozen_training_does(learning: Path, fusion: str) -> None:
    silent = {"adapter": False, "batch_size": 2, "epochs": 4, "patience": 4, "dropout": 0.1, "lr": 1e-3}
    weights = []
    for tune, rates in (((), {}), (("audio", "text"), {"audio_lr": 0, "text_lr": 0})):
        plan = planned(learning, request(fusion, *tune, **silent, **rates))
        model, fold = built(plan), plan.split.folds[0]
        if isinstance(model, TunedModel):
            for encoder in model.encoders.values():
                still(encoder)
        training = plan.experiment.training
        trained = train_fold(model, source_of(plan), fold.train, fold.dev, training)
        assert len(trained.curves) * -(-len(fold.train) // training.batch_size) >= 20
        model.load_state_dict(trained.weights)
        weights.append({name.removeprefix(HEAD_PREFIX): value for name, value in model.state_dict().items()})
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=3e-4)  # after 20 steps or more


def still(encoder: nn.Module) -> None:
    """Switches off everything that the encoder draws."""
    encoder.train = lambda mode=True: encoder  # type: ignore[method-assign]
    encoder.eval()
    for module in encoder.modules():
        module.training = False


class Plain(nn.Module):
    """Hugging Face's speech model with frozen convolutions under a mean pool and a linear layer."""

    def __init__(self, model: Any, classifier: nn.Linear) -> None:
        super().__init__()
        self.model, self.classifier = model, classifier
        model.feature_extractor.requires_grad_(False)
        model.feature_projection.layer_norm.requires_grad_(False)

    def forward(self, waves: list[Tensor]) -> Tensor:
        pooled = [self.model(wave[None]).last_hidden_state[0].mean(dim=0) for wave in waves]
        return self.classifier(torch.stack(pooled))  # type: ignore[no-any-return]


def test_twenty_steps_are_those_of_a_plain_loop_from_waveforms(learning: Path) -> None:
    import numpy as np
    import soundfile

    from featurize.encoders.tiny import build_wav2vec2_tiny
    from fusion.data.batches import training_batches

    rate = 1e-3
    plan = planned(
        learning,
        request(
            "audio",
            "audio",
            adapter=False,
            pooling="mean",
            batch_size=2,
            epochs=5,
            patience=5,
            lr=0.01,
            audio_lr=rate,
            warmup=0.0,
        ),
    )
    fold, source, training = plan.split.folds[0], source_of(plan), plan.experiment.training
    model = built(plan)
    assert isinstance(model, TunedModel)
    still(model.encoders["audio"])
    linear = next(module for module in model.head.modules() if isinstance(module, nn.Linear))
    base: Any = build_wav2vec2_tiny().wav2vec2
    plain = Plain(base.eval(), nn.Linear(linear.in_features, linear.out_features))
    plain.classifier.load_state_dict(linear.state_dict())

    def wave(index: int) -> Tensor:
        sound, _ = soundfile.read(learning.parent / f"{plan.cache.ids[index]}.wav", dtype="float32")
        return torch.from_numpy((sound - sound.mean()) / np.sqrt(sound.var() + 1e-7))

    optimizer = torch.optim.AdamW(
        [
            {"params": [weight for weight in plain.classifier.parameters() if weight.ndim > 1], "lr": 0.01},
            {
                "params": [weight for weight in plain.classifier.parameters() if weight.ndim == 1],
                "weight_decay": 0.0,
                "lr": 0.01,
            },
            {"params": [w for w in plain.model.parameters() if w.requires_grad and w.ndim > 1], "lr": rate},
            {
                "params": [w for w in plain.model.parameters() if w.requires_grad and w.ndim == 1],
                "weight_decay": 0.0,
                "lr": rate,
            },
        ],
        weight_decay=training.weight_decay,
    )
    expected = []
    for epoch in range(1, training.epochs + 1):
        losses = []
        lengths = source.lengths(fold.train, model.training_reads)
        for group in training_batches(lengths, batch_size=training.batch_size, data_seed=0, epoch=epoch):
            indices = fold.train[group]
            logits = plain([wave(index) for index in indices.tolist()])
            loss = nn.functional.cross_entropy(logits, torch.from_numpy(source.labels[indices]))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_([w for w in plain.parameters() if w.requires_grad], training.clip)
            optimizer.step()
            losses.append(loss.item())
        expected.append(sum(losses) / len(losses))
    curves = train_fold(model, source, fold.train, fold.dev, training).curves
    assert len(curves) * len(losses) >= 20
    assert [scores.losses["total"] for scores in curves] == pytest.approx(expected, abs=1e-5)


def reached(model: TunedModel, loss: Tensor) -> dict[str, bool]:
    """Tells which encoders a loss has a gradient for."""
    model.zero_grad()
    loss.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    return {
        role: any(weight.grad is not None and bool(weight.grad.any()) for weight in encoder.parameters())
        for role, encoder in model.encoders.items()
    }


def training_losses(cache: Path, fusion: str, **fields: object) -> tuple[TunedModel, dict[str, Tensor]]:
    plan = planned(cache, request(fusion, "audio", "text", **fields))
    model = built(plan).train()
    assert isinstance(model, TunedModel)
    batch = source_of(plan).batch(plan.split.folds[0].train[:8], model.training_reads)
    return model, dict(model(batch).losses)


def test_the_ctc_loss_reaches_speech_and_not_text(learning: Path) -> None:
    model, losses = training_losses(learning, "rescmfa")
    assert reached(model, losses["ctc"]) == {"audio": True, "text": False}
    encoder: Any = model.encoders["audio"]
    last = encoder.layers[-1]
    assert any(weight.grad is not None and bool(weight.grad.any()) for weight in last.parameters())


def test_the_label_losses_reach_their_encoders(learning: Path) -> None:
    model, losses = training_losses(learning, "label-guided")
    found = {name: reached(model, loss) for name, loss in losses.items()}
    assert {"audio": True, "text": False} in found.values()
    assert {"audio": False, "text": True} in found.values()
    assert {"audio": True, "text": True} in found.values()


def test_nothing_reaches_what_is_frozen(learning: Path) -> None:
    model, losses = training_losses(learning, "rescmfa")
    sum(losses.values()).backward()  # type: ignore[union-attr]
    base = model.loaded["audio"].base
    for module in (base.feature_extractor, base.feature_projection.layer_norm):
        assert all(weight.grad is None for weight in module.parameters())


def test_an_interrupted_training_ends_bit_equal(learning: Path, tmp_path: Path) -> None:
    plan = planned(
        learning, request("concat", "audio", "text=2", dropout=0.1, audio_lr=1e-3, text_lr=1e-3, accumulate=2)
    )
    fold, training = plan.split.folds[0], plan.experiment.training
    whole = train_fold(built(plan), source_of(plan), fold.train, fold.dev, training)
    steps = iter([False, False, True])
    with pytest.raises(KeyboardInterrupt):
        train_fold(
            built(plan),
            source_of(plan),
            fold.train,
            fold.dev,
            training,
            checkpoint=tmp_path / "state",
            stopping=lambda: next(steps),
        )
    resumed = train_fold(built(plan), source_of(plan), fold.train, fold.dev, training, checkpoint=tmp_path / "state")
    assert resumed.weights.keys() == whole.weights.keys()
    assert all(torch.equal(resumed.weights[name], value) for name, value in whole.weights.items())
    assert any("encoders.audio" in name for name in whole.weights)
    different = replace(training, seed=5)
    other = train_fold(built(plan), source_of(plan), fold.train, fold.dev, different)
    assert not all(torch.equal(other.weights[name], value) for name, value in whole.weights.items())


def test_rates_fall_with_the_layers_above(learning: Path) -> None:
    plan = planned(learning, request("audio", "audio", lr=0.1, audio_lr=0.01, layer_decay=0.5))
    model = built(plan)
    rates = {rate: len(weights) for rate, weights in model.learning_rates(0.1)}
    assert sorted(rates, reverse=True) == pytest.approx([0.1, 0.01, 0.005, 0.0025, 0.00125, 0.000625])
    from fusion.training.steps import build_optimizer, set_learning_rate

    optimizer = build_optimizer(model, name="adamw", lr=0.1, weight_decay=0.0)
    set_learning_rate(optimizer, 0.05)
    found = sorted({group["lr"] for group in optimizer.param_groups})
    assert found == pytest.approx(sorted(rate / 2 for rate in rates))
