"""The final scoring of a model: here its test part is opened, once, and nowhere else."""

from collections.abc import Sequence

from fusion.features import FeatureSource
from fusion.heads.catalog import AnyHead
from fusion.members import Fold
from fusion.plan import Plan
from fusion.records import scores_of, write_predictions
from fusion.run import CURVES, PREDICTIONS, SCORES, WEIGHTS, RunFolder
from fusion.scored import sealed
from fusion.scoring import score
from fusion.trainer import TrainedFold


def open_test(
    part: RunFolder,
    plan: Plan,
    fold: Fold,
    *,
    head: AnyHead,
    trained: TrainedFold,
    source: FeatureSource,
    seed: int,
    notes: Sequence[str],
) -> None:
    """Scores a model on the test part of its fold and writes predictions, and last the scores.

    Args:
        part: folder of the model.
        plan: of its run.
        fold: whose test part is opened.
        head: with the weights of the epoch that dev chose.
        trained: what training gave.
        source: of the features.
        seed: of the model.
        notes: of its head.

    Raises:
        MmerError: if a probability is not finite, or something cannot be written.
    """
    probabilities = score(head, source, fold.test)
    names, ids = plan.inputs.classes, [plan.cache.ids[index] for index in fold.test]
    truth = [names[index] for index in plan.split.classes[fold.test]]
    write_predictions(part, ids, truth, probabilities, names)
    scores = scores_of(plan, fold, head, trained, probabilities, lengths=source.lengths)
    scores = {"fold": fold.name, "seed": seed, **scores, "notes": list(notes)}
    part.write(SCORES, sealed(part, scores, (WEIGHTS, CURVES, PREDICTIONS)))
