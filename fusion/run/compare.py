"""Paired comparison of finished runs over the same test utterances.

The first run is the reference. Differences are score of the other run minus score of the reference. Intervals and the
permutation test resample and exchange whole clusters (speakers, dialogues in MELD) over the pooled predictions of all
folds and seeds (`fusion.evaluation.statistics`); McNemar's test and the t-test are those of `fusion.evaluation.paired`.
Runs of rated values have no McNemar's test, since a value is not right or wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cache.errors import CacheMissing, MmerError
from cache.joined import AnyCache, open_cache
from fusion.evaluation.catalog import task_of
from fusion.evaluation.paired import McNemar, mcnemar, paired_t_test
from fusion.evaluation.statistics import (
    RESAMPLES,
    Difference,
    Interval,
    Predictions,
    SoftPredictions,
    compare,
    pooled_scores,
)
from fusion.evaluation.task import Score, Task
from fusion.fingerprint import Plain
from fusion.run.artifacts import read_predictions, read_probabilities, read_scores, truth_texts
from fusion.run.folder import RunFolder, check_compared
from fusion.run.latex import escape_latex
from fusion.run.names import main_streams, stream_names
from fusion.run.results import pooled_predictions
from fusion.run.score_table import definitions

SIGNIFICANT = 0.05  # p-values below it get a star
STAR = r"$^{*}$"
HEADER = ("difference", "95% interval", "p permutation", "p t-test")


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparedRun:
    """One of the compared runs.

    Attributes:
        path: run folder.
        fusion: name of its head.
        streams: names of the streams that it reads.
        protocol: name of its protocol.
        task: what the run predicts.
        scores: pooled scores by name, as fractions or in units of the corpus.
        by_model: fold and seed -> scores by name.
        test: fold -> ids of its test utterances.
        predictions: test predictions of all folds and seeds.
        right: utterance -> whether the mean probability of the seeds predicts its class; None without classes.
    """

    path: Path
    fusion: str
    streams: Sequence[str]
    protocol: str
    task: Task
    scores: Mapping[str, float]
    by_model: Mapping[tuple[str, int], Mapping[str, float]]
    test: Mapping[str, frozenset[str]]
    predictions: Predictions
    right: Mapping[str, bool] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class PairedComparison:
    """The comparison of a run with the reference.

    Attributes:
        run: the run.
        difference: scores of the run minus those of the reference, with intervals and p-values of the permutation test.
        t_test: p-value of the paired t-test over folds and seeds by score; None where it cannot be computed.
        mcnemar: McNemar's test, whose first run is the reference; None without classes.
    """

    run: ComparedRun
    difference: Difference
    t_test: Mapping[str, float | None]
    mcnemar: McNemar | None

    def significant(self, name: str) -> bool:
        """Checks whether the permutation test of a score has p < 0.05."""
        return self.difference.p[name] < SIGNIFICANT


@dataclass(frozen=True, kw_only=True, eq=False)
class RunComparison:
    """The comparison of several runs with the first of them.

    Attributes:
        reference: the first run.
        pairs: comparison of each other run.
        notes: facts about the tests, one line each.
    """

    reference: ComparedRun
    pairs: tuple[PairedComparison, ...]
    notes: tuple[str, ...]

    @property
    def json(self) -> dict[str, Any]:
        """The comparison as plain values, as ``mmer-compare --json`` prints it."""
        runs = [self.reference, *(pair.run for pair in self.pairs)]
        return {
            "reference": str(self.reference.path),
            "runs": [{"run": str(run.path), "fusion": run.fusion, "pooled": dict(run.scores)} for run in runs],
            "comparisons": [
                {
                    "run": str(pair.run.path),
                    "difference": pair.difference.difference,
                    "interval": {name: _plain(ends) for name, ends in pair.difference.interval.items()},
                    "p_permutation": pair.difference.p,
                    "p_t_test": dict(pair.t_test),
                    "mcnemar": asdict(pair.mcnemar) if pair.mcnemar else None,
                }
                for pair in self.pairs
            ],
            "notes": list(self.notes),
        }

    @property
    def legend(self) -> str:
        """The definitions of the scores, to print below the tables."""
        return definitions(self.reference.task)

    def table(self, pair: PairedComparison) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
        """Returns header and rows of the comparison of one run; scores in percent have differences in points."""
        header = ("score", str(self.reference.path), str(pair.run.path), *HEADER)
        rows = []
        for score in self.reference.task.scores:
            name, difference = score.name, pair.difference
            rows.append(
                (
                    score.title,
                    score.text(self.reference.scores[name]),
                    score.text(pair.run.scores[name]),
                    score.signed(difference.difference[name]),
                    _interval_text(difference.interval[name], score),
                    f"{difference.p[name]:.4f}",
                    _p_text(pair.t_test[name]),
                )
            )
        return header, rows

    def mcnemar_line(self, pair: PairedComparison) -> str:
        """Returns a line on McNemar's test of one run; empty without classes."""
        test = pair.mcnemar
        if test is None:
            return ""
        return (
            f"McNemar: {test.first_only} utterances are right only in {self.reference.path}, {test.second_only} only "
            f"in {pair.run.path}; exact p = {test.p:.4f}"
        )

    @property
    def latex(self) -> str:
        """Rows of a LaTeX table; a star marks scores that differ from the reference with p < 0.05."""
        lines = [_latex_row(self.reference, stars=())]
        for pair in self.pairs:
            lines.append(_latex_row(pair.run, stars=[name for name in pair.run.task.names if pair.significant(name)]))
        legend = (
            f"% {STAR}: p < {SIGNIFICANT} against {self.reference.path}, permutation test clustered by speaker "
            "(MELD: by dialogue)"
        )
        return "\n".join([*lines, legend])


