"""Late fusion, the baseline ``score``: the sum of the logits of finished runs.

Source: LE-MER (Wang et al., Interspeech 2023, arXiv:2309.02106), section 3.4. A run stores probabilities. Their
logarithms differ from the logits by a constant per utterance, which does not change the softmax of a sum. The logits of
a run with several seeds are averaged over the seeds. Runs of soft labels are fused in the same way. Rated values have
no logits; their fusion is the mean of the predicted values.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.joined import AnyCache
from fusion.evaluation.catalog import task_of
from fusion.evaluation.task import ID, Task
from fusion.fingerprint import Plain, digest_of
from fusion.heads.catalog import SCORE_FUSION
from fusion.run.artifacts import (
    Row,
    read_predictions,
    read_probabilities,
    read_scores,
    truth_texts,
    with_digests,
    write_predictions,
)
from fusion.run.compare import check_targets
from fusion.run.folder import PREDICTIONS, SCORES, ModelFolder, RunFolder
from fusion.run.results import check_utterances, collect_results

MIN_PROBABILITY = float(np.finfo(np.float32).tiny)  # replaces probabilities that float32 rounds to 0

Outputs = dict[str, npt.NDArray[np.float64]]


def fuse_scores(runs: Sequence[RunFolder], cache: AnyCache, out: RunFolder, *, replace: bool = False) -> dict[str, Any]:
    """Writes the late fusion of finished runs as a run folder.

    Args:
        runs: two or more runs with the same classes, folds and test utterances.
        cache: cache that they were trained on.
        out: folder of the fusion; the same fusion is written again.
        replace: delete another run in `out` first.

    Returns:
        The results, as ``mmer-train --json`` prints them. The epoch of a fusion is 0, and its numbers of training and
        development utterances are the smallest of the runs.

    Raises:
        MmerError: if a run is not finished, or two runs do not match.
    """
    if out.path.resolve() in {run.path.resolve() for run in runs}:
        raise MmerError(f"{out.path} is one of the runs to fuse; choose another --out")
    identities = [run.identity for run in runs]
    for run, identity in zip(runs[1:], identities[1:], strict=True):
        check_targets(runs[0], identities[0], run, identity)
        _check_matching(runs[0], identities[0], run, identity)
    task = task_of(identities[0])
    fused, provenance = _fused_identity(identities), _provenance(runs, cache, task)
    by_fold = {fold: _fuse_fold(runs, identities, fold) for fold in fused["folds"]}
    check_utterances((row["id"] for _, rows, _ in by_fold.values() for row in rows), cache)
    with out.locked():
        if replace:
            out.clear()
        out.begin(fused, provenance)
        for fold, (scores, rows, outputs) in by_fold.items():
            model, names = out.model(fold, 0), list(fused["labels"])
            ids, truth = [row[ID] for row in rows], _written_truth(rows, names, task)
            write_predictions(model, ids, truth, outputs, names, task=task)
            model.write(SCORES, with_digests(model, scores, (PREDICTIONS,)))
        return collect_results(out, cache, fused, notes=provenance["notes"])


def _fused_identity(identities: Sequence[Plain]) -> dict[str, Any]:
    first = identities[0]
    return {
        "fusion": SCORE_FUSION,
        **{name: first[name] for name in ("task", "target") if name in first},
        "seeds": [0],
        "labels": first["labels"],
        "protocol": first["protocol"],
        "folds": first["folds"],
        "runs": [f"{identity['fusion']} {digest_of(identity)}" for identity in identities],
    }


def _provenance(runs: Sequence[RunFolder], cache: AnyCache, task: Task) -> dict[str, Any]:
    notes = dict.fromkeys(note for run in runs for note in run.record.get("notes", []))
    fused = "sum of the logits" if task.has_classes else "mean of the predicted values"
    summed = f"the {fused} of {' and '.join(str(run.path) for run in runs)}"
    paths = [str(run.path.absolute()) for run in runs]
    return {"cache": str(cache.path.absolute()), "runs": paths, "notes": [summed, *notes]}


def _check_matching(first: RunFolder, expected: Plain, other: RunFolder, found: Plain) -> None:
    """Checks that two runs have the same classes, protocol and folds."""
    for what in ("labels", "protocol"):
        if expected[what] != found[what] or list(expected[what]) != list(found[what]):
            raise MmerError(
                f"{first.path} and {other.path} have different {what} ({_text(expected[what])}; {_text(found[what])}); "
                "only runs with the same labels, protocol and test utterances can be fused"
            )
    if list(expected["folds"]) != list(found["folds"]):
        raise MmerError(
            f"{first.path} and {other.path} have different folds "
            f"({_text(expected['folds'])}; {_text(found['folds'])}); train both with the same cache and --protocol"
        )


def _text(value: str | Iterable[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value)


def _fuse_fold(
    runs: Sequence[RunFolder], identities: Sequence[Plain], fold: str
) -> tuple[dict[str, Any], list[Row], npt.NDArray[np.float64]]:
    """Computes the fusion of one fold.

    Returns:
        The scores, the rows of the test utterances in predictions.csv of the first run, and the fused probabilities or
        values, float64 ``(n, outputs)``.
    """
    names, task = list(identities[0]["labels"]), task_of(identities[0])
    by_run = [
        [run.model(fold, seed) for seed in identity["seeds"]] for run, identity in zip(runs, identities, strict=True)
    ]
    rows = read_predictions(by_run[0][0], names, task)
    texts = truth_texts(rows, names, task)
    for run, models in zip(runs, by_run, strict=True):
        for model in models:
            found = truth_texts(read_predictions(model, names, task), names, task)
            _check_truth(fold, texts, found, runs[0], run)
    fused = _fused_outputs(by_run, [row[ID] for row in rows], names, task)
    truth = task.parse(rows, names)[0]
    records = [read_scores(model, task) for models in by_run for model in models]
    scores = {
        "fold": fold,
        "seed": 0,
        "epoch": 0,
        **{subset: min(record[subset] for record in records) for subset in ("train", "dev", "test")},
        **task.evaluate(truth, task.decide(fused), len(names), complete=False),
        "test_of": max(record["test_of"] for record in records),
        "over_limits": sorted({name for record in records for name in record["over_limits"]}),
        "parameters": sum(read_scores(models[0], task)["parameters"] for models in by_run),
        "notes": [],
    }
    return scores, rows, fused


def _fused_outputs(
    by_run: Sequence[Sequence[ModelFolder]], ids: Sequence[str], names: Sequence[str], task: Task
) -> npt.NDArray[np.float64]:
    """Computes the softmax of the sum of the logits, or the mean of the values, ``(n, outputs)``."""
    outputs = [_mean_outputs(models, names, task) for models in by_run]
    stacked = np.array([[of_run[name] for of_run in outputs] for name in ids])  # (n, runs, outputs)
    if task.has_classes:
        return _softmax(stacked.sum(axis=1))
    values: npt.NDArray[np.float64] = stacked.mean(axis=1)
    return values


def _written_truth(rows: Sequence[Row], names: Sequence[str], task: Task) -> Sequence[Any]:
    """Returns the truth as `write_predictions` takes it: names of classes, shares of votes or rated values."""
    return [row["label"] for row in rows] if task.is_classification else list(task.parse(rows, names)[0])


def _check_truth(fold: str, expected: Plain, found: Plain, first: RunFolder, other: RunFolder) -> None:
    """Checks that two runs have the same test utterances and labels in a fold."""
    unshared = sorted(expected.keys() ^ found.keys())
    if unshared:
        raise MmerError(
            f"fold {fold}: {len(unshared)} test utterances are in only one of {first.path} and {other.path} "
            f"(first: {unshared[0]}); train both with the same cache, --protocol and --data-seed"
        )
    changed = [name for name in expected if expected[name] != found[name]]
    if changed:
        labels = f"{expected[changed[0]]}; {found[changed[0]]}"
        raise MmerError(
            f"{first.path} and {other.path} have different labels of {changed[0]} ({labels}); train both again"
        )


def _mean_outputs(models: Sequence[ModelFolder], names: Sequence[str], task: Task) -> Outputs:
    """Returns the logits or the values of each test utterance, averaged over the seeds of a run."""
    by_seed = [read_probabilities(model, names, task) for model in models]
    if task.has_classes:
        by_seed = [{name: np.log(np.maximum(row, MIN_PROBABILITY)) for name, row in held.items()} for held in by_seed]
    return {name: np.mean([held[name] for held in by_seed], axis=0) for name in by_seed[0]}


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax: npt.NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return softmax
