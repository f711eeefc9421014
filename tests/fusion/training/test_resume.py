import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cache.errors import MmerError
from fusion.head import Batch, HeadOutput
from fusion.head_config import HeadInputs
from fusion.training.checkpoint import BEST, HEAD, OPTIMIZER, EpochScores, load_checkpoint
from fusion.training.model import TrainedModel
from tests.support.processes import forked, wait_until
from tests.support.trainings import (
    CONFIG,
    SHAPES,
    ToyConfig,
    ToyHead,
    assert_same,
    toy_head,
    train,
    train_slowly,
    write_cache,
)

STEPS = 12  # of three epochs


class Interrupted(Exception):
    """Stands for a kill."""


class Dying(ToyHead):
    """Does not survive one of its steps."""

    def __init__(self, last_step: int) -> None:
        super().__init__(ToyConfig(dropout=0.2), HeadInputs(classes=("a", "b", "c"), shapes=SHAPES))
        self.load_state_dict(toy_head().state_dict())
        self.last_step = last_step

    def forward(self, batch: Batch) -> HeadOutput:
        if self.training and int(self.dropout.step) == self.last_step:
            raise Interrupted
        return super().forward(batch)


@pytest.fixture(scope="module")
def learnable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resume") / "a.h5"
    write_cache(path)
    return path


@pytest.fixture(scope="module")
def undisturbed(learnable: Path) -> TrainedModel:
    return train(learnable)


def _dead_before(step: int, learnable: Path, state: Path) -> None:
    with pytest.raises(Interrupted):
        train(learnable, head=Dying(step), checkpoint=state)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 6, 8, 11])  # each batch of an epoch, in another epoch too
def test_a_training_stopped_in_any_batch_ends_as_if_it_had_not_been(
    learnable: Path, undisturbed: TrainedModel, tmp_path: Path, step: int
) -> None:
    _dead_before(step, learnable, tmp_path / "state")
    assert load_checkpoint(tmp_path / "state").progress.step == step
    assert_same(train(learnable, head=Dying(STEPS + 1), checkpoint=tmp_path / "state"), undisturbed)


def test_a_training_stopped_after_every_epoch_ends_as_if_it_had_not_been(
    learnable: Path, undisturbed: TrainedModel, tmp_path: Path
) -> None:
    def stop(scores: EpochScores) -> None:
        raise Interrupted

    for _ in range(CONFIG.epochs):
        with pytest.raises(Interrupted):
            train(learnable, checkpoint=tmp_path / "state", on_epoch=stop)
    assert_same(train(learnable, checkpoint=tmp_path / "state", on_epoch=stop), undisturbed)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_resumes_too(learnable: Path, tmp_path: Path, precision: str) -> None:
    config = replace(CONFIG, precision=precision, optimizer="adam")
    with pytest.raises(Interrupted):
        train(learnable, config=config, head=Dying(6), checkpoint=tmp_path / "state")
    resumed = train(learnable, config=config, head=Dying(STEPS + 1), checkpoint=tmp_path / "state")
    assert_same(resumed, train(learnable, config=config))


def test_a_killed_process_is_gone_on_from(learnable: Path, undisturbed: TrainedModel, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with forked(train_slowly, learnable, state) as process:
        wait_until(lambda: "1\n" in process.output.read_text(), process)
        assert process.kill() == -signal.SIGKILL
    assert 0 < load_checkpoint(state).progress.step < STEPS
    assert_same(train(learnable, checkpoint=state), undisturbed)


def test_a_finished_training_is_not_done_again(learnable: Path, undisturbed: TrainedModel, tmp_path: Path) -> None:
    train(learnable, checkpoint=tmp_path / "state", save_every_s=1e9)
    held = load_checkpoint(tmp_path / "state").tensors
    assert held[BEST]
    assert not held[HEAD]
    assert not held[OPTIMIZER]
    head = Dying(0)
    with pytest.raises(MmerError, match=r"head.name: ToyHead there, Dying requested"):
        train(learnable, head=head, checkpoint=tmp_path / "state")
    again = toy_head()
    assert_same(train(learnable, head=again, checkpoint=tmp_path / "state"), undisturbed)
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, undisturbed.weights[name])


def test_another_configuration_is_refused_by_name(learnable: Path, tmp_path: Path) -> None:
    _dead_before(5, learnable, tmp_path / "state")
    differences = r"training.lr: 0.01 there, 0.5 requested; training.seed: 3 there, 7 requested"
    message = rf"belongs to a different training \({differences}\); train in a new folder or delete the file$"
    with pytest.raises(MmerError, match=message):
        train(learnable, head=Dying(0), config=replace(CONFIG, lr=0.5, seed=7), checkpoint=tmp_path / "state")


def test_a_field_that_is_new_has_its_default_in_an_older_state(
    learnable: Path, undisturbed: TrainedModel, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    _dead_before(5, learnable, state)
    older = load_checkpoint(state)
    fields = {section: dict(named) for section, named in older.config.items()}
    del fields["training"]["schedule"], fields["head"]["modality_dropout"]
    replace(older, config=fields).save(state)
    assert_same(train(learnable, head=Dying(STEPS), checkpoint=state), undisturbed)
    _dead_before(5, learnable, state.with_name("other"))
    replace(load_checkpoint(state.with_name("other")), config=fields).save(state)
    with pytest.raises(MmerError, match=r"training.schedule: constant there, linear requested"):
        train(learnable, head=Dying(0), config=replace(CONFIG, schedule="linear"), checkpoint=state)


def test_a_state_may_be_read_by_whoever_may_read_its_folder(learnable: Path, tmp_path: Path) -> None:
    train(learnable, checkpoint=tmp_path / "state")
    (tmp_path / "plain").touch()
    assert (tmp_path / "state").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_other_data_is_refused(learnable: Path, tmp_path: Path) -> None:
    _dead_before(5, learnable, tmp_path / "state")
    write_cache(tmp_path / "b.h5", without={"text": 3}, dtype="float32")
    with pytest.raises(MmerError, match=r"data.rows: .*; streams.audio: voice"):
        train(tmp_path / "b.h5", head=Dying(0), checkpoint=tmp_path / "state")


def test_a_damaged_checkpoint_is_told(learnable: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00garbage.")
    with pytest.raises(MmerError, match=r"is not a readable checkpoint .* delete it to train again"):
        train(learnable, checkpoint=tmp_path / "state")


def test_a_checkpoint_that_cannot_be_written_is_told(learnable: Path, tmp_path: Path) -> None:
    with pytest.raises(MmerError, match=r"cannot write .*nowhere"):
        train(learnable, checkpoint=tmp_path / "nowhere" / "state")
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_beside_a_checkpoint(learnable: Path, tmp_path: Path) -> None:
    train(learnable, checkpoint=tmp_path / "state")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("after", [1, 6, 11])
def test_a_training_that_is_told_to_stop_writes_its_state_first(
    learnable: Path, undisturbed: TrainedModel, tmp_path: Path, after: int
) -> None:
    requests = iter([False] * (after - 1) + [True])
    with pytest.raises(KeyboardInterrupt):
        train(learnable, checkpoint=tmp_path / "state", save_every_s=1e9, stopping=lambda: next(requests))
    assert load_checkpoint(tmp_path / "state").progress.step == after
    assert_same(train(learnable, checkpoint=tmp_path / "state"), undisturbed)
