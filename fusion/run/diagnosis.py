"""Notes on trainings that went wrong without an error: a first loss far above chance, predictions of a single class."""

import math
from collections.abc import Iterator

from fusion.experiment.defaults import STANDARDIZED
from fusion.experiment.plan import RunPlan
from fusion.heads.catalog import HEADS
from fusion.run.artifacts import read_predictions
from fusion.run.folder import CURVES, ModelFolder, RunFolder

MOST = 3.0  # times the loss of chance: weights at the start of a training predict about chance
LOSS = "cross_entropy"


def training_notes(plan: RunPlan, folder: RunFolder) -> list[str]:
    """Returns notes on the trainings of a run whose models are all scored, each with a setting that helps.

    Args:
        plan: plan of the run.
        folder: folder of the run.

    Raises:
        DamagedRun: if predictions cannot be read.
    """
    if not plan.task.is_classification:
        return []
    models = folder.models(plan.identity)
    return [*_first_loss(plan, models), *_single_class(plan, models)]


def _first_loss(plan: RunPlan, models: list[ModelFolder]) -> Iterator[str]:
    """Yields a note if the mean loss of a first epoch is far above the loss of equal probabilities."""
    chance = math.log(len(plan.inputs.classes))
    losses = [loss for model in models if (loss := _loss_of(model.read_rows(CURVES))) > MOST * chance]
    if losses:
        lr = plan.experiment.training.lr
        remedy, cause = _standardize(plan), "features have large values"
        if not remedy:
            remedy, cause = f"--lr {lr / 10:g}", f"the learning rate of {lr:g} is high"
        found = f"the loss of the first epoch is up to {max(losses):.1f} in {len(losses)} of {len(models)} models"
        yield f"{found}, where chance has {chance:.1f}: {cause}; pass {remedy}"


def _single_class(plan: RunPlan, models: list[ModelFolder]) -> Iterator[str]:
    """Yields a note if models predict the same class for every test utterance, whose classes differ."""
    names = list(plan.inputs.classes)
    single = []
    for model in models:
        rows = read_predictions(model, names, plan.task)
        guesses = {row["guess"] for row in rows}
        if len(guesses) == 1 and len({row["label"] for row in rows}) > 1:
            single.append((model.path.name, guesses.pop()))
    if single:
        training, guessed = plan.experiment.training, ", ".join(dict.fromkeys(guess for _, guess in single))
        balance = "" if training.class_weights else "--set class_weights=true"
        remedies = " or ".join(filter(None, [_standardize(plan), balance, f"another --lr (now {training.lr:g})"]))
        yield (
            f"{len(single)} of {len(models)} models predict a single class for every test utterance ({guessed}); pass "
            f"{remedies}"
        )


def _standardize(plan: RunPlan) -> str:
    """Returns the setting that standardizes features; empty if they are, or the head cannot."""
    experiment = plan.experiment
    possible = experiment.fusion in STANDARDIZED or experiment.fusion not in HEADS
    return "--set standardize=true" if possible and not experiment.head.standardize else ""


def _loss_of(rows: list[dict[str, str]]) -> float:
    """Returns the main loss of the first epoch; 0 if it is not recorded."""
    try:
        return float(rows[0][LOSS])
    except (IndexError, KeyError, TypeError, ValueError):
        return 0.0
