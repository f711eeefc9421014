"""What a scored model left in its folder, read and checked: files by their digests, scores by the predictions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from fusion.experiment import digest_of
from fusion.metrics import METRICS
from fusion.metrics import score as score_guesses
from fusion.run import COST, CURVES, PREDICTIONS, SCORES, WEIGHTS, Damaged, RunFolder

NUMBERS = ("seed", "epoch", "train", "dev", "test", "test_of", "parameters", *METRICS)
LISTS = ("over_limits", "notes")
ROUNDING = 1e-9  # of scores that went through JSON

Row = Mapping[str, str]


def sealed(part: RunFolder, scores: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Gives scores with the digests of files of their model and of themselves.

    Args:
        part: of the run folder.
        scores: as they are to be read again.
        names: of the files.
    """
    return {**scores, "digests": {**{name: part.digest(name) for name in names}, SCORES: digest_of(scores)}}


def read_scores(part: RunFolder) -> dict[str, Any]:
    """Reads the scores of a model.

    Raises:
        Damaged: if they are not there, or not all of them.
    """
    found = part.read(SCORES)
    wanted: dict[str, Any] = {
        "fold": str,
        **dict.fromkeys(NUMBERS, (int, float)),
        **dict.fromkeys(LISTS, list),
        "digests": dict,
    }
    scores = {"digests": {}, **found} if isinstance(found, dict) else {}
    if not all(isinstance(scores.get(name), kind) for name, kind in wanted.items()):
        raise _damaged(part, SCORES, "something is missing")
    if scores["digests"].get(SCORES) not in {None, _own_digest(scores)}:
        raise _damaged(part, SCORES, "it is not what was written")
    return scores


def read_predictions(part: RunFolder, names: Sequence[str]) -> list[Row]:
    """Reads the test predictions of a model, and holds them against its scores.

    Args:
        part: of the run folder.
        names: of the classes.

    Raises:
        Damaged: if they are not there, or the scores do not follow from them.
    """
    scores, rows = read_scores(part), part.read_rows(PREDICTIONS)
    if len(rows) != scores["test"]:
        raise _damaged(part, PREDICTIONS, f"{len(rows)} of {scores['test']} utterances")
    index = {name: place for place, name in enumerate(names)}
    if any(not row.get("id") or row.get("label") not in index or row.get("guess") not in index for row in rows):
        raise _damaged(part, PREDICTIONS, "not the columns and classes of the run")
    truth, guess = (np.array([index[row[column]] for row in rows]) for column in ("label", "guess"))
    found = score_guesses(truth, guess, len(names)).as_dict()
    if not all(abs(found[metric] - scores[metric]) <= ROUNDING for metric in METRICS):  # NaN is no score either
        raise _damaged(part, PREDICTIONS, f"they do not give what {SCORES} says")
    _check_digest(part, PREDICTIONS, scores)
    return rows  # type: ignore[return-value]


def read_probabilities(part: RunFolder, names: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
    """Reads the class probabilities that a model gave its test utterances; by id, float64 ``(classes,)``.

    Raises:
        Damaged: if they are not there, or not all of them.
    """
    rows = read_predictions(part, names)
    try:
        return {row["id"]: np.array([float(row[f"p_{name}"]) for name in names]) for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(part, PREDICTIONS, f"no probability: {error}") from error


def read_cost(part: RunFolder) -> tuple[float, int]:
    """Reads the seconds of training and the peak of memory in bytes.

    Raises:
        Damaged: if they are not there.
    """
    cost = part.read(COST)
    try:
        return float(cost["seconds"]), int(cost["peak_bytes"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _damaged(part, COST, f"no {error}") from error


def damage(part: RunFolder, names: Sequence[str]) -> str:
    """Says what is wrong with the result of a model that is trained and scored; empty if nothing is.

    Args:
        part: of the run folder.
        names: of the classes.

    Raises:
        MmerError: if a file is there and cannot be read.
    """
    try:
        read_probabilities(part, names)
        _check_digest(part, WEIGHTS, read_scores(part))
        with safe_open(part.path / WEIGHTS, framework="np"):
            return ""
    except Damaged as error:
        return str(error)
    except (OSError, SafetensorError) as error:
        return str(_damaged(part, WEIGHTS, str(error)))


def loss_beside(part: RunFolder) -> list[str]:
    """Says which files are lost or changed that no score depends on, so that nothing is trained anew for them."""
    told = []
    for read in (_read_curves, read_cost):
        try:
            read(part)
        except Damaged as error:
            told.append(f"{str(error).partition(';')[0]}; delete {part.path / SCORES} to train it anew")
    return told


def _read_curves(part: RunFolder) -> list[dict[str, str]]:
    _check_digest(part, CURVES, read_scores(part))
    return part.read_rows(CURVES)


def _own_digest(scores: Mapping[str, Any]) -> str:
    return digest_of({name: value for name, value in scores.items() if name != "digests"})


def _check_digest(part: RunFolder, name: str, scores: Mapping[str, Any]) -> None:
    """Refuses a file that was changed since its model was scored; runs of old keep no digests."""
    written = scores["digests"].get(name)
    if written is not None and part.digest(name) != written:
        raise _damaged(part, name, f"it is not the file that {SCORES} is of")


def _damaged(part: RunFolder, name: str, why: str) -> Damaged:
    return Damaged(f"{part.path / name} is damaged ({why}); the command of its run trains it anew")
