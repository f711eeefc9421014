"""Opens test parts of models that a grid chose, and gathers what the journal holds of all of them."""

from collections.abc import Iterable, Mapping, Sequence

from cache.joined import AnyCache
from fusion.grid.journal import Journal
from fusion.grid.models import Combination, Model, Outcome, Result, told
from fusion.grid.planning import models_of
from fusion.grid.sources import Sources
from fusion.results import pooled
from fusion.statistics import Interval, bootstrap_interval


class Findings:
    """What is known of the models of a grid.

    Args:
        combinations: of the grid.
        journal: that holds their models.
        failed: those that failed and are not in the journal, by key.
    """

    def __init__(
        self, combinations: Sequence[Combination], journal: Journal, failed: Mapping[str, Outcome] | None = None
    ) -> None:
        self.combinations, self.journal = combinations, journal
        self._failed = failed or {}

    @property
    def results(self) -> list[Result]:
        """Of every model that was trained or has failed."""
        known = [
            self._result(place, model)
            for place, combination in enumerate(self.combinations)
            for model in models_of(combination)
        ]
        return [one for one in known if one is not None]

    @property
    def notes(self) -> list[str]:
        """What heads noted of all models of a combination, with the combinations that it holds for."""
        noted: dict[str, list[str]] = {}
        for combination in self.combinations:
            every = [self.journal.notes(model) for model in models_of(combination) if self.journal.holds(model)]
            for note in (one for one in (every or [[]])[0] if all(one in notes for notes in every)):
                noted.setdefault(note, []).append(told(combination.fields))
        return [
            f"{note} (of {names[0]}{f' and {len(names) - 1} more' if names[1:] else ''})"
            if len(names) < len(self.combinations)
            else note
            for note, names in noted.items()
        ]

    def open(self, chosen: Iterable[tuple[int, str]], sources: Sources) -> None:
        """Opens the test part of folds to combinations, for all their seeds.

        Args:
            chosen: place of each combination, and the name of the fold.
            sources: of the features.
        """
        for place, fold in chosen:
            source = sources.of(self.combinations[place].plan)
            for model in self._models(place, fold):
                if self.journal.trained(model):
                    self.journal.open_test(model, source)

    def interval(self, winners: Mapping[str, int], cache: AnyCache) -> dict[str, Interval | None]:
        """Gives the interval of the nested score, over the test predictions of each fold's winner; 95%, clustered."""
        models = [model for fold, place in winners.items() for model in self._models(place, fold)]
        names = list(self.combinations[0].plan.inputs.classes)
        return bootstrap_interval(pooled([self.journal.folder(model) for model in models], cache, names))

    def _models(self, place: int, fold: str) -> list[Model]:
        return models_of(self.combinations[place], folds=[fold])

    def _result(self, place: int, model: Model) -> Result | None:
        if self.journal.holds(model):
            return self.journal.result(model, place)
        if model.key not in self._failed:
            return None
        failure = self._failed[model.key].failure
        return Result(
            combination=place, fold=model.fold.name, seed=model.seed, dev={}, epoch=0, seconds=0.0, failure=failure
        )
