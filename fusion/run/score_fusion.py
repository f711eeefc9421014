"""Late fusion, the baseline ``score``: the sum of the logits of finished runs.

Source: LE-MER (Wang et al., Interspeech 2023, arXiv:2309.02106), section 3.4. A run stores probabilities. Their
logarithms differ from the logits by a constant per utterance, which does not change the softmax of a sum. The logits of
a run with several seeds are averaged over the seeds.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import MmerError
from cache.joined import AnyCache
from fusion.evaluation.metrics import compute_scores
from fusion.evaluation.task import task_of
from fusion.fingerprint import Plain, digest_of
from fusion.run.artifacts import Row, read_predictions, read_probabilities, read_scores, with_digests, write_predictions
from fusion.run.folder import PREDICTIONS, SCORES, ModelFolder, RunFolder
from fusion.run.results import check_utterances, collect_results

SCORE_FUSION = "score"
MIN_PROBABILITY = float(np.finfo(np.float32).tiny)  # replaces probabilities that float32 rounds to 0

Logits = dict[str, npt.NDArray[np.float64]]


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
    for run, identity in zip(runs, identities, strict=True):
        if not task_of(identity).is_classification:
            raise MmerError(f"{run.path} predicts {identity['target']}; only the logits of classes can be fused")
    for run, identity in zip(runs[1:], identities[1:], strict=True):
        _check_matching(runs[0], identities[0], run, identity)
    fused, provenance = _fused_identity(identities), _provenance(runs, cache)
    by_fold = {fold: _fuse_fold(runs, identities, fold) for fold in fused["folds"]}
    check_utterances((row["id"] for _, rows, _ in by_fold.values() for row in rows), cache)
    with out.locked():
        if replace:
            out.clear()
        out.begin(fused, provenance)
        for fold, (scores, rows, probabilities) in by_fold.items():
            model = out.model(fold, 0)
            labels = [row["label"] for row in rows]
            write_predictions(model, [row["id"] for row in rows], labels, probabilities, list(fused["labels"]))
            model.write(SCORES, with_digests(model, scores, (PREDICTIONS,)))
        return collect_results(out, cache, fused, notes=provenance["notes"])


def _fused_identity(identities: Sequence[Plain]) -> dict[str, Any]:
    first = identities[0]
    return {
        "fusion": SCORE_FUSION,
        "seeds": [0],
        "labels": first["labels"],
        "protocol": first["protocol"],
        "folds": first["folds"],
        "runs": [f"{identity['fusion']} {digest_of(identity)}" for identity in identities],
    }


def _provenance(runs: Sequence[RunFolder], cache: AnyCache) -> dict[str, Any]:
    notes = dict.fromkeys(note for run in runs for note in run.record.get("notes", []))
    summed = f"the sum of the logits of {' and '.join(str(run.path) for run in runs)}"
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
        The scores, the rows of the test utterances in predictions.csv of the first run, and the fused probabilities,
        float64 ``(n, classes)``.
    """
    names = list(identities[0]["labels"])
    by_run = [
        [run.model(fold, seed) for seed in identity["seeds"]] for run, identity in zip(runs, identities, strict=True)
    ]
    rows = read_predictions(by_run[0][0], names)
    truth = {row["id"]: row["label"] for row in rows}
    for run, models in zip(runs, by_run, strict=True):
        for model in models:
            found = {row["id"]: row["label"] for row in read_predictions(model, names)}
            _check_truth(fold, truth, found, runs[0], run)
    logits = [_mean_logits(models, names) for models in by_run]
    probabilities = _softmax(np.stack([sum(of_run[name] for of_run in logits) for name in truth]))
    classes = np.array([names.index(label) for label in truth.values()])
    records = [read_scores(model) for models in by_run for model in models]
    scores = {
        "fold": fold,
        "seed": 0,
        "epoch": 0,
        **{subset: min(record[subset] for record in records) for subset in ("train", "dev", "test")},
        **compute_scores(classes, probabilities.argmax(axis=1), len(names), every_class=False).as_dict(),
        "test_of": max(record["test_of"] for record in records),
        "over_limits": sorted({name for record in records for name in record["over_limits"]}),
        "parameters": sum(read_scores(models[0])["parameters"] for models in by_run),
        "notes": [],
    }
    return scores, rows, probabilities


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


def _mean_logits(models: Sequence[ModelFolder], names: Sequence[str]) -> Logits:
    """Returns the logits of each test utterance, averaged over the seeds of a run."""
    by_seed = [
        {name: np.log(np.maximum(row, MIN_PROBABILITY)) for name, row in read_probabilities(model, names).items()}
        for model in models
    ]
    return {name: np.mean([logits[name] for logits in by_seed], axis=0) for name in by_seed[0]}


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax: npt.NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return softmax
