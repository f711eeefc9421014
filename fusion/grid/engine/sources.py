"""The features that a grid reads, held once for all combinations that can share them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fusion.arrays import Indices
from fusion.data.features import RESIDENT_SHARE, CachedFeatures
from fusion.experiment.plan import RunPlan


@dataclass
class _Group:
    """Plans that read the same stream wherever they read the same role, of the same labels."""

    streams: dict[str, str]
    plans: list[RunPlan]

    def takes(self, plan: RunPlan) -> bool:
        """Tells whether a plan fits in."""
        own = plan.selection.streams
        agree = all(self.streams.get(role, name) == name for role, name in own.items())
        return agree and np.array_equal(self.plans[0].split.classes, plan.split.classes)

    @property
    def chosen(self) -> Indices:
        """All utterances that take part."""
        parts = [part for plan in self.plans for fold in plan.split.folds for part in fold.subsets.values()]
        return np.unique(np.concatenate(parts))


class Sources:
    """Gives each plan its features; plans that differ in a stream get different ones.

    Args:
        plans: all that will be asked for.
        device: where batches go.
        resident_share: share of the device's memory that the rows of all of them may take to be held there.
    """

    def __init__(self, plans: Sequence[RunPlan], device: torch.device, resident_share: float = RESIDENT_SHARE) -> None:
        self.device, self.resident_share = device, resident_share
        self._groups: list[_Group] = []
        self._made: dict[int, CachedFeatures] = {}
        for plan in plans:
            self.add(plan)

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def size_bytes(self) -> int:
        """What the rows of all of them take on the device, those included that do not fit."""
        return sum(self.at(place).size_bytes for place in range(len(self)))

    def add(self, plan: RunPlan) -> None:
        """Takes in another plan; features that are held stay unless it needs more of them."""
        place = next((place for place, one in enumerate(self._groups) if one.takes(plan)), None)
        if place is None:
            self._groups.append(_Group(dict(plan.selection.streams), [plan]))
            return
        group = self._groups[place]
        group.streams.update(plan.selection.streams)
        group.plans.append(plan)
        held = self._made.get(place)
        if held is not None and not (
            held.streams.keys() == group.streams.keys() and np.array_equal(held.chosen, group.chosen)
        ):
            del self._made[place]

    def place(self, plan: RunPlan) -> int:
        """Tells which of the sources is that of a plan."""
        return next(place for place, group in enumerate(self._groups) if any(one is plan for one in group.plans))

    def of(self, plan: RunPlan) -> CachedFeatures:
        """Gives the features of a plan."""
        return self.at(self.place(plan))

    def at(self, place: int) -> CachedFeatures:
        """Gives one of the sources; read on first use."""
        if place not in self._made:
            group, plan = self._groups[place], self._groups[place].plans[0]
            share = self.resident_share / len(self)
            self._made[place] = CachedFeatures(
                plan.cache,
                group.streams,
                plan.split.classes,
                device=self.device,
                chosen=group.chosen,
                resident_share=share,
            )
        return self._made[place]