def compare_runs(runs: Sequence[Path], *, cache: Path | None = None, seed: int = 0) -> RunComparison:
    """Compares finished runs with the first of them, over the same test utterances.

    Args:
        runs: two or more run folders.
        cache: cache with the speakers that cluster the utterances; that of the first run by default.
        seed: random seed of the bootstrap and of random exchanges.

    Raises:
        MmerError: if there are fewer than two runs, one is given twice or is not finished, or the runs have other label
            sets or test utterances.
    """
    check_compared(runs)
    folders = [RunFolder(path) for path in runs]
    identities = [folder.identity for folder in folders]
    for folder, identity in zip(folders[1:], identities[1:], strict=True):
        check_targets(folders[0], identities[0], folder, identity)
        _check_labels(folders[0], identities[0], folder, identity)
    names = list(identities[0]["labels"])
    truths = [_truth(folder, identity, names) for folder, identity in zip(folders, identities, strict=True)]
    for folder, truth in zip(folders[1:], truths[1:], strict=True):
        _check_utterances(folders[0], truths[0], folder, truth)
    opened = _open(cache, folders[0])
    first, *others = (
        _read_run(folder, identity, opened, names) for folder, identity in zip(folders, identities, strict=True)
    )
    pairs = tuple(_compare_pair(first, other, seed) for other in others)
    return RunComparison(reference=first, pairs=pairs, notes=tuple(_notes(first, others)))


def check_targets(first: RunFolder, expected: Plain, other: RunFolder, found: Plain) -> None:
    """Checks that two runs predict the same.

    Args:
        first: one run.
        expected: its identity.
        other: the other run.
        found: its identity.

    Raises:
        MmerError: if one predicts classes and the other soft labels or rated values, or other dimensions.
    """
    targets = [identity.get("target", "classes") for identity in (expected, found)]
    if targets[0] != targets[1]:
        raise MmerError(
            f"{first.path} predicts {targets[0]} and {other.path} predicts {targets[1]}; train both with the same "
            "--target"
        )


def _open(cache: Path | None, run: RunFolder) -> AnyCache:
    """Opens a cache, by default that of a run."""
    path = cache or Path(str(run.record.get("cache", "")))
    try:
        return open_cache(path)
    except CacheMissing:
        if cache:
            raise
        raise MmerError(f"{path}, the cache of {run.path}, is not found; pass it as --cache FILE") from None


def _compare_pair(reference: ComparedRun, run: ComparedRun, seed: int) -> PairedComparison:
    return PairedComparison(
        run=run,
        difference=compare(run.predictions, reference.predictions, seed=seed),
        t_test={name: _t_test(reference, run, name) for name in run.task.names},
        mcnemar=_mcnemar(reference, run),
    )


def _mcnemar(reference: ComparedRun, run: ComparedRun) -> McNemar | None:
    if reference.right is None or run.right is None:
        return None
    ids = list(reference.right)
    return mcnemar(*(np.array([right[name] for name in ids]) for right in (reference.right, run.right)))


def _t_test(reference: ComparedRun, run: ComparedRun, name: str) -> float | None:
    """Computes the paired t-test of a score; None if the runs have other folds or seeds."""
    if not _same_models(reference, run):
        return None
    first, second = ([scores.by_model[model][name] for model in reference.by_model] for scores in (reference, run))
    return paired_t_test(first, second)


def _same_models(reference: ComparedRun, run: ComparedRun) -> bool:
    return reference.by_model.keys() == run.by_model.keys() and reference.test == run.test


