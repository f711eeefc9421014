"""The baseline ``score`` over two finished runs: the sum of their logits, as in LE-MER, section 3.4 (Interspeech 2023).

A run keeps probabilities. Their logarithms are its logits but for a constant per utterance, which no softmax of a sum
sees. Where a run has several seeds, its logits are averaged over them.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.joined import AnyCache
from fusion.evaluation.metrics import compute_scores as score_guesses
from fusion.fingerprint import Plain, digest_of
from fusion.run.artifacts import Row, read_predictions, read_probabilities, read_scores, with_digests, write_predictions
from fusion.run.folder import PREDICTIONS, RUN, SCORES, ModelFolder, RunFolder
from fusion.run.results import check_held, collect

SCORE_FUSION = "score"
LEAST = float(np.finfo(np.float32).tiny)  # a probability that float32 rounds to 0

Logits = dict[str, npt.NDArray[np.float64]]


def fuse_scores(runs: Sequence[RunFolder], cache: AnyCache, out: RunFolder, *, replace: bool = False) -> dict[str, Any]:
    """Adds the logits of finished runs up, and leaves a run folder of the same form.

    Args:
        runs: two or more, with the same classes, folds and test utterances.
        cache: that they were trained on.
        out: where the sum goes; one that is there already is written again.
        replace: take the place of another run in `out`.

    Returns:
        What ``mmer-train --json`` prints; the epoch of a sum is 0, and its training and dev utterances are those of the
        run with the fewest.

    Raises:
        MmerError: if a run is not finished, or two do not belong together.
    """
    if out.path.resolve() in {run.path.resolve() for run in runs}:
        raise MmerError(f"{out.path} is one of the runs to add up; name another --out")
    told = [run.identity for run in runs]
    for run, described in zip(runs[1:], told[1:], strict=True):
        _check_alike(runs[0], told[0], run, described)
    summed = _described(told)
    scored, recorded = {fold: _fold(runs, told, fold) for fold in summed["folds"]}, _recorded(runs, cache)
    check_held((row["id"] for _, rows, _ in scored.values() for row in rows), cache)
    with out.locked():
        if replace:
            out.clear()
        out.begin(summed, recorded)
        for fold, (scores, rows, probabilities) in scored.items():
            part = out.model(fold, 0)
            labels = [row["label"] for row in rows]
            write_predictions(part, [row["id"] for row in rows], labels, probabilities, list(summed["labels"]))
            part.write(SCORES, with_digests(part, scores, (PREDICTIONS,)))
        return collect(out, cache, summed, notes=recorded["notes"])


def _described(told: Sequence[Plain]) -> dict[str, Any]:
    first = told[0]
    return {
        "fusion": SCORE_FUSION,
        "seeds": [0],
        "labels": first["labels"],
        "protocol": first["protocol"],
        "folds": first["folds"],
        "runs": [f"{one['fusion']} {digest_of(one)}" for one in told],
    }


def _recorded(runs: Sequence[RunFolder], cache: AnyCache) -> dict[str, Any]:
    notes = dict.fromkeys(note for run in runs for note in run.read(RUN).get("notes", []))
    added = f"the sum of the logits of {' and '.join(str(run.path) for run in runs)}"
    paths = [str(run.path.absolute()) for run in runs]
    return {"cache": str(cache.path.absolute()), "runs": paths, "notes": [added, *notes]}


def _check_alike(first: RunFolder, mine: Plain, other: RunFolder, theirs: Plain) -> None:
    """Refuses runs of other classes, another protocol or other folds."""
    for what in ("labels", "protocol"):
        if mine[what] != theirs[what] or list(mine[what]) != list(theirs[what]):
            raise MmerError(
                f"{first.path} and {other.path} have other {what} ({_some(mine[what])}; {_some(theirs[what])}); "
                "only runs that agree in labels, protocol and test utterances can be added up"
            )
    if list(mine["folds"]) != list(theirs["folds"]):
        raise MmerError(
            f"{first.path} and {other.path} have other folds ({_some(mine['folds'])}; {_some(theirs['folds'])}); "
            "train both with the same cache and --protocol"
        )


def _fold(
    runs: Sequence[RunFolder], told: Sequence[Plain], fold: str
) -> tuple[dict[str, Any], list[Row], npt.NDArray[np.float64]]:
    """Gives the scores of a fold, the rows of its test utterances in the first run, and their new probabilities."""
    names = list(told[0]["labels"])
    parts = [[run.model(fold, seed) for seed in one["seeds"]] for run, one in zip(runs, told, strict=True)]
    rows = read_predictions(parts[0][0], names)
    truth = {row["id"]: row["label"] for row in rows}
    for run, own in zip(runs, parts, strict=True):
        for part in own:
            theirs = {row["id"]: row["label"] for row in read_predictions(part, names)}
            _check_truth(fold, truth, theirs, runs[0], run)
    logits = [_mean([_logits(part, names) for part in own]) for own in parts]
    probabilities = _softmax(np.stack([sum(one[name] for one in logits) for name in truth]))
    classes = np.array([names.index(label) for label in truth.values()])
    counted = [read_scores(part) for own in parts for part in own]
    scores = {
        "fold": fold,
        "seed": 0,
        "epoch": 0,
        **{part: min(one[part] for one in counted) for part in ("train", "dev", "test")},
        **score_guesses(classes, probabilities.argmax(axis=1), len(names)).as_dict(),
        "test_of": max(one["test_of"] for one in counted),
        "over_limits": sorted({name for one in counted for name in one["over_limits"]}),
        "parameters": sum(read_scores(own[0])["parameters"] for own in parts),
        "notes": [],
    }
    return scores, rows, probabilities


def _check_truth(fold: str, mine: Plain, theirs: Plain, first: RunFolder, other: RunFolder) -> None:
    alone = sorted(mine.keys() ^ theirs.keys())
    if alone:
        raise MmerError(
            f"fold {fold}: {len(alone)} test utterances are in one of {first.path} and {other.path} only "
            f"(first: {alone[0]}); train both with the same cache, --protocol and --data-seed"
        )
    changed = [name for name in mine if mine[name] != theirs[name]]
    if changed:
        raise MmerError(f"{first.path} and {other.path} disagree on the label of {changed[0]}; train both again")


def _logits(part: ModelFolder, names: Sequence[str]) -> Logits:
    return {name: np.log(np.maximum(row, LEAST)) for name, row in read_probabilities(part, names).items()}


def _mean(logits: Sequence[Logits]) -> Logits:
    return {name: np.mean([one[name] for one in logits], axis=0) for name in logits[0]}


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax: npt.NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return softmax


def _some(names: str | Iterable[str]) -> str:
    return names if isinstance(names, str) else ", ".join(names)
