"""What a scored model left in its folder, read and checked: a file that was cut off or edited is never reprinted."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from cache.errors import MmerError
from fusion.metrics import METRICS
from fusion.metrics import score as score_guesses
from fusion.run import COST, CURVES, PREDICTIONS, SCORES, WEIGHTS, RunFolder

COUNTS = ("seed", "epoch", "train", "dev", "test", "test_of", "parameters")
ROUNDING = 1e-9  # of scores that went through JSON

Row = Mapping[str, str]


def read_scores(part: RunFolder) -> dict[str, Any]:
    """Reads the scores of a model.

    Raises:
        MmerError: if they are not there, or not all of them.
    """
    scores = part.read(SCORES)
    whole = isinstance(scores, dict) and isinstance(scores.get("fold"), str)
    if not whole or not all(isinstance(scores.get(name), int | float) for name in (*COUNTS, *METRICS)):
        raise _damaged(part, SCORES, "something is missing")
    return scores  # type: ignore[no-any-return]


def read_predictions(part: RunFolder, names: Sequence[str]) -> list[Row]:
    """Reads the test predictions of a model, and holds them against its scores.

    Args:
        part: of the run folder.
        names: of the classes.

    Raises:
        MmerError: if they cannot be read, or the scores do not follow from them.
    """
    scores, rows = read_scores(part), part.read_rows(PREDICTIONS)
    if len(rows) != scores["test"]:
        raise _damaged(part, PREDICTIONS, f"{len(rows)} of {scores['test']} utterances")
    index = {name: place for place, name in enumerate(names)}
    if any(row.get(column) not in index for row in rows for column in ("label", "guess")):
        raise _damaged(part, PREDICTIONS, "not the classes of the run")
    truth, guess = (np.array([index[row[column]] for row in rows]) for column in ("label", "guess"))
    found = score_guesses(truth, guess, len(names)).as_dict()
    if any(abs(found[metric] - scores[metric]) > ROUNDING for metric in METRICS):
        raise _damaged(part, PREDICTIONS, f"they do not give what {SCORES} says")
    return rows  # type: ignore[return-value]


def read_probabilities(part: RunFolder, names: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
    """Reads the class probabilities that a model gave its test utterances; by id, float64 ``(classes,)``.

    Raises:
        MmerError: if they cannot be read.
    """
    rows = read_predictions(part, names)
    try:
        return {row["id"]: np.array([float(row[f"p_{name}"]) for name in names]) for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(part, PREDICTIONS, f"no probability: {error}") from error


def read_cost(part: RunFolder) -> tuple[float, int]:
    """Reads the seconds of training and the peak of memory in bytes.

    Raises:
        MmerError: if they cannot be read.
    """
    cost = part.read(COST)
    try:
        return float(cost["seconds"]), int(cost["peak_bytes"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(part, COST, f"no {error}") from error


def damage(part: RunFolder, names: Sequence[str]) -> str:
    """Says what is wrong in the folder of a model that is trained and scored; empty if nothing is.

    Args:
        part: of the run folder.
        names: of the classes.
    """
    try:
        read_probabilities(part, names)
        read_cost(part)
        part.read_rows(CURVES)
        with safe_open(part.path / WEIGHTS, framework="np"):
            return ""
    except (MmerError, OSError, SafetensorError) as error:
        return str(error) if isinstance(error, MmerError) else f"{part.path / WEIGHTS} is damaged ({error})"


def _damaged(part: RunFolder, name: str, why: str) -> MmerError:
    return MmerError(f"{part.path / name} is damaged ({why}); the command of its run trains it anew")
