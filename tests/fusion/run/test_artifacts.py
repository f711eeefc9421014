import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cache.errors import MmerError
from fusion.data.features import CachedFeatures
from fusion.experiment.plan import RunPlan
from fusion.heads.catalog import HEADS
from fusion.run.artifacts import OVER_LIMITS, read_probabilities
from fusion.run.cross_validation import cross_validate
from fusion.run.folder import RUN, SCORES, WEIGHTS, ModelFolder, RunFolder
from fusion.run.load import load_model
from fusion.training.evaluate import predict_probabilities
from tests.support.runs import CPU, TWO_FOLDS, Told, finish, plan, reader_of, write_cache

SINGLE = ("audio", "text")
NO_FIELDS: Mapping[str, object] = {}
STANDARDIZED: Mapping[str, object] = {"standardize": "true"}
SCALED: Mapping[str, object] = {**STANDARDIZED, "modality_dropout": "0.3"}
FORMS: list[tuple[str, Mapping[str, object]]] = [
    *((name, NO_FIELDS) for name in HEADS),
    *((name, SCALED) for name in HEADS if name not in {*SINGLE, "jfm", "label-guided", "probe"}),
    *((name, STANDARDIZED) for name in SINGLE),
    ("jfm", {"fusion": "late", "modality_dropout": "0.3"}),
    ("jfm", {"layers": "last", "blocks": "1", "freeze_layers": "true"}),
    ("label-guided", {"modality_dropout": "0.3"}),
    ("label-guided", {"tonal_space": "lift"}),
    ("label-guided", {"modalities": "audio", "tonal_labels": "text", "train_projection": "true"}),
]


