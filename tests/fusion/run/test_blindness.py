"""X-8 (docs/decisions.md#x-8): only the final scoring of the chosen epoch reads the test subset of a fold."""

import shutil
from collections.abc import Collection, Generator, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fusion.arrays import Indices
from fusion.data.features import CachedFeatures, TrainingSubset
from fusion.data.views import ViewDraw
from fusion.experiment.plan import RunPlan
from fusion.head import Batch
from fusion.heads.catalog import HEADS
from fusion.run.cross_validation import cross_validate
from fusion.run.folder import RunFolder
from fusion.training.evaluate import predict_probabilities
from tests.support.runs import TWO_FOLDS, Told, finish, plan, scramble, write_cache


@pytest.fixture(scope="module")
def spoilt(trainable: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Caches with noise in place of the test subset and of the development subset of the fold that is trained."""
    (fold,) = _one_fold(plan(trainable, "text")).split.folds
    folder = tmp_path_factory.mktemp("spoilt")
    paths = {part: Path(shutil.copy(trainable, folder / f"{part}.h5")) for part in ("test", "dev")}
    for part, path in paths.items():
        scramble(path, getattr(fold, part).tolist())
    return paths


@pytest.mark.parametrize("fusion", HEADS)
def test_noise_in_place_of_the_test_part_leaves_the_trained_weights_bit_identical(
    trainable: Path, spoilt: Mapping[str, Path], tmp_path: Path, fusion: str
) -> None:
    for name, cache in (("clean", trainable), ("noise", spoilt["test"])):
        one = _one_fold(plan(cache, fusion, {"epochs": "1"}))
        cross_validate(one, RunFolder(tmp_path / name), device=torch.device("cpu"), progress=Told())
    clean, noise = (RunFolder(tmp_path / name / "2-seed0") for name in ("clean", "noise"))
    for file in ("weights.safetensors", "curves.csv"):
        assert (clean.path / file).read_bytes() == (noise.path / file).read_bytes()
    chosen = [
        {name: one.read("scores.json")[name] for name in ("epoch", "dev_scores", "notes")} for one in (clean, noise)
    ]
    assert chosen[0] == chosen[1]
    assert clean.read_rows("predictions.csv") != noise.read_rows("predictions.csv")


@pytest.mark.parametrize(
    ("fusion", "values"),
    [
        ("label-guided", {}),
        ("label-guided", {"text_labels": "label-word"}),
        ("jfm", {}),
        ("tab", {"standardize": True}),
    ],
)
def test_noise_in_place_of_the_development_part_leaves_the_first_epoch_bit_identical(
    trainable: Path, spoilt: Mapping[str, Path], tmp_path: Path, fusion: str, values: dict[str, object]
) -> None:
    """What a head learns before training (labels, statistics of features) is of the training subset alone."""
    planned = _one_fold(plan(trainable, fusion, {"epochs": 1, **values}))
    noisy = _one_fold(plan(spoilt["dev"], fusion, {"epochs": 1, **values}))
    assert noisy.split.folds[0].train.tolist() == planned.split.folds[0].train.tolist()
    for name, one in (("clean", planned), ("noise", noisy)):
        cross_validate(one, RunFolder(tmp_path / name), device=torch.device("cpu"), progress=Told())
    clean, noise = (RunFolder(tmp_path / name / "2-seed0") for name in ("clean", "noise"))
    assert (clean.path / "weights.safetensors").read_bytes() == (noise.path / "weights.safetensors").read_bytes()
    assert clean.read("scores.json")["notes"] == noise.read("scores.json")["notes"]
    assert clean.read("scores.json")["dev_scores"] != noise.read("scores.json")["dev_scores"]


@pytest.mark.parametrize("fusion", ["label-guided", "bimodal", "rescmfa"])
def test_only_the_final_scoring_reads_the_test_part(
    trainable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fusion: str
) -> None:
    planned = plan(trainable, fusion, {"epochs": "1"}, **TWO_FOLDS)
    spy = _Spy(monkeypatch)
    finish(planned, tmp_path)
    assert [name for name, _ in spy.opened] == ["train", "test"] * 2
    for place, fold in enumerate(planned.split.folds):
        (_, training), (_, scoring) = spy.opened[2 * place : 2 * place + 2]
        assert training <= {*fold.train.tolist(), *fold.dev.tolist()}
        assert training >= set(fold.dev.tolist())
        assert scoring == {*fold.test.tolist(), *fold.dev.tolist()}  # the temperature is fitted on dev


def test_t001_7_views_are_read_for_the_training_part_of_a_fold_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan(write_cache(tmp_path / "a.h5", views=True), "bimodal", {"epochs": "1", "dim": "8"}, **TWO_FOLDS)
    spy = _Spy(monkeypatch)
    finish(planned, tmp_path / "run")
    assert spy.augmented == [set(fold.train.tolist()) for fold in planned.split.folds]


def _one_fold(planned: RunPlan) -> RunPlan:
    """Keeps only the second fold of a plan; the other folds train on its test subset."""
    return replace(planned, split=replace(planned.split, folds=planned.split.folds[1:2]))


class _Spy:
    """Record of the utterances that are read during training and during scoring."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[tuple[str, set[int]]] = []
        self.augmented: list[set[int]] = []  # of each model, the utterances whose views are read
        batches, prepared, final = CachedFeatures.batches, TrainingSubset.__init__, predict_probabilities

        def spied(
            source: CachedFeatures,
            groups: Iterable[Indices],
            roles: Collection[str] | None = None,
            draw: ViewDraw | None = None,
        ) -> Generator[Batch]:
            groups = list(groups)
            read = [index for group in groups for index in group.tolist()]
            self.opened[-1][1].update(read)
            if "audio.view" in (source.streams if roles is None else roles):
                self.augmented[-1].update(read)
            return batches(source, groups, roles, draw)

        def begun(rows: TrainingSubset, source: CachedFeatures, indices: Indices) -> None:
            self.opened.append(("train", set(indices.tolist())))
            self.augmented.append(set())
            prepared(rows, source, indices)

        def scored(*given: Any, **more: Any) -> Any:
            self.opened.append(("test", set()))
            return final(*given, **more)

        monkeypatch.setattr(CachedFeatures, "batches", spied)
        monkeypatch.setattr(TrainingSubset, "__init__", begun)
        monkeypatch.setattr("fusion.run.cross_validation.predict_probabilities", scored)