def _read_run(folder: RunFolder, identity: Plain, cache: AnyCache, names: Sequence[str]) -> ComparedRun:
    """Reads scores and predictions of all models of a run."""
    task = task_of(identity)
    models = {(fold, seed): folder.model(fold, seed) for seed in identity["seeds"] for fold in identity["folds"]}
    predictions = pooled_predictions(list(models.values()), cache, names, task)
    by_model, test = {}, {}
    summed: dict[str, npt.NDArray[np.float64]] = {}
    for (fold, seed), model in models.items():
        scores = read_scores(model, task)
        by_model[fold, seed] = {name: scores[name] for name in task.names}
        outputs = read_probabilities(model, names, task)
        test[fold] = frozenset(outputs)
        for name, row in outputs.items():
            summed[name] = summed[name] + row if name in summed else row
    return ComparedRun(
        path=folder.path,
        fusion=str(identity["fusion"]),
        streams=main_streams(stream_names(identity)),
        protocol=str(identity["protocol"]),
        task=task,
        scores=pooled_scores(predictions),
        by_model=by_model,
        test=test,
        predictions=predictions,
        right=_right(predictions, summed) if task.has_classes else None,
    )


def _right(predictions: Predictions, summed: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, bool]:
    """Returns whether the largest sum of probabilities is that of the class, by utterance."""
    of_classes = predictions.majority if isinstance(predictions, SoftPredictions) else predictions
    truth = dict(zip(of_classes.ids.tolist(), of_classes.truth.tolist(), strict=True))
    return {name: bool(np.argmax(row) == truth[name]) for name, row in summed.items()}


def _check_labels(first: RunFolder, expected: Plain, other: RunFolder, found: Plain) -> None:
    """Checks that two runs have the same classes of the same raw labels."""
    if expected["labels"] != found["labels"]:
        raise MmerError(
            f"{first.path} and {other.path} have different label sets ({_labels_text(expected)}; "
            f"{_labels_text(found)}); only runs with the same --labels can be compared"
        )


def _labels_text(identity: Plain) -> str:
    return ",".join(f"{name}={'+'.join(raws)}" for name, raws in identity["labels"].items())


def _truth(folder: RunFolder, identity: Plain, names: Sequence[str]) -> dict[str, str]:
    """Returns the label, the shares of votes or the rated values of each test utterance of all folds, by id."""
    task = task_of(identity)
    rows = [row for model in folder.models(identity) for row in read_predictions(model, names, task)]
    return truth_texts(rows, names, task)


def _check_utterances(first: RunFolder, expected: Plain, other: RunFolder, found: Plain) -> None:
    """Checks that two runs were scored on the same utterances with the same labels."""
    missing, added = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or added:
        parts = [
            f"{len(ids)} only in {run.path}, such as {ids[0]}" for ids, run in ((missing, first), (added, other)) if ids
        ]
        raise MmerError(
            f"{first.path} and {other.path} have different test utterances ({'; '.join(parts)}); "
            "only runs over the same utterances can be compared"
        )
    changed = [name for name in expected if expected[name] != found[name]]
    if changed:
        raise MmerError(
            f"{first.path} and {other.path} have different labels of {changed[0]} "
            f"({expected[changed[0]]}; {found[changed[0]]}); train both again with the same cache"
        )


def _notes(reference: ComparedRun, others: Sequence[ComparedRun]) -> list[str]:
    count = len(np.unique(reference.predictions.clusters))
    notes = [
        f"interval and permutation test: {count} speakers (dialogues in MELD) are drawn and exchanged as a whole; with "
        f"{count} no p-value is below {_least_p(count)}",
        "t-test: over the scores of each fold and seed, as papers print it; folds share training data, so that its "
        "p-values are too small",
    ]
    compared = (reference, *others)
    if any(run.right is not None and len(run.predictions.ids) > len(run.right) for run in compared):
        notes.append("McNemar: the class of an utterance is that of the mean probability over the seeds of a run")
    unpaired = [run for run in others if not _same_models(reference, run)]
    notes += [f"no t-test: {reference.path} and {run.path} have different folds or seeds" for run in unpaired]
    if len(others) > 1:
        notes.append(f"{len(others)} runs are compared with one; p-values are not corrected for that")
    return notes


def _least_p(clusters: int) -> str:
    """Returns the least p-value of the permutation test, of all exchanges or of random ones."""
    ways = 2**clusters
    return f"{2 / ways if ways <= RESAMPLES else 1 / (RESAMPLES + 1):.4f}"


def _plain(ends: Interval | None) -> list[float] | None:
    return None if ends is None else list(ends)


def _interval_text(ends: Interval | None, score: Score) -> str:
    return "-" if ends is None else " to ".join(map(score.signed, ends))


def _p_text(p: float | None) -> str:
    return "-" if p is None else f"{p:.4f}"


def _latex_row(run: ComparedRun, *, stars: Sequence[str]) -> str:
    cells = [score.text(run.scores[score.name]) + (STAR if score.name in stars else "") for score in run.task.scores]
    first = (f"{run.fusion} ({run.path.name})", ", ".join(run.streams), run.protocol)
    return " & ".join([*map(escape_latex, first), *cells]) + r" \\"
