import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import pytest

from cache.errors import MmerError
from cache.joined import open_cache
from cache.merge import merge_caches
from fusion.experiment.experiment import Experiment
from fusion.experiment.request import ExperimentRequest
from fusion.fingerprint import digest_of
from fusion.head_config import HeadConfig
from fusion.training.config import TrainConfig
from tests.support.runs import QUICK, plan, scramble
from tests.support.shards import write_piece


@pytest.mark.parametrize(
    ("seeds", "seeds_text"), [((), "none"), ((1, 1), "1, 1"), ((-1,), "-1"), ((0, 2, 0), "0, 2, 0")]
)
def test_seeds_are_numbers_that_differ(seeds: tuple[int, ...], seeds_text: str) -> None:
    with pytest.raises(
        MmerError, match=f"seeds must be numbers from 0 to 4294967295 that differ from each other, got {seeds_text}$"
    ):
        Experiment(fusion="audio", head=HeadConfig(), training=TrainConfig(), seeds=seeds)


def test_what_decides_a_run_is_plain_and_the_same_every_time(trainable: Path) -> None:
    described = plan(trainable, "label-guided").identity
    assert json.loads(json.dumps(described)) == described == plan(trainable, "label-guided").identity
    assert "seed" not in described["training"]
    assert described["streams"]["audio"].split() == ["voice", open_cache(trainable).stream("voice").key]


@pytest.mark.parametrize(
    ("section", "values", "options"),
    [
        ("training", {"lr": "0.02"}, {}),
        ("head", {"dropout": "0.2"}, {}),
        ("seeds", {}, {"seeds": (1,)}),
        ("protocol", {}, {"protocol": "speaker"}),
        ("labels", {}, {"labels": "loud=angry+happy,low=sad+calm"}),
        ("streams", {}, {"streams": {"audio": "logmel80"}}),
        ("folds", {"data_seed": "4"}, {}),
    ],
)
def test_every_change_of_what_was_asked_for_is_another_run(
    trainable: Path, section: str, values: dict[str, object], options: dict[str, object]
) -> None:
    assert plan(trainable, "audio").identity[section] != plan(trainable, "audio", values, **options).identity[section]


def test_other_features_under_the_same_key_are_another_run(trainable: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copy(trainable, tmp_path))
    with h5py.File(changed, "r+") as file:
        file["streams/voice/checksum"][5] += 1
    first, second = (plan(path, "audio").identity for path in (trainable, changed))
    assert {name for name in first if first[name] != second[name]} == {"features"}


def test_another_label_is_another_run(trainable: Path, tmp_path: Path) -> None:
    changed = Path(shutil.copy(trainable, tmp_path))
    scramble(changed, [0, 1, 2, 3])
    assert plan(trainable, "audio").identity["folds"] != plan(changed, "audio").identity["folds"]


def test_the_order_of_utterances_in_the_file_is_no_other_run(trainable: Path, tmp_path: Path) -> None:
    ids = open_cache(trainable).ids
    every = ["voice", "voice.codes", "words@4", "words.tokens", "ctc.chars", "logmel80", "vit"]
    back = write_piece(trainable, tmp_path / "a.h5", ids[36:], every)
    front = write_piece(trainable, tmp_path / "b.h5", ids[:36], every)
    merge_caches(tmp_path / "c.h5", [back, front])
    first, second = (plan(path, "text", protocol="speaker").identity for path in (trainable, tmp_path / "c.h5"))
    assert first["features"] == second["features"]
    assert first["folds"] == second["folds"]


def test_a_digest_does_not_depend_on_the_order_of_names() -> None:
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1}) != digest_of({"a": 1, "b": [3]})


def test_a_request_takes_the_fields_of_its_recipe_and_changes_them(trainable: Path) -> None:
    streams = {"audio": "voice", "text": "words@4"}
    request = ExperimentRequest(recipe="gcf2net-iemocap", fields={"layers": "2", "lr": 0.01}, streams=streams)
    experiment = request.experiment(open_cache(trainable))
    assert (request.head, experiment.fusion, experiment.recipe) == ("rescmfa", "rescmfa", "gcf2net-iemocap")
    assert (experiment.training.monitor, experiment.training.lr, experiment.head.loss_weights) == (
        "ua",
        0.01,
        {"ctc": 0.1},
    )
    assert (experiment.labels, experiment.protocol, experiment.streams) == ("iemocap4", "session", streams)
    changed = replace(request, labels="meld7", protocol="speaker").experiment(open_cache(trainable))
    assert (changed.labels, changed.protocol) == ("meld7", "speaker")


def test_axes_of_a_grid_set_fields_and_streams_on_top(trainable: Path) -> None:
    request = ExperimentRequest(fusion="concat", streams={"audio": "voice", "text": "words@4"})
    experiment = request.experiment(open_cache(trainable), {"dropout": 0.3, "stream.audio": "logmel80"})
    assert (experiment.head.dropout, experiment.streams["audio"]) == (0.3, "logmel80")
    alone = request.experiment(open_cache(trainable), {"modalities": "audio"})
    assert alone.streams == {"audio": "voice"}  # the role that this combination drops needs no stream


def test_a_request_names_a_head_or_a_recipe_that_agree() -> None:
    with pytest.raises(MmerError, match="no head given; pass --fusion NAME"):
        ExperimentRequest()
    with pytest.raises(MmerError, match="is for head rescmfa, not for audio"):
        ExperimentRequest(fusion="audio", recipe="gcf2net-iemocap")
    with pytest.raises(MmerError, match="unknown recipe 'gcf2'"):
        ExperimentRequest(recipe="gcf2")


def test_a_warm_up_that_no_training_completes_is_noted(trainable: Path) -> None:
    longest = max(len(fold.train) for fold in plan(trainable, "text").split.folds)
    steps = 2 * -(-longest // int(QUICK["batch_size"]))
    assert not [note for note in plan(trainable, "text", {"warmup_steps": steps}).notes if "warm-up" in note]
    (note,) = [note for note in plan(trainable, "text", {"warmup_steps": 8000}).notes if "warm-up" in note]
    assert note == f"the warm-up has 8000 steps, the longest training {steps}: lr is not reached"
