"""The journal of a grid: what is in it is found again, and its test parts are those of mmer-train."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cache.errors import MmerError
from fusion.data.features import CachedFeatures
from fusion.grid.combinations import Combination, Model, ModelOutcome
from fusion.grid.journal import DIGEST, ENTRY, Journal
from fusion.run.artifacts import with_digests
from fusion.run.folder import PREDICTIONS, SCORES, WEIGHTS, RunFolder
from fusion.run.load import load_model
from fusion.training.evaluate import predict_probabilities
from tests.support.grids import CPU, models, planned, sources, trained
from tests.support.runs import TWO_FOLDS, finish

FIELDS = {"dropout": 0.2, "standardize": True}


Kept = tuple[Journal, Model, CachedFeatures]


@pytest.fixture(scope="module")
def every(trainable: Path) -> list[Combination]:
    """One combination, of a small head."""
    return planned(trainable, "audio", {})


@pytest.fixture(scope="module")
def source(every: list[Combination]) -> CachedFeatures:
    """Its features."""
    return sources(every).at(0)


@pytest.fixture(scope="module")
def one_model(every: list[Combination], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal with the model of its first fold."""
    folder = tmp_path_factory.mktemp("one-model") / "grid"
    trained(folder, every, folds=["1"])
    return folder


@pytest.fixture
def kept(every: list[Combination], source: CachedFeatures, one_model: Path, tmp_path: Path) -> Kept:
    """A copy of that journal, its model and its features."""
    journal = Journal(Path(shutil.copytree(one_model, tmp_path / "grid")))
    return journal, models(every, folds=["1"])[0], source


def without_digest(entry: dict[str, Any]) -> dict[str, Any]:
    """As older versions wrote it."""
    return {name: value for name, value in entry.items() if name != DIGEST}


def test_a_model_scores_what_it_scores_in_mmer_train(trainable: Path, tmp_path: Path) -> None:
    every = planned(trainable, "concat", FIELDS, **TWO_FOLDS)
    journal, _ = trained(tmp_path / "grid", every)
    finish(every[0].plan, tmp_path / "run")
    for model in models(every):
        own, run = journal.folder(model), RunFolder(tmp_path / "run").model(model.fold.name, 0)
        assert (own.path / WEIGHTS).read_bytes() == (run.path / WEIGHTS).read_bytes()
        assert journal.scores(model, 0).test is None
        journal.open_test(model, sources(every).of(every[0].plan))
        for name in (PREDICTIONS, SCORES):
            assert (own.path / name).read_bytes() == (run.path / name).read_bytes()
        result, scores = journal.scores(model, 7), run.read(SCORES)
        assert result.combination == 7
        assert result.test == {metric: scores[metric] for metric in ("wa", "ua", "wf1", "mf1")}
        assert (result.dev, result.epoch) == (scores["dev_scores"], scores["epoch"])
        assert result.seconds > 0


def test_a_test_part_is_opened_once(kept: Kept) -> None:
    journal, model, source = kept
    journal.open_test(model, source)
    (journal.folder(model).path / WEIGHTS).unlink()
    journal.open_test(model, source)  # reads no weights any more
    assert journal.scores(model, 0).test is not None


def test_a_model_of_a_version_without_macro_f1_has_it_on_test_alone(kept: Kept) -> None:
    journal, model, source = kept
    journal.open_test(model, source)
    result, folder = journal.scores(model, 0), journal.folder(model)
    entry = without_digest(folder.read(ENTRY))
    for one in entry["curves"]:
        del one["dev"]["mf1"]
    folder.write(ENTRY, entry)
    scores = {name: one for name, one in folder.read(SCORES).items() if name not in {"mf1", "digests"}}
    folder.write(SCORES, with_digests(folder, scores, (WEIGHTS, PREDICTIONS)))
    before = (folder.path / SCORES).read_bytes()
    journal.open_test(model, source)
    older = journal.scores(model, 0)
    assert older.test == result.test
    assert older.dev == {name: value for name, value in result.dev.items() if name != "mf1"}
    assert (folder.path / SCORES).read_bytes() == before


def test_predictions_that_are_damaged_are_made_anew_from_the_weights(kept: Kept) -> None:
    journal, model, source = kept
    path = journal.folder(model).path / PREDICTIONS
    journal.open_test(model, source)
    whole = path.read_text()
    path.write_text(whole.replace(",0.", ",0.0"))
    journal.open_test(model, source)
    assert path.read_text() == whole
    path.write_text("")
    weights = load_file(path.with_name(WEIGHTS))
    save_file({name: tensor + 1 for name, tensor in weights.items()}, path.with_name(WEIGHTS))
    with pytest.raises(MmerError, match=r"weights.safetensors is not the file that was written; delete .* to train th"):
        journal.open_test(model, source)


def test_a_default_that_is_another_by_now_makes_no_two_models_one(kept: Kept) -> None:
    journal, model, _ = kept
    folder = journal.folder(model)
    entry = without_digest(folder.read(ENTRY))
    del entry["decides"]["training"]["schedule"]  # of a version that had no such field
    folder.write(ENTRY, entry)
    assert journal.scores(model, 0).epoch == entry["epoch"]
    entry["decides"]["training"]["lr"] = 0.77
    folder.write(ENTRY, entry)
    with pytest.raises(
        MmerError, match=rf"{model.key} holds a model with a different training; delete it, or choose another"
    ):
        journal.scores(model, 0)