def test_weights_are_written_into_the_file_that_is_locked(
    trainable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new file in its place would have no lock, and another process might take it for a leftover."""
    whole, kept = ModelFolder.replacing, []

    @contextmanager
    def watched(self: ModelFolder, name: str) -> Iterator[Path]:
        with whole(self, name) as path:
            before = path.stat().st_ino if path.exists() else None
            yield path
            kept.append((name, path.stat().st_ino == before))

    monkeypatch.setattr(ModelFolder, "replacing", watched)
    finish(plan(trainable, "audio", {"epochs": "1"}, **TWO_FOLDS), tmp_path)
    assert [same for name, same in kept if name == WEIGHTS] == [True] * 2


def test_utterances_that_a_head_cannot_take_in_full_are_listed_for_every_part(trainable: Path, tmp_path: Path) -> None:
    cache, asked = reader_of(trainable), {"sgu": "dense", "audio_slots": "20", "epochs": "1"}
    results = finish(plan(trainable, "rescmfa", asked), tmp_path)
    long = np.flatnonzero(cache.stream("voice").lengths > 20)
    rows = RunFolder(tmp_path).read_rows("splits.csv")
    for one in results["folds"]:
        for part, key in OVER_LIMITS.items():
            theirs = [index for index in long if rows[index][f"fold {one['fold']}"] == part]
            assert one[key] == [cache.ids[index] for index in theirs]
            assert theirs


@pytest.mark.parametrize(("fusion", "fields"), FORMS, ids=[" ".join([name, *fields]) for name, fields in FORMS])
def test_a_loaded_model_predicts_what_the_run_stored(
    trainable: Path, tmp_path: Path, fusion: str, fields: Mapping[str, object]
) -> None:
    planned = plan(trainable, fusion, {"epochs": "1", **fields}, **TWO_FOLDS)
    second = replace(planned, split=replace(planned.split, folds=planned.split.folds[1:]))
    cross_validate(second, RunFolder(tmp_path), device=CPU, progress=Told())
    _check_predictions(RunFolder(tmp_path), planned, "2", 0)


def test_a_model_that_was_trained_on_views_is_loaded(tmp_path: Path) -> None:
    planned = plan(write_cache(tmp_path / "a.h5", views=True), "bimodal", {"epochs": "1", "dim": "8"}, **TWO_FOLDS)
    assert "audio.view" in planned.selection.streams
    finish(planned, tmp_path / "run")
    _check_predictions(RunFolder(tmp_path / "run"), planned, "1", 0)


def _check_predictions(run: RunFolder, planned: RunPlan, fold: str, seed: int) -> None:
    state = torch.random.get_rng_state()
    head = load_model(run, fold, seed)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not head.training
    test = next(one.test for one in planned.split.folds if one.name == fold)
    stored = read_probabilities(run.model(fold, seed), planned.inputs.classes)
    source = CachedFeatures(planned.cache, planned.selection.streams, planned.split.classes)
    expected = [stored[planned.cache.ids[index]] for index in test.tolist()]
    np.testing.assert_allclose(predict_probabilities(head, source, test), expected, atol=1e-6)


@pytest.fixture(scope="module")
def trained(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of label-guided, which starts from weights in the cache and learns before step 0."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    finish(plan(trainable, "label-guided", {"epochs": "1"}, **TWO_FOLDS), folder)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> RunFolder:
    """A copy of it."""
    return RunFolder(Path(shutil.copytree(trained, tmp_path / "run")))


def _change(*names: str, to: object) -> Callable[[RunFolder], None]:
    """Changes one value of run.json."""

    def change(run: RunFolder) -> None:
        record = run.read(RUN)
        inner = record
        for name in names[:-1]:
            inner = inner[name]
        inner[names[-1]] = to
        run.write(RUN, record)

    return change


def _remove(*names: str) -> Callable[[RunFolder], None]:
    """Removes one value of run.json."""

    def remove(run: RunFolder) -> None:
        record = run.read(RUN)
        inner = record
        for name in names[:-1]:
            inner = inner[name]
        del inner[names[-1]]
        run.write(RUN, record)

    return remove


def _damage(run: RunFolder) -> None:
    path = run.model("2", 0).path / WEIGHTS
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)


def _cut(run: RunFolder) -> None:
    path = run.model("2", 0).path / WEIGHTS
    path.write_bytes(path.read_bytes()[:100])


def _unscore(run: RunFolder) -> None:
    run.model("2", 0).delete(SCORES)


def _pickle(run: RunFolder) -> None:
    torch.save({"classifier.weight": torch.zeros(1)}, run.model("2", 0).path / WEIGHTS)


HUGE = 10**12


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (_damage, r"weights.safetensors is not the file that was written; delete .*2-seed0 and repeat the command of"),
        (_cut, r"cannot read .*weights.safetensors \(.*\); delete .*2-seed0 and repeat the command of the run$"),
        (_pickle, r"cannot read .*weights.safetensors \(.*\); delete .*2-seed0 and repeat the command of the run$"),
        (_unscore, r"scores.json cannot be read \(No such file or directory\); repeat the command of the run"),
        (
            _change("decides", "head", "dim", to=8),
            r"does not fit the head, 6 weights differ \(attention.bilinear: expected",
        ),
        (_change("decides", "head", "dim", to=HUGE), r"does not fit the head|cannot be built as .*run.json records it"),
        (
            _change("decides", "head", "dim", to=[8]),
            r"cannot be built as .*run.json records it \(head label-guided: dim",
        ),
        (_change("decides", "head", "width", to=8), r"run.json records it \(head label-guided has no field 'width'"),
        (_change("decides", "labels", to={"a": ["a"], "b": ["b"]}), r"does not fit the head"),
        (_change("decides", "fusion", to="concat"), r"cannot be built as .*run.json records it \(head concat has no "),
        (_change("decides", "fusion", to="other"), r"cannot be built as .*run.json records it \(unknown head 'other'"),
        (_change("decides", "fusion", to="os:abort"), r"trained with head os:abort, which is code outside mmer"),
        (_remove("decides", "head"), r"run.json is a late fusion of other runs and has no weights; load the models of"),
        (
            _remove("inputs"),
            r"run.json does not record what its head was built from; train the run again with --",
        ),
        (
            _remove("inputs", "weights"),
            r"was built from weights that .*run.json does not record.*; train the run again",
        ),
        (_remove("inputs", "shapes", "codes"), r"cannot be built as .*run.json records it \(no shape of codes\)"),
        (_change("inputs", "shapes", "audio", to=[-1]), r"run.json is damaged \(inputs: sizes must be at least 1"),
        (_change("inputs", "shapes", "audio", to=[HUGE]), r"does not fit the head|cannot be built as .*run.json"),
        (_change("inputs", "weights", "audio", "project_hid.bias", to="float99 7"), r"run.json is damaged \(inputs: "),
        (_change("inputs", "weights", "audio", "project_hid.bias", to=f"int8 {HUGE} {HUGE}"), r"run.json is damaged"),
        (_change("inputs", "weights", to=[]), r"run.json is damaged \(inputs: "),
        (_change("decides", "folds", to=3), r"run.json is damaged \(folds of another type\); choose another"),
        (_change("inputs", to=[]), r"run.json is damaged \(inputs: "),
    ],
)
def test_what_cannot_be_loaded_is_one_line(run: RunFolder, change: Callable[[RunFolder], None], match: str) -> None:
    change(run)
    with pytest.raises(MmerError, match=match) as caught:
        load_model(run, "2", 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("fold", "seed"), [("9", 0), ("2", 7), ("../2", 0)])
def test_a_model_that_the_run_does_not_have_is_one_line(run: RunFolder, fold: str, seed: int) -> None:
    told = rf"run has no model of fold {fold} and seed {seed}; folds: 1, 2; seeds: 0$"
    with pytest.raises(MmerError, match=told):
        load_model(run, fold, seed)


def test_a_run_of_an_older_version_is_loaded_if_its_head_starts_from_no_weights(
    trainable: Path, tmp_path: Path
) -> None:
    planned, run = plan(trainable, "rescmfa", {"epochs": "1"}, **TWO_FOLDS), RunFolder(tmp_path)
    finish(planned, tmp_path)
    _remove("inputs", "weights")(run)
    scores = run.model("2", 0).read(SCORES)
    run.model("2", 0).write(SCORES, {name: value for name, value in scores.items() if name != "digests"})
    _check_predictions(run, planned, "2", 0)


def test_a_class_that_the_caller_names_passes_for_that_class_alone(run: RunFolder) -> None:
    _change("decides", "fusion", to="mine.heads:Mine")(run)
    with pytest.raises(MmerError, match=r"trained with head mine.heads:Mine, which is code outside mmer"):
        load_model(run, "2", 0, "mine.heads:Other")
    with pytest.raises(MmerError, match="mine") as caught:  # it is looked up, and there is none
        load_model(run, "2", 0, "mine.heads:Mine")
    assert "not imported" not in str(caught.value)


def test_start_weights_are_recorded_by_their_form(run: RunFolder) -> None:
    weights = run.read(RUN)["inputs"]["weights"]
    assert weights["audio"]["project_hid.bias"] == "float32 12"
    assert weights["text"]["heads"] == 4
    assert json.loads(json.dumps(weights)) == weights
