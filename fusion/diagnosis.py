"""Why a training stopped: features that are no numbers, or a rate that is too high."""

from collections.abc import Collection
from shlex import quote

import numpy as np

from fusion.batches import scoring_batches
from fusion.features import FeatureSource
from fusion.loss_record import LossNotFinite
from fusion.packing import Indices
from fusion.scoring import SCORING_BATCH
from fusion.train_config import TrainConfig


def explained(error: LossNotFinite, config: TrainConfig, bad: str) -> str:
    """Says why a loss is not finite, and the way out.

    Args:
        error: that stopped a training.
        config: of the training.
        bad: what `bad_feature` says of what was trained and scored on.
    """
    if bad:
        return f"{error}; {bad}"
    half = "" if config.precision == "float32" else " or train in float32"
    return f"{error}; lower lr ({config.lr}){half}"


def bad_feature(source: FeatureSource, indices: Indices, roles: Collection[str]) -> str:
    """Names the first utterance with a feature that is not finite, and its stream; empty if there is none."""
    groups = [indices[group] for group in scoring_batches(source.costs(indices, roles), batch_size=SCORING_BATCH)]
    for group, batch in zip(groups, source.batches(groups, roles), strict=True):
        for role, rows in batch.features.items():
            bad = np.flatnonzero(~rows.flatten(1).isfinite().all(dim=1).cpu().numpy())
            if len(bad):
                name, utterance = source.streams[role].spec.name, source.cache.ids[int(group[bad[0]])]
                see = f"see mmer-cache verify {quote(str(source.cache.path))}"
                return f"features of utterance {utterance} in {name} are not finite; {see}"
    return ""
