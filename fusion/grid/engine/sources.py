"""Features of a grid, loaded once for all combinations that can share them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fusion.arrays import Indices
from fusion.data.features import RESIDENT_SHARE, CachedFeatures
from fusion.data.views import alternatives
from fusion.experiment.plan import RunPlan


@dataclass
class _Group:
    """Plans with the same labels and, for every common role, the same stream."""

    streams: dict[str, str]
    plans: list[RunPlan]

    def accepts(self, plan: RunPlan) -> bool:
        """Checks whether a plan can share the features of the group."""
        wave = [{role for role, start in held.starts.items() if start.tune.wave} for held in (self.plans[0], plan)]
        held_names, others = alternatives(self.streams), alternatives(plan.every_stream)
        agree = wave[0] == wave[1] and all(held_names.get(role, names) == names for role, names in others.items())
        return agree and np.array_equal(self.plans[0].split.classes, plan.split.classes)

    @property
    def chosen(self) -> Indices:
        """Indices of all utterances that take part, ``(n,)``."""
        subsets = [subset for plan in self.plans for fold in plan.split.folds for subset in fold.subsets.values()]
        return np.unique(np.concatenate(subsets))


class Sources:
    """The features of several plans; plans that read different streams for a role have separate features.

    Args:
        plans: plans that read features.
        device: device of the batches.
        resident_share: share of the device's memory that all features together may take, in [0, 1].
    """

    def __init__(self, plans: Sequence[RunPlan], device: torch.device, resident_share: float = RESIDENT_SHARE) -> None:
        self.device, self.resident_share = device, resident_share
        self._groups: list[_Group] = []
        self._loaded: dict[int, CachedFeatures] = {}
        for plan in plans:
            self.add(plan)

    def __len__(self) -> int:
        return len(self._groups)

    @property
    def size_bytes(self) -> int:
        """Size of all features in bytes, including those that do not fit on the device."""
        return sum(self.at(index).size_bytes for index in range(len(self)))

    def add(self, plan: RunPlan) -> None:
        """Adds a plan; loaded features stay loaded unless the plan needs more of them."""
        index = next((index for index, group in enumerate(self._groups) if group.accepts(plan)), None)
        if index is None:
            self._groups.append(_Group(plan.every_stream, [plan]))
            return
        group = self._groups[index]
        group.streams.update(plan.every_stream)
        group.plans.append(plan)
        loaded = self._loaded.get(index)
        if loaded is not None and not (
            loaded.names.keys() == group.streams.keys() and np.array_equal(loaded.chosen, group.chosen)
        ):
            del self._loaded[index]

    def index(self, plan: RunPlan) -> int:
        """Returns the index of the features of a plan."""
        return next(index for index, group in enumerate(self._groups) if any(plan is known for known in group.plans))

    def of(self, plan: RunPlan) -> CachedFeatures:
        """Returns the features of a plan; loads them on first use."""
        return self.at(self.index(plan))

    def at(self, index: int) -> CachedFeatures:
        """Returns features by index; loads them on first use."""
        if index not in self._loaded:
            group, plan = self._groups[index], self._groups[index].plans[0]
            share = self.resident_share / len(self)
            self._loaded[index] = plan.features(
                group.streams, device=self.device, chosen=group.chosen, resident_share=share
            )
        return self._loaded[index]