@pytest.mark.parametrize("name", [SCORES, PREDICTIONS])
@pytest.mark.parametrize("content", ["", "{}"])
def test_scores_that_cannot_be_read_are_closed_until_they_are_made_anew(kept: Kept, name: str, content: str) -> None:
    journal, model, source = kept
    path = journal.folder(model).path
    journal.open_test(model, source)
    whole, result = (path / name).read_bytes(), journal.scores(model, 0)
    (path / name).write_text(content)
    assert journal.scores(model, 0).test == (result.test if name == PREDICTIONS else None)
    journal.open_test(model, source)
    assert (path / name).read_bytes() == whole
    assert journal.scores(model, 0) == result


@pytest.mark.parametrize("content", ["", "{}"])
def test_a_cost_that_cannot_be_read_is_none(kept: Kept, content: str) -> None:
    journal, model, _ = kept
    result = journal.scores(model, 0)
    (journal.folder(model).path / "cost.json").write_text(content)
    assert journal.scores(model, 0) == replace(result, seconds=0.0)


def test_a_failure_is_kept_with_its_reason(every: list[Combination], tmp_path: Path) -> None:
    journal, model = Journal(tmp_path), models(every)[0]
    assert not journal.holds(model)
    journal.write(model, ModelOutcome(failure="diverged: so"), CPU)
    assert journal.holds(model)
    assert not journal.trained(model)
    result = journal.scores(model, 0)
    assert (result.failure, result.dev, result.epoch, result.test) == ("diverged: so", {}, 0, None)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format_version": 99}', '{"format_version": 1}'])
def test_an_entry_that_cannot_be_read_is_told_in_one_line(
    every: list[Combination], tmp_path: Path, content: str
) -> None:
    journal, model = Journal(tmp_path), models(every)[0]
    journal.folder(model).make()
    (journal.folder(model).path / ENTRY).write_text(content)
    with pytest.raises(MmerError, match=f"{ENTRY} is not an entry of this version; delete .* to train the model again"):
        journal.scores(model, 0)


def test_weights_that_are_gone_are_told_with_the_way_out(kept: Kept) -> None:
    journal, model, source = kept
    (journal.folder(model).path / WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(MmerError, match=r"cannot read .*weights.safetensors .*; delete .* to train the model again"):
        journal.open_test(model, source)


def test_a_model_of_the_journal_is_loaded_as_that_of_the_run(trainable: Path, tmp_path: Path) -> None:
    every = planned(trainable, "label-guided", {"epochs": "1"}, **TWO_FOLDS)
    journal, _ = trained(tmp_path / "grid", every, folds=["1"])
    (model,) = models(every, folds=["1"])
    finish(every[0].plan, tmp_path / "run")
    head, expected = journal.load_model(model), load_model(RunFolder(tmp_path / "run"), "1", 0)
    source = sources(every).at(0)
    assert not head.training
    np.testing.assert_array_equal(
        predict_probabilities(head, source, model.fold.test), predict_probabilities(expected, source, model.fold.test)
    )


def test_weights_of_another_head_are_one_line(kept: Kept) -> None:
    journal, model, _ = kept
    folder = journal.folder(model)
    save_file({"linear.weight": np.zeros(3, dtype=np.float32)}, folder.path / WEIGHTS)
    folder.write(ENTRY, {**without_digest(folder.read(ENTRY)), "weights": folder.digest(WEIGHTS)})
    with pytest.raises(
        MmerError, match=r"does not fit the head, \d+ weights differ .*; delete .* to train the model ag"
    ):
        journal.load_model(model)


def test_a_model_is_claimed_by_one_at_a_time(every: list[Combination], tmp_path: Path) -> None:
    first, second = models(every)[:2]
    journal, other = Journal(tmp_path), Journal(tmp_path)
    with journal.claim(first) as mine, other.claim(first) as theirs, other.claim(second) as free:
        assert (mine, theirs, free) == (True, False, True)
    with other.claim(first) as theirs:
        assert theirs


def test_the_entry_says_what_was_trained(trainable: Path, tmp_path: Path) -> None:
    every = planned(trainable, "concat", FIELDS, seeds=(5,))
    journal, _ = trained(tmp_path, every, folds=["2"])
    (model,) = models(every, folds=["2"])
    entry = json.loads((journal.folder(model).path / ENTRY).read_text())
    assert (entry["fold"], entry["seed"], entry["failure"]) == ("2", 5, "")
    assert entry["decides"]["head"]["dropout"] == 0.2
    assert len(entry["curves"]) == 2


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["curves"], [{"epoch": 1}]),
        (["curves"], [{"epoch": 1, "losses": {}, "dev": {"ua": "high"}}]),
        (["curves"], [{"epoch": 1, "losses": [], "dev": {}}]),
        (["curves"], []),
        (["epoch"], 99),
        (["epoch"], 0),
        (["epoch"], -1),
        (["notes"], [["deep"]]),
        (["weights"], {"a": 1}),
        (["decides", "head"], "small"),
        (["digest"], ["a"]),
    ],
)
def test_entries_of_other_values_are_one_line(kept: Kept, path: list[str], value: object) -> None:
    journal, model, _ = kept
    folder = journal.folder(model)
    entry = without_digest(folder.read(ENTRY))
    held = entry
    for name in path[:-1]:
        held = held[name]
    held[path[-1]] = value
    folder.write(ENTRY, entry)
    with pytest.raises(MmerError, match=r"entry.json .*; delete .* to train the model again"):
        journal.scores(model, 0)


def test_an_edited_score_of_the_development_subset_is_found(kept: Kept) -> None:
    journal, model, _ = kept
    folder = journal.folder(model)
    entry = folder.read(ENTRY)
    entry["curves"][0]["dev"]["ua"] = 0.999
    folder.write(ENTRY, entry)
    with pytest.raises(MmerError, match=r"entry.json has changed since it was written; delete"):
        journal.scores(model, 0)
