"""The loop: a training that is stopped or killed ends with the weights of one that is not, and a collapse is seen."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cache.errors import MmerError
from fusion.end_to_end.pretraining.training import PERPLEXITY, collapsed_perplexity
from fusion.training.checkpoint import EpochScores
from tests.support.pretraining import Watcher, pretrained
from tests.support.processes import forked, wait_until

SMALL_STEPS = {"epochs": 2}


@pytest.fixture(scope="module")
def cache(tones: Path) -> Path:
    return tones


@pytest.fixture(scope="module")
def undisturbed(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Watcher]:
    out, watcher = tmp_path_factory.mktemp("runs") / "undisturbed", Watcher()
    pretrained(cache, out, watcher, config=SMALL_STEPS)
    return out, watcher


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "1" / "encoder" / "model.safetensors")


def assert_equal(first: Path, second: Path) -> None:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    curves = [(out / "1" / "curves.csv").read_text() for out in (first, second)]
    assert curves[0] == curves[1]


def test_steps_epochs_and_losses_are_reported(undisturbed: tuple[Path, Watcher]) -> None:
    _, watcher = undisturbed
    ((fold, steps),) = watcher.started
    assert fold == "1"
    assert watcher.steps == list(range(1, steps + 1))
    assert steps == 2 * (steps // 2)
    assert [scores.epoch for scores in watcher.epochs] == [1, 2]
    assert watcher.ended == 1
    for scores in watcher.epochs:
        assert {*scores.losses} == {*scores.dev} == {"total", "contrastive", "diversity", PERPLEXITY, "accuracy"}
        assert scores.losses["total"] == pytest.approx(scores.losses["contrastive"] + 0.1 * scores.losses["diversity"])
        assert scores.losses["diversity"] == pytest.approx(1 - scores.losses[PERPLEXITY] / 640)


def test_two_trainings_are_equal_and_the_seed_matters(
    cache: Path, undisturbed: tuple[Path, Watcher], tmp_path: Path
) -> None:
    pretrained(cache, tmp_path / "again", config=SMALL_STEPS)
    assert_equal(tmp_path / "again", undisturbed[0])
    pretrained(cache, tmp_path / "other", config={**SMALL_STEPS, "seed": 1})
    name = "wav2vec2.encoder.layers.0.attention.q_proj.weight"
    assert not torch.equal(weights(tmp_path / "other")[name], weights(undisturbed[0])[name])


@pytest.mark.parametrize("stop_after", [2, 4, 5])
def test_a_stopped_training_resumes_to_the_bit(
    cache: Path, undisturbed: tuple[Path, Watcher], tmp_path: Path, stop_after: int
) -> None:
    calls = iter(range(100))  # the first call comes before the first step
    with pytest.raises(KeyboardInterrupt):
        pretrained(cache, tmp_path, config=SMALL_STEPS, stopping=lambda: next(calls) == stop_after)
    assert (tmp_path / "1" / "state.safetensors").exists()
    assert not (tmp_path / "1" / "encoder").exists()
    watcher = Watcher()
    pretrained(cache, tmp_path, watcher, config=SMALL_STEPS)
    assert watcher.steps[:2] == [stop_after, stop_after + 1]
    assert_equal(tmp_path, undisturbed[0])
    assert not (tmp_path / "1" / "state.safetensors").exists()


def killed(cache: Path, out: Path) -> None:
    pretrained(cache, out, config=SMALL_STEPS, save_every_s=0.0)


def test_a_killed_training_resumes_to_the_bit(cache: Path, undisturbed: tuple[Path, Watcher], tmp_path: Path) -> None:
    state = tmp_path / "1" / "state.safetensors"
    with forked(killed, cache, tmp_path) as child:
        wait_until(state.exists, child)
        assert child.kill() == -signal.SIGKILL
    if not (tmp_path / "1" / "encoder").exists():
        watcher = Watcher()
        pretrained(cache, tmp_path, watcher, config=SMALL_STEPS)
        assert watcher.steps[0] >= 1
    assert_equal(tmp_path, undisturbed[0])


def test_a_kill_after_the_last_step_loses_nothing(
    cache: Path, undisturbed: tuple[Path, Watcher], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fusion.end_to_end.pretraining.export import FoldFolder

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FoldFolder, "write_result", stop)
        with pytest.raises(KeyboardInterrupt):
            pretrained(cache, tmp_path, config=SMALL_STEPS)
    watcher = Watcher()
    pretrained(cache, tmp_path, watcher, config=SMALL_STEPS)
    assert watcher.epochs == []  # nothing is trained again
    assert_equal(tmp_path, undisturbed[0])


def test_a_checkpoint_of_other_settings_is_refused(cache: Path, tmp_path: Path) -> None:
    calls = iter(range(100))
    with pytest.raises(KeyboardInterrupt):
        pretrained(cache, tmp_path, stopping=lambda: next(calls) == 1)
    record = tmp_path / "1" / "pretrain.json"
    record.write_text(record.read_text().replace("0.001", "0.002"))  # by hand, so that only the state differs
    with pytest.raises(MmerError, match=r"belongs to a different training .*training.lr: 0.001 there"):
        pretrained(cache, tmp_path, config={"lr": 0.002})


def test_a_number_of_steps_ends_within_an_epoch(cache: Path, tmp_path: Path) -> None:
    watcher = Watcher()
    run = pretrained(cache, tmp_path, watcher, config={"steps": 4})
    assert watcher.started == [("1", 4)]
    assert run.folds[0].steps == 4
    assert len(watcher.epochs) == 2


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains(cache: Path, tmp_path: Path, precision: str) -> None:
    run = pretrained(cache, tmp_path, config={"steps": 2, "precision": precision})
    assert run.folds[0].curves[-1]["total"] == pytest.approx(5, abs=3)


def test_a_loss_that_is_not_finite_is_one_line(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(MmerError, match=r"not finite|is nan in batch .*; lower --lr \(1e\+30\)"):
        pretrained(cache, tmp_path, config={"lr": 1e30, "warmup_steps": 0, "clip": 0.0})


def curves(train: tuple[float, ...], dev: tuple[float, ...] = ()) -> list[EpochScores]:
    values = [{PERPLEXITY: value} for value in dev] or [{} for _ in train]
    both = enumerate(zip(train, values, strict=True), start=1)
    return [EpochScores(epoch=number, losses={PERPLEXITY: value}, dev=held) for number, (value, held) in both]


@pytest.mark.parametrize(
    ("train", "dev", "expected"),
    [
        ((200.0, 210.0), (), None),
        ((200.0, 60.0), (), None),
        ((200.0, 49.0), (), ("train", 49.0)),
        ((12.0,), (), ("train", 12.0)),
        ((30.0, 14.0), (30.0, 14.0), None),
        ((200.0, 300.0), (150.0, 30.0), ("dev", 30.0)),  # probabilities stay diverse, the selected codes do not
    ],
)
def test_a_low_or_fallen_perplexity_is_a_collapse(
    train: tuple[float, ...], dev: tuple[float, ...], expected: tuple[str, float] | None
) -> None:
    assert collapsed_perplexity(curves(train, dev), 640) == expected


def test_a_collapse_warns_once(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fusion.end_to_end.pretraining import training

    monkeypatch.setattr(training, "COLLAPSED_SHARE", 0.99)  # a threshold that the short training cannot reach
    watcher = Watcher()
    pretrained(cache, tmp_path, watcher)
    (warning,) = [note for note in watcher.notes if "collapse" in note]
    assert warning.startswith("code perplexity on dev is ")
    assert "of 640 in epoch 1" in warning
