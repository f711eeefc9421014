"""What a grid will take, before it is started."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fusion.grid.footprint import footprint_of
from fusion.grid.journal import Journal
from fusion.grid.layout import Grouping
from fusion.grid.models import Model
from fusion.grid.sources import Sources
from fusion.grid.trial import steps_of, try_layouts


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a grid will take.

    Attributes:
        models: of all combinations, folds and seeds.
        known: of them, those that the journal holds.
        features_bytes: of all features that are read.
        model_bytes: that the training of the largest model takes.
        disk_bytes: that the weights of the models left to train take.
        seconds: of training, if no model stops early; 0 where nothing is left.
        layout: how they will be trained, in words.
    """

    models: int
    known: int
    features_bytes: int
    model_bytes: int
    disk_bytes: int
    seconds: float
    layout: str


def estimate(models: Sequence[Model], sources: Sources, journal: Journal) -> Estimate:
    """Measures what a grid will take on the device at hand, by a short trial; nothing is kept.

    Args:
        models: of the grid.
        sources: of their features.
        journal: that may hold some of them.
    """
    every = {model.key: model for model in models}
    left = [model for model in every.values() if not journal.holds(model)]
    by_plan = {id(model.combination.plan): model for model in left}
    footprints = {plan: footprint_of(model, sources.of(model.combination.plan)) for plan, model in by_plan.items()}
    rate, layout = math.inf, ""
    if left:
        trial = try_layouts(Grouping(left, sources, stacking=True), sources)
        rate, layout = trial.rates.get(trial.layout, math.inf), str(trial)
    return Estimate(
        models=len(every),
        known=len(every) - len(left),
        features_bytes=sources.size_bytes,
        model_bytes=max((one.size_bytes for one in footprints.values()), default=0),
        disk_bytes=sum(footprints[id(model.combination.plan)].parameters for model in left),
        seconds=sum(model.training.epochs * steps_of(model) for model in left) / rate,
        layout=layout,
    )
