"""A head that can be trained: built, and told of the training part of its fold."""

from fusion.features import FeatureSource, FoldRows
from fusion.heads.catalog import AnyHead
from fusion.packing import Indices
from fusion.plan import Plan, build
from fusion.scaling import learn_scales


def ready_head(plan: Plan, source: FeatureSource, train: Indices, *, seed: int) -> tuple[AnyHead, list[str]]:
    """Builds the head of a run and lets it learn what it must know before step 0.

    Args:
        plan: of the run.
        source: of the features.
        train: the training part of a fold.
        seed: of the model.

    Returns:
        The head, and notes to print.

    Raises:
        MmerError: if the configuration does not suit the streams.
    """
    head = build(plan, seed=seed)
    rows = FoldRows(source, train)
    learn_scales(head, rows)
    return head, head.prepare(rows)
