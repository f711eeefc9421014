"""Head probe: the numbers of scikit-learn, C chosen on dev, runs, and settings that have no effect."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cache.errors import MmerError
from fusion.data.features import CachedFeatures
from fusion.experiment.plan import RunPlan, build_model
from fusion.heads.catalog import config_for
from fusion.heads.probe import Probe
from fusion.run.cross_validation import load_source
from fusion.run.folder import RunFolder
from fusion.run.load import load_model
from fusion.training.config import TrainConfig
from fusion.training.evaluate import predict_logits
from fusion.training.loop import train_epochs, train_fold
from tests.support.runs import finish, plan

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(trainable: Path) -> RunPlan:
    return plan(trainable, "probe")


@pytest.fixture(scope="module")
def source(made: RunPlan) -> CachedFeatures:
    return load_source(made, CPU, 0.5)


def vectors_by_hand(source: CachedFeatures, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Mean and deviation of the rows of each modality, by numpy."""
    found = []
    for index in indices.tolist():
        parts = [source.rows(role, index).astype(np.float64) for role in ("audio", "text")]
        found.append(np.concatenate([pooled for part in parts for pooled in (part.mean(axis=0), part.std(axis=0))]))
    return np.stack(found)


def probe_of(made: RunPlan) -> Probe:
    head = build_model(made, seed=0)
    assert isinstance(head, Probe)
    return head


@pytest.mark.parametrize("balanced", [False, True])
def test_probabilities_are_those_of_scikit_learn(made: RunPlan, source: CachedFeatures, balanced: bool) -> None:
    fold, head = made.split.folds[0], probe_of(made)
    config = TrainConfig(class_weights=balanced)
    trained = train_fold(head, source, fold.train, fold.dev, config)
    chosen = Probe.candidates[trained.best_epoch - 1]
    reference: Any = make_pipeline(
        StandardScaler(), LogisticRegression(C=chosen, max_iter=1000, class_weight="balanced" if balanced else None)
    )
    reference.fit(vectors_by_hand(source, fold.train), source.labels[fold.train])
    expected = reference.predict_proba(vectors_by_hand(source, fold.test))
    found = predict_logits(head, source, fold.test).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_c_is_the_first_of_the_best_on_dev(made: RunPlan, source: CachedFeatures) -> None:
    fold = made.split.folds[0]
    trained = train_fold(probe_of(made), source, fold.train, fold.dev, TrainConfig(monitor="wf1"))
    assert [curve.losses["C"] for curve in trained.curves] == list(Probe.candidates)
    scores = [curve.dev["wf1"] for curve in trained.curves]
    assert trained.best_epoch == scores.index(max(scores)) + 1
    losses = [curve.losses["total"] for curve in trained.curves]
    assert losses == sorted(losses, reverse=True)  # a weaker penalty fits the training subset better


def test_two_classes_and_a_class_without_training_data(made: RunPlan, source: CachedFeatures) -> None:
    fold, head = made.split.folds[0], probe_of(made)
    two = fold.train[source.labels[fold.train] < 2]
    train_epochs(head, source, two, TrainConfig(), epochs=4)
    reference: Any = make_pipeline(StandardScaler(), LogisticRegression(C=Probe.candidates[3], max_iter=1000))
    reference.fit(vectors_by_hand(source, two), source.labels[two])
    found = predict_logits(head, source, fold.test).softmax(dim=1).numpy()
    np.testing.assert_allclose(found[:, :2], reference.predict_proba(vectors_by_hand(source, fold.test)), atol=2e-4)
    assert (found[:, 2:] == 0).all()


def test_a_run_is_stored_and_loaded_like_any_other(trainable: Path, tmp_path: Path) -> None:
    run = plan(trainable, "probe", {"modalities": "audio"})
    results = finish(run, tmp_path)
    assert 0 <= results["pooled"]["ua"] <= 1
    head = load_model(RunFolder(tmp_path), run.split.folds[0].name, 0)
    assert isinstance(head, Probe)
    assert head.scale.abs().sum() > 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pooling": "attention"}, "pooling of a probe must be one of mean, max, meanstd, got 'attention'"),
        (
            {"standardize": "true"},
            "standardize must be false for a probe, which standardizes pooled vectors; leave it out",
        ),
        ({"dropout": "0.1"}, "dropout has no effect on a probe, which is one linear layer; leave it out"),
        ({"adapter": "true"}, "adapter has no effect on a probe"),
    ],
)
def test_a_setting_without_effect_is_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(MmerError, match=message):
        config_for("probe", values)
