"""Search by a tree-structured Parzen estimator (TPE): the scores of earlier combinations choose the next ones.

Source: Bergstra et al., 2011, https://papers.nips.cc/paper/4443, as Optuna implements it (an optional dependency). A
combination whose score is not yet known counts as bad (constant liar), so that combinations of one batch differ.
"""

import math
from collections.abc import Hashable, Iterator
from itertools import islice
from random import Random
from typing import Any

from cache.errors import MmerError
from fusion.grid.axes import Axis
from fusion.grid.combinations import FieldValues
from fusion.grid.space import Space, cross, fields_key

TRIES = 20  # proposals until one is new; then a new combination is drawn from the remaining ones
MAX_REMAINING = 10_000  # remaining combinations that are drawn from
PRODUCT = "product"  # an additional axis: the index of the product, where there are several


class TreeSearch:
    """A search that proposes combinations and learns from their scores.

    The same seed and scores give the same proposals; the order of `tell` between two `ask` does not matter.

    Args:
        space: the space to search; lists are categories, ranges are ordered.
        seed: random seed of all draws.
        maximize: larger scores are better.

    Raises:
        MmerError: if Optuna is missing, or the space has ablations.

    Example:
        >>> from fusion.grid.space import read_space
        >>> search = TreeSearch(read_space("rescmfa", grid=["layers=2,4"]), seed=0, maximize=True)
        >>> proposed = search.ask(3)
        >>> sorted(fields["layers"] for fields in proposed)
        [2, 4]
        >>> search.tell(proposed[0], 0.61)
    """

    def __init__(self, space: Space, *, seed: int, maximize: bool) -> None:
        if space.changes:
            raise MmerError(
                "--ablate cannot be combined with --search tpe, which chooses each combination by scores; "
                "ablate with --search grid or random:N"
            )
        self._space, self._size = space, space.size
        self._optuna = _import_optuna()
        self._study = self._new_study(seed, "maximize" if maximize else "minimize")
        self._random = Random(seed)
        self._proposed: set[Hashable] = set()
        self._pending: dict[Hashable, Any] = {}  # trials of Optuna without a score

    def ask(self, count: int) -> list[FieldValues]:
        """Proposes the next combinations to train, each once; fewer if fewer remain."""
        return list(islice(iter(self._next, None), count))

    def tell(self, fields: FieldValues, score: float | None) -> None:
        """Records the score of a proposed combination; None for a failure, which is worse than any score.

        Raises:
            ValueError: if the combination was not proposed, or its score is recorded already.
        """
        trial = self._pending.pop(fields_key(fields), None)
        if trial is None:
            raise ValueError(f"each proposed combination gets one score; got a score of {dict(fields)}")
        if score is None or not math.isfinite(score):
            self._study.tell(trial, state=self._optuna.trial.TrialState.PRUNED)  # Optuna learns nothing from FAIL
        else:
            self._study.tell(trial, score)

    def _new_study(self, seed: int, direction: str) -> Any:
        """Creates a study in memory, without Optuna's report on stderr."""
        logging = self._optuna.logging
        verbosity = logging.get_verbosity()
        logging.set_verbosity(logging.WARNING)
        sampler = self._optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        study = self._optuna.create_study(sampler=sampler, direction=direction, study_name="grid")
        logging.set_verbosity(verbosity)
        return study

    def _next(self) -> FieldValues | None:
        if len(self._proposed) == self._size:
            return None
        for _ in range(TRIES):
            if (fields := self._propose()) is not None:
                return fields
        remaining = list(islice(self._remaining(), MAX_REMAINING))
        if not remaining:
            return None
        self._study.enqueue_trial(self._random.choice(remaining))
        return self._propose()

    def _propose(self) -> FieldValues | None:
        """Requests a combination from Optuna; returns None and discards it if it was proposed before."""
        trial = self._study.ask()
        product = self._product(trial)
        fields = {axis.name: _suggest(trial, product, axis) for axis in self._space.products[product]}
        if (key := fields_key(fields)) in self._proposed:
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            return None
        self._proposed.add(key)
        self._pending[key] = trial
        return fields

    def _product(self, trial: Any) -> int:
        indices = range(len(self._space.products))
        return int(trial.suggest_categorical(PRODUCT, indices)) if len(indices) > 1 else 0

    def _remaining(self) -> Iterator[dict[str, object]]:
        """Yields the combinations that were not proposed yet, by the names that Optuna knows."""
        if self._size is None:
            return
        for product, axes in enumerate(self._space.products):
            for fields in cross([axes]):
                if fields_key(fields) not in self._proposed:
                    yield {PRODUCT: product, **{_parameter(product, name): value for name, value in fields.items()}}


def _suggest(trial: Any, product: int, axis: Axis) -> object:
    name, ends = _parameter(product, axis.name), axis.value_range
    if ends is None:
        return trial.suggest_categorical(name, axis.values)
    if ends.whole:
        return trial.suggest_int(name, ends.low, ends.high, log=ends.log)
    return ends.rounded(trial.suggest_float(name, ends.low, ends.high, log=ends.log))


def _parameter(product: int, axis: str) -> str:
    """Returns a name that is unique in Optuna: two products may have an axis of one name with different values."""
    return f"{product} {axis}"


def _import_optuna() -> Any:
    try:
        import optuna  # only here: an optional dependency
    except ImportError as error:
        raise MmerError("--search tpe needs the package optuna; pip install optuna") from error
    return optuna
