"""Why a training stopped: features that are no numbers, or a rate that is too high."""

from collections.abc import Collection

import numpy as np

from fusion.batches import scoring_batches
from fusion.features import FeatureSource
from fusion.loss_record import LossNotFinite
from fusion.packing import Indices
from fusion.scoring import SCORING_BATCH
from fusion.train_config import TrainConfig


def explained(
    error: LossNotFinite, config: TrainConfig, source: FeatureSource, used: Indices, roles: Collection[str]
) -> str:
    """Says why a loss is not finite, and the way out.

    Args:
        error: that stopped a training.
        config: of the training.
        source: of the features.
        used: the utterances that were trained and scored on.
        roles: those that are read.
    """
    if found := not_finite(source, used, roles):
        return f"{error}; {found}; see mmer-cache verify {source.cache.path}"
    half = "" if config.precision == "float32" else " or train in float32"
    return f"{error}; lower lr ({config.lr}){half}"


def not_finite(source: FeatureSource, indices: Indices, roles: Collection[str]) -> str:
    """Names the first utterance with a feature that is not finite, and its stream; empty if there is none."""
    groups = [indices[group] for group in scoring_batches(source.costs(indices, roles), batch_size=SCORING_BATCH)]
    for group, batch in zip(groups, source.batches(groups, roles), strict=True):
        for role, rows in batch.features.items():
            bad = np.flatnonzero(~rows.flatten(1).isfinite().all(dim=1).cpu().numpy())
            if len(bad):
                name = source.streams[role].spec.name
                return f"features of utterance {source.cache.ids[int(group[bad[0]])]} in {name} are not finite"
    return ""
