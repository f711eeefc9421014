from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from fusion.evaluation.catalog import MONITORS, task_of, with_loss
from fusion.evaluation.classes import CLASSIFICATION, class_weights, cross_entropy, focal_loss
from fusion.evaluation.metrics import METRICS, compute_scores
from fusion.evaluation.task import Score

NAMES = ("angry", "sad", "a,b")


def logits(rows: int = 40, classes: int = 3) -> torch.Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(0))


def labels(rows: int = 40, classes: int = 3) -> torch.Tensor:
    return torch.arange(rows) % classes


def test_the_scores_of_classification_are_those_that_are_computed_in_the_order_of_tables() -> None:
    assert CLASSIFICATION.names == METRICS == ("wa", "ua", "wf1", "mf1")
    assert [score.title for score in CLASSIFICATION.scores] == ["WA", "UA", "W-F1", "M-F1"]
    truth, guess = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2])
    assert CLASSIFICATION.evaluate(truth, guess, 3) == compute_scores(truth, guess, 3).as_dict()
    assert CLASSIFICATION.evaluate(truth, guess, 4, complete=False)["mf1"] == pytest.approx(
        f1_score(truth, guess, average="macro")
    )


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 4.0])])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_cross_entropy_of_torch_to_the_bit(weights: torch.Tensor | None, smoothing: float) -> None:
    expected = functional.cross_entropy(logits(), labels(), weight=weights, label_smoothing=smoothing)
    assert CLASSIFICATION.loss(logits(), labels(), weights=weights, smoothing=smoothing) == expected
    assert cross_entropy(logits().bfloat16(), labels()).dtype == torch.float32


def test_class_weights_are_those_of_scikit_learn() -> None:
    targets = np.array([0, 1, 1, 2, 2, 2, 2])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=targets)
    np.testing.assert_allclose(class_weights(targets, 3).numpy(), expected, rtol=1e-6)
    assert CLASSIFICATION.balance(np.array([0, 0]), 2).isfinite().all()


def test_every_score_and_the_loss_may_choose_the_epoch() -> None:
    assert set(CLASSIFICATION.monitors) == {*METRICS, "loss"} < set(MONITORS)
    assert [name for name in CLASSIFICATION.monitors if not CLASSIFICATION.score(name).higher_is_better] == ["loss"]
    assert CLASSIFICATION.is_better(0.2, 0.1, "mf1")
    assert CLASSIFICATION.is_better(0.1, 0.2, "loss")
    assert not CLASSIFICATION.is_better(0.1, 0.1, "mf1")


def test_a_monitor_must_be_a_score_of_the_task() -> None:
    with pytest.raises(ValueError, match="monitors must be scores of the task or loss, got ccc"):
        replace(CLASSIFICATION, monitors=("wa", "ccc"))
    with pytest.raises(ValueError, match="unknown score 'ccc'; known: wa, ua, wf1, mf1, loss"):
        CLASSIFICATION.score("ccc")


def test_the_guess_is_the_first_most_probable_class_as_torch_chooses_it() -> None:
    tied = torch.tensor([[0.2, 0.4, 0.4], [1.0, 0.0, 0.0]])
    for outputs in (tied, logits()):
        np.testing.assert_array_equal(CLASSIFICATION.decide(outputs.numpy()), outputs.argmax(dim=1).numpy())
    torch.testing.assert_close(CLASSIFICATION.predict(logits()), logits().softmax(dim=1), rtol=0, atol=0)


def test_rows_of_predictions_are_read_back_as_they_were_written() -> None:
    predictions = CLASSIFICATION.predict(logits(6)).numpy()
    columns = CLASSIFICATION.columns(NAMES)
    assert columns == ["label", "guess", "p_angry", "p_sad", "p_a,b"]
    written = [
        CLASSIFICATION.row(NAMES[label], row, NAMES) for label, row in zip([0, 1, 2, 0, 1, 2], predictions, strict=True)
    ]
    rows = [dict(zip(columns, map(str, row), strict=True)) for row in written]
    truth, guess = CLASSIFICATION.parse(rows, NAMES)
    assert truth.tolist() == [0, 1, 2, 0, 1, 2]
    assert guess.tolist() == CLASSIFICATION.decide(predictions).tolist()
    with pytest.raises(KeyError):
        CLASSIFICATION.parse(rows, NAMES[:1])


def test_people_read_fractions_in_percent_and_a_missing_score_as_a_dash() -> None:
    score = Score(name="mae", title="MAE", higher_is_better=False, in_percent=False)
    assert [score.text(0.5), score.text(None)] == ["0.50", "-"]
    assert CLASSIFICATION.score("mf1").text(0.5) == "50.00"


def test_a_run_that_names_no_task_is_a_classification() -> None:
    assert task_of({"fusion": "audio"}) is task_of({"task": "classification"}) is CLASSIFICATION
    with pytest.raises(ValueError, match="unknown task 'ranking'; known: classification"):
        task_of({"task": "ranking"})


def test_the_focal_loss_without_an_exponent_is_the_cross_entropy_and_else_the_formula() -> None:
    weights = torch.tensor([1.0, 2.0, 4.0])
    for by_class in (None, weights):
        plain = cross_entropy(logits(), labels(), weights=by_class)
        torch.testing.assert_close(focal_loss(logits(), labels(), gamma=0.0, weights=by_class), plain)
    p = logits().softmax(dim=1)[torch.arange(40), labels()]
    expected = ((1 - p) ** 2 * -p.log()).mean()
    torch.testing.assert_close(with_loss(CLASSIFICATION, "auto", 2.0).loss(logits(), labels()), expected)


def test_the_focal_loss_of_a_certain_utterance_has_a_finite_gradient() -> None:
    certain = torch.tensor([[200.0, 0.0]], requires_grad=True)
    focal_loss(certain, torch.tensor([0]), gamma=0.5).backward()  # type: ignore[no-untyped-call]
    assert certain.grad is not None
    assert certain.grad.isfinite().all()
