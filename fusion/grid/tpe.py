"""Combinations that follow from the scores of those before them, by Optuna, which is an extra.

Source: tree-structured Parzen estimator, Bergstra et al., 2011, https://papers.nips.cc/paper/4443. A combination whose
score is not yet known counts among the bad ones (constant liar), so that those asked for together differ.
"""

import math
from collections.abc import Hashable, Iterator
from itertools import islice
from random import Random
from typing import Any

from cache.errors import MmerError
from fusion.grid.axes import Axis
from fusion.grid.combinations import FieldValues
from fusion.grid.space import Space, crossed, key_of

TRIES = 20  # for a combination that was not asked for before; then one is drawn from what is left
LEFT = 10_000  # of what is left, so many are drawn from
PRODUCT = "product"  # which of several, as one more axis


class TreeSearch:
    """Asks for combinations, and learns from their scores.

    The same seed asks for the same if it is told the same, in whatever order between two `ask`.

    Args:
        space: to search; lists are categories, ranges keep their order.
        seed: of all that is drawn.
        maximize: whether greater scores are better.

    Raises:
        MmerError: if Optuna is missing, or the space holds ablations.

    Example:
        >>> from fusion.grid.space import read_space
        >>> search = TreeSearch(read_space("rescmfa", grid=["layers=2,4"]), seed=0, maximize=True)
        >>> both = search.ask(3)
        >>> sorted(fields["layers"] for fields in both)
        [2, 4]
        >>> search.tell(both[0], 0.61)
    """

    def __init__(self, space: Space, *, seed: int, maximize: bool) -> None:
        if space.changes:
            raise MmerError(
                "--ablate does not go with --search tpe, which chooses each combination by its score; "
                "ablate with --search grid or random:N"
            )
        self._space, self._size = space, space.size
        self._optuna = _optuna()
        self._study = self._new_study(seed, "maximize" if maximize else "minimize")
        self._random = Random(seed)
        self._asked: set[Hashable] = set()
        self._open: dict[Hashable, Any] = {}

    def ask(self, count: int) -> list[FieldValues]:
        """Proposes combinations to train next, none that it has proposed before; less where no more are left."""
        return list(islice(iter(self._next, None), count))

    def tell(self, fields: FieldValues, score: float | None) -> None:
        """Takes the score of a combination that was asked for; None where it failed, which is worse than any score.

        Raises:
            ValueError: if it was not asked for, or told before.
        """
        trial = self._open.pop(key_of(fields), None)
        if trial is None:
            raise ValueError(f"a score is told once, of a combination that was asked for; got {dict(fields)}")
        if score is None or not math.isfinite(score):
            self._study.tell(trial, state=self._optuna.trial.TrialState.PRUNED)  # FAIL would teach nothing
        else:
            self._study.tell(trial, score)

    def _new_study(self, seed: int, direction: str) -> Any:
        """Opens a study in memory, which Optuna would report on stderr."""
        logging = self._optuna.logging
        before = logging.get_verbosity()
        logging.set_verbosity(logging.WARNING)
        sampler = self._optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        study = self._optuna.create_study(sampler=sampler, direction=direction, study_name="grid")
        logging.set_verbosity(before)
        return study

    def _next(self) -> FieldValues | None:
        if len(self._asked) == self._size:
            return None
        for _ in range(TRIES):
            if (fields := self._propose()) is not None:
                return fields
        left = list(islice(self._left(), LEFT))
        if not left:
            return None
        self._study.enqueue_trial(self._random.choice(left))
        return self._propose()

    def _propose(self) -> FieldValues | None:
        """Lets Optuna propose a combination; None, and forgotten, if it was there before."""
        trial = self._study.ask()
        place = self._place(trial)
        fields = {axis.name: _suggested(trial, place, axis) for axis in self._space.products[place]}
        if (key := key_of(fields)) in self._asked:
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
            return None
        self._asked.add(key)
        self._open[key] = trial
        return fields

    def _place(self, trial: Any) -> int:
        places = range(len(self._space.products))
        return int(trial.suggest_categorical(PRODUCT, places)) if len(places) > 1 else 0

    def _left(self) -> Iterator[dict[str, object]]:
        """Gives what was not yet asked for, as Optuna names it."""
        if self._size is None:
            return
        for place, axes in enumerate(self._space.products):
            for fields in crossed([axes]):
                if key_of(fields) not in self._asked:
                    yield {PRODUCT: place, **{_parameter(place, name): value for name, value in fields.items()}}


def _suggested(trial: Any, place: int, axis: Axis) -> object:
    name, span = _parameter(place, axis.name), axis.span
    if span is None:
        return trial.suggest_categorical(name, axis.values)
    if span.whole:
        return trial.suggest_int(name, span.low, span.high, log=span.log)
    return span.tidied(trial.suggest_float(name, span.low, span.high, log=span.log))


def _parameter(place: int, axis: str) -> str:
    """Names an axis for Optuna, which knows one of a name: products may give it other values."""
    return f"{place} {axis}"


def _optuna() -> Any:
    try:
        import optuna  # only here: an extra
    except ImportError as error:
        raise MmerError("--search tpe needs the package optuna; pip install optuna") from error
    return optuna
